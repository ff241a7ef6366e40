"""Settings of a node agent: one TOML file."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from intertie.common.settings import (
    EtcdSettings,
    ListenSettings,
    LogSettings,
    NonEmpty,
    PeerSettings,
    Section,
    ServiceSettings,
    TlsSettings,
    TrustSettings,
)
from intertie.nodeagent.domain.files import MAX_SOCKET_PATH, WorkspaceFiles
from intertie.nodeagent.domain.network_plan import VXLAN_PORT

Positive = Annotated[int, Field(ge=1)]


class UnderlaySettings(Section):
    """The interface towards the other hosts of the site."""

    interface: NonEmpty
    address: NonEmpty
    capacity_mbit_s: Positive


class GatewaySettings(Section):
    """The interface towards other sites; only a gateway has one."""

    interface: NonEmpty
    address: NonEmpty
    port: Annotated[int, Field(ge=1, le=65535)] = 4790
    capacity_mbit_s: Positive


class OfferSettings(Section):
    """The most that may be promised here, whatever the host has."""

    vcpus: Positive
    memory_mib: Positive
    disk_mib: Positive
    pool_iops: Positive
    pool_throughput_mib_s: Positive


class SnapshotSettings(Section):
    """How fast images of guests' disks are made: what they take is not the guests'."""

    copy_mib_s: Positive = 64
    """A disk is copied in the pool at most so fast, one at a time."""
    upload_mbit_s: Positive = 200
    """A copy is sent to the image store at most so fast, one at a time, as unpromised traffic."""


class Settings(ServiceSettings):
    site: NonEmpty
    host: NonEmpty
    data: Path
    """Pool, image cache, seeds and state."""
    libvirt_uri: NonEmpty = "qemu:///system"
    libvirt_socket: Path = Path("/run/libvirt/libvirt-sock")
    """On which this host's libvirt takes guests from other hosts, through their agents."""
    migration_sockets: Path = Path("/var/lib/libvirt/qemu")
    """A folder of the same name on all hosts of a site, in which their QEMU may make sockets."""
    hypervisor: Literal["auto", "qemu", "kvm"] = "auto"
    """`auto`: whatever is found to work."""
    allow_kvm: bool = False
    """Somebody has seen a guest boot with KVM here: that /dev/kvm is there does not say so."""
    memory_growth: Annotated[int, Field(ge=1, le=16)] = 1
    """How many times its memory a guest may have while it runs, by whole blocks of 128 MiB; 1: more
    comes with its next start. Linux in guests below 3.5 GiB pays for 2 and up with 64 MiB."""
    vcpu_growth: Annotated[int | None, Field(ge=1, le=16)] = None
    """How many times its vCPUs a guest may have while it runs, but no more than `offer.vcpus`; 1:
    more come with its next start. Absent: 4 with KVM and 2 under emulation, where 2 and up have an
    emulator take up to 64 MiB more."""
    fence_after_s: Annotated[float, Field(ge=0)] = 0.0
    """Every guest is stopped once this host could not report for so long: 20 and up, or 0, never.
    The agent's supervisor must then start it again at once, always."""
    period_s: Annotated[float, Field(gt=0)] = 2.0
    """Between two passes."""
    image_cache_mib: Annotated[int, Field(ge=0)] = 4096
    """Images beyond this are let go once no guest runs them."""
    listen: ListenSettings
    tls: TlsSettings
    trust: tuple[TrustSettings, ...]
    etcd: EtcdSettings
    imagestore: PeerSettings
    underlay: UnderlaySettings
    gateway: GatewaySettings | None = None
    offer: OfferSettings
    log: LogSettings = LogSettings()
    snapshots: SnapshotSettings = SnapshotSettings()

    @model_validator(mode="after")
    def _not_too_soon(self) -> Self:
        if 0 < self.fence_after_s < 20:
            raise ValueError("fence_after_s: 20 or more, or 0; a host reports each 5 s")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        longest = WorkspaceFiles(self.data).ready_socket("0" * 12)
        if len(str(longest).encode()) > MAX_SOCKET_PATH:
            raise ValueError(f"data: {longest} is longer than a unix socket's address may be")
        if self.gateway is not None and self.gateway.port == VXLAN_PORT:
            raise ValueError(f"gateway.port: {VXLAN_PORT} is the underlay's")
        return self
