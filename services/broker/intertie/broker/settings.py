"""The broker's settings: one TOML file, read once."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from intertie.broker.domain.fleet import LinkPolicy, Policy
from intertie.broker.domain.tariff import Tariff
from intertie.common.settings import (
    EtcdSettings,
    ListenSettings,
    LogSettings,
    NamedPeerSettings,
    NonEmpty,
    PeerSettings,
    Section,
    ServiceSettings,
    TlsSettings,
    TrustSettings,
)


class PolicySettings(Section):
    """What the operator lets be promised."""

    cpu_overcommit: float = Field(default=1.0, gt=0, le=64)
    memory_reserve_mib: NonNegativeInt = 0
    default_disk_cap_iops: int = Field(default=500, gt=0)
    default_disk_cap_mib_s: int = Field(default=100, gt=0)
    hosts: tuple[NonEmpty, ...] = ()


class TariffSettings(Section):
    vcpu_hour: NonNegativeFloat = 0.0
    memory_gib_hour: NonNegativeFloat = 0.0
    disk_gib_hour: NonNegativeFloat = 0.0
    link_mbit_s_hour: NonNegativeFloat = 0.0


class LinkSettings(Section):
    peer: NonEmpty
    egress_mbit_s: NonNegativeInt
    ingress_mbit_s: NonNegativeInt
    latency_ms: NonNegativeFloat = 0.0


class BrokerSettings(ServiceSettings):
    site: NonEmpty
    data: Path | None = None
    """Scratch; nothing that matters is kept there."""
    listen: ListenSettings
    tls: TlsSettings
    trust: tuple[TrustSettings, ...] = ()
    etcd: EtcdSettings
    log: LogSettings = LogSettings()
    imagestore: PeerSettings
    policy: PolicySettings = PolicySettings()
    tariff: TariffSettings = TariffSettings()
    links: tuple[LinkSettings, ...] = ()
    metascheds: tuple[NamedPeerSettings, ...] = ()
    """Who may coordinate; requests are handed on to the first."""

    def site_policy(self) -> Policy:
        return Policy(
            site=self.site,
            hosts=self.policy.hosts,
            cpu_overcommit=self.policy.cpu_overcommit,
            memory_reserve_mib=self.policy.memory_reserve_mib,
            default_disk_cap_iops=self.policy.default_disk_cap_iops,
            default_disk_cap_mib_s=self.policy.default_disk_cap_mib_s,
            links=tuple(
                LinkPolicy(
                    peer=link.peer,
                    egress_mbit_s=link.egress_mbit_s,
                    ingress_mbit_s=link.ingress_mbit_s,
                    latency=timedelta(milliseconds=link.latency_ms),
                )
                for link in self.links
            ),
            tariff=Tariff(
                vcpu_hour=self.tariff.vcpu_hour,
                memory_gib_hour=self.tariff.memory_gib_hour,
                disk_gib_hour=self.tariff.disk_gib_hour,
                link_mbit_s_hour=self.tariff.link_mbit_s_hour,
            ),
        )
