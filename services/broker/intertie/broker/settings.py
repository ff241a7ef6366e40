"""The broker's settings: one TOML file, read once."""

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, field_validator, model_validator

from intertie.broker.domain.admission_policy import (
    ACCEPT_ALL,
    EACH_OTHER,
    AdmissionPolicy,
    All,
    Quotas,
    WindowBounds,
)
from intertie.broker.domain.fleet import LinkPolicy, Policy
from intertie.broker.domain.pricing import ByLoad, Flat, Pricing
from intertie.broker.domain.queue_policy import QueuePolicy
from intertie.broker.domain.refund_policy import RefundPolicy
from intertie.broker.domain.sending import StoreAddress
from intertie.broker.domain.tariff import Tariff
from intertie.common.errors import FieldInvalid
from intertie.common.leasing.plugins import (
    BACKFILLINGS,
    FAIRNESS,
    MIGRATIONS,
    ORDERS,
    PREEMPTIONS,
    RESIZINGS,
)
from intertie.common.names import check_label
from intertie.common.settings import (
    EtcdSettings,
    ListenSettings,
    LogSettings,
    NamedPeerSettings,
    NonEmpty,
    PeerSettings,
    RoomSettings,
    Section,
    ServiceSettings,
    TlsSettings,
    TrustSettings,
)
from intertie.common.tariff import RATES, Rates
from intertie.common.values import replace


class PolicySettings(Section):
    """What the operator lets be promised."""

    cpu_overcommit: float = Field(default=1.0, gt=0, le=64)
    memory_reserve_mib: NonNegativeInt = 0
    default_disk_cap_iops: int = Field(default=500, gt=0)
    default_disk_cap_mib_s: int = Field(default=100, gt=0)
    hosts: tuple[NonEmpty, ...] = ()
    longest_lease_hours: NonNegativeFloat = 0.0
    longest_lead_hours: NonNegativeFloat = 0.0
    """How far ahead a lease may begin. 0: without bound."""

    def admission(self, quotas: tuple["QuotaSettings", ...]) -> AdmissionPolicy:
        policies: list[AdmissionPolicy] = []
        if self.longest_lease_hours or self.longest_lead_hours:
            policies.append(
                WindowBounds(
                    longest=timedelta(hours=self.longest_lease_hours),
                    longest_lead=timedelta(hours=self.longest_lead_hours),
                )
            )
        if quotas:
            queued = {each.tenant: each.queued_leases for each in quotas}
            policies.append(
                Quotas(
                    of={each.tenant: each.most() for each in quotas},
                    queued={tenant: most for tenant, most in queued.items() if most is not None},
                )
            )
        return All(policies) if policies else ACCEPT_ALL


class FencingSettings(Section):
    """What becomes of a host that does not report."""

    method: Literal["none", "command", "self"] = "none"
    """How it is made certain that nothing of it runs; `none`: nothing is begun elsewhere."""
    lost_after_s: float = Field(default=120.0, ge=20)
    """Without a sign of life; above what a restart of an agent or of etcd takes."""
    command: tuple[NonEmpty, ...] = ()
    """A program and its arguments; the host's name is added. Exit 0: the host was off since. What
    it says is in the broker's log, how it exited in the host's state message."""
    command_timeout_s: float = Field(default=60.0, gt=0, le=3600)
    self_margin_s: float = Field(default=60.0, ge=5)
    """What an agent may take to stop its guests, once it has seen that it must."""

    @model_validator(mode="after")
    def _a_command_with_its_method(self) -> Self:
        if (self.method == "command") != bool(self.command):
            raise ValueError(
                "fencing: `command` goes with method `command`, and must be there then"
            )
        return self


class QuotaSettings(Section):
    """What a tenant may have at one time; what is left out is not bounded."""

    tenant: NonEmpty
    """A tenant's name, or `*`: every tenant that is not named, each for itself."""
    vcpus: int | None = Field(default=None, ge=0)
    memory_mib: int | None = Field(default=None, ge=0)
    disk_mib: int | None = Field(default=None, ge=0)
    iops: int | None = Field(default=None, ge=0)
    throughput_mib_s: int | None = Field(default=None, ge=0)
    uplink_mbit_s: int | None = Field(default=None, ge=0)
    queued_leases: int | None = Field(default=None, ge=0)
    """How many of its leases may wait in the queue for a first start at one time."""

    @field_validator("tenant")
    @classmethod
    def _a_name(cls, tenant: str) -> str:
        try:
            return tenant if tenant == EACH_OTHER else check_label(tenant, "tenant")
        except FieldInvalid as error:
            raise ValueError(error.problem) from None

    def most(self) -> dict[str, int]:
        said = self.model_dump(exclude={"tenant", "queued_leases"}, exclude_none=True)
        return {dimension: int(amount) for dimension, amount in said.items()}


class QueueSettings(Section):
    """How leases wait that run when there is room."""

    order: Literal["first-come", "shortest", "held-up"] = "first-come"
    """Who of them goes first: who came first; who has the least left; who has done little and
    waited long."""
    fairness: Literal["none", "dominant-resource"] = "none"
    """Between tenants. None: only that order counts. Dominant-resource: next is the first, by that
    order, of the tenant that has the least, as the largest of its shares of vCPUs, memory and disk;
    a day of waiting counts as much as a share of everything."""
    backfilling: Literal["aggressive", "conservative"] = "aggressive"
    """Whom others may pass: all but the first; nobody."""
    preemption: Literal["last-in-order", "least-done"] = "last-in-order"
    """Who of those that run gives way to a lease that does not wait: who is last in that order; who
    has run the shortest."""
    migration: Literal["first", "in-advance", "never"] = "first"
    """Whether who gives way goes to other hosts of the site instead of being put aside, where these
    have room: also if a lease that begins at once begins up to two minutes later for that; only if
    no lease begins later for it; not at all."""
    resizing: Literal["grow", "steady"] = "grow"
    """What becomes of best-effort leases that say how many workspaces they want at least and at
    most, while they run: they get more into room that nobody waits for, and are left with fewer
    before anybody is put aside; they keep what they began with."""
    resize_pause_s: float = Field(default=60.0, ge=0)
    """After it got more or was left with fewer, a lease gets no more for so long."""
    worth_s: float = Field(default=60.0, ge=1)
    """A stretch that is not to a lease's end is at least so long."""
    pool_mib_s: int = Field(default=50, ge=1)
    """At which guests' memory goes to a host's pool and back, before anything was measured, and
    what is counted of the pool for it."""
    longest_wait_hours: float = Field(default=720.0, gt=0, le=8784)
    """A lease that gets no room for so long ends; one that says less itself, sooner."""

    def policy(self) -> QueuePolicy:
        return QueuePolicy(
            order=ORDERS[self.order],
            fairness=FAIRNESS[self.fairness],
            backfilling=BACKFILLINGS[self.backfilling],
            preemption=PREEMPTIONS[self.preemption],
            migration=MIGRATIONS[self.migration],
            resizing=RESIZINGS[self.resizing],
            resize_pause=timedelta(seconds=self.resize_pause_s),
            worth=timedelta(seconds=self.worth_s),
            pool_mib_s=self.pool_mib_s,
            longest_wait=timedelta(hours=self.longest_wait_hours),
        )


class TariffSettings(Section):
    vcpu_hour: NonNegativeFloat = 0.0
    memory_gib_hour: NonNegativeFloat = 0.0
    disk_gib_hour: NonNegativeFloat = 0.0
    link_mbit_s_hour: NonNegativeFloat = 0.0
    iops_hour: NonNegativeFloat = 0.0
    throughput_mib_s_hour: NonNegativeFloat = 0.0
    nic_mbit_s_hour: NonNegativeFloat = 0.0
    pair_mbit_s_hour: NonNegativeFloat = 0.0
    """Of one Mbit/s guaranteed between two workspaces, for each end at this site."""
    give_way_vcpu_hour: NonNegativeFloat = 0.0
    """Beside the others, of one vCPU that a lease takes beyond what all hosts have free together
    while no best-effort lease gives way for it."""
    give_way_memory_gib_hour: NonNegativeFloat = 0.0
    """Likewise, of one GiB of memory."""

    def rates(self) -> Rates:
        return Rates(**self.model_dump(include=set(RATES)))


class KindTariffSettings(Section):
    """What is left out is as in `tariff`."""

    kind: Literal["immediate", "advance", "deadline", "best_effort"]
    """Kind of the lease."""
    vcpu_hour: float | None = Field(default=None, ge=0)
    memory_gib_hour: float | None = Field(default=None, ge=0)
    disk_gib_hour: float | None = Field(default=None, ge=0)
    link_mbit_s_hour: float | None = Field(default=None, ge=0)
    iops_hour: float | None = Field(default=None, ge=0)
    throughput_mib_s_hour: float | None = Field(default=None, ge=0)
    nic_mbit_s_hour: float | None = Field(default=None, ge=0)
    pair_mbit_s_hour: float | None = Field(default=None, ge=0)
    give_way_vcpu_hour: float | None = Field(default=None, ge=0)
    give_way_memory_gib_hour: float | None = Field(default=None, ge=0)

    def rates(self, others: Rates) -> Rates:
        return replace(others, **self.model_dump(include=set(RATES), exclude_none=True))


class PricingSettings(Section):
    plugin: Literal["flat", "by_load"] = "flat"
    """`flat`: the tariff as it is. `by_load`: dearer the more of the scarcest resource of all hosts
    is taken over a lease's window."""
    surcharge: NonNegativeFloat = 1.0
    """Of `by_load`: what a full site asks more than an empty one, as a share of the tariff."""

    def of(self, tariff: Tariff) -> Pricing:
        if self.plugin == "by_load":
            return ByLoad(tariff=tariff, surcharge=self.surcharge)
        return Flat(tariff=tariff)


class RefundSettings(Section):
    grace_s: NonNegativeFloat = 60.0
    """A guarantee that was measured below its promise for less long, while it was asked for, is no
    matter."""
    factor: NonNegativeFloat = 1.0
    """Of the price of what was guaranteed, over the time below."""
    lease_share: NonNegativeFloat = 0.0
    """Of the price of the whole lease over that time, beside it."""
    failed_share: float = Field(default=1.0, ge=0, le=1)
    """Of the price of what was left when a lease ended early and its owner had not asked for it."""
    cancelled_share: float = Field(default=1.0, ge=0, le=1)
    """Likewise, where its owner has."""

    def policy(self) -> RefundPolicy:
        return RefundPolicy(
            grace=timedelta(seconds=self.grace_s),
            **self.model_dump(exclude={"grace_s"}),
        )


class StoreSettings(PeerSettings):
    peer_addresses: tuple[NonEmpty, ...] = ()
    """`host:port` of it for other sites' image stores, tried in turn, under the same `server_name`.
    Without any, other sites bring no image from here."""


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
    room: RoomSettings = RoomSettings()
    log: LogSettings = LogSettings()
    imagestore: StoreSettings
    policy: PolicySettings = PolicySettings()
    fencing: FencingSettings = FencingSettings()
    tariff: TariffSettings = TariffSettings()
    kind_tariffs: tuple[KindTariffSettings, ...] = ()
    pricing: PricingSettings = PricingSettings()
    refund: RefundSettings = RefundSettings()
    quotas: tuple[QuotaSettings, ...] = ()
    queue: QueueSettings = QueueSettings()
    links: tuple[LinkSettings, ...] = ()
    metascheds: tuple[NamedPeerSettings, ...] = ()
    """Who may coordinate; requests are handed on to the first."""

    @model_validator(mode="after")
    def _one_quota_a_tenant(self) -> Self:
        tenants = [each.tenant for each in self.quotas]
        twice = {each for each in tenants if tenants.count(each) > 1}
        if twice:
            raise ValueError(f"quotas: {min(twice)} has two; write one")
        return self

    @model_validator(mode="after")
    def _one_tariff_a_kind(self) -> Self:
        kinds = [each.kind for each in self.kind_tariffs]
        twice = {each for each in kinds if kinds.count(each) > 1}
        if twice:
            raise ValueError(f"kind_tariffs: {min(twice)} has two; write one")
        return self

    def _tariff(self) -> Tariff:
        rates = self.tariff.rates()
        return Tariff(
            rates=rates, kinds={each.kind: each.rates(rates) for each in self.kind_tariffs}
        )

    def store_address(self) -> StoreAddress | None:
        """Where other sites' stores get images from here; None: nowhere."""
        store = self.imagestore
        if not store.peer_addresses:
            return None
        return StoreAddress(addresses=store.peer_addresses, server_name=store.server_name)

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
            admission=self.policy.admission(self.quotas),
            queue=self.queue.policy(),
            pricing=self.pricing.of(self._tariff()),
            refunds=self.refund.policy(),
        )
