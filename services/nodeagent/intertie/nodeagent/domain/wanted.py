"""What the broker wants of this host: values with the names and fields of the records."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from intertie.common.actions import AS_BEGUN, Switched
from intertie.common.intervals import Window
from intertie.common.part_spec import FurtherDisk, HostEntry
from intertie.common.terms import Allocation, BandwidthTerm, Environment
from intertie.nodeagent.domain.migrating import Migration
from intertie.nodeagent.domain.snapshot_note import SnapshotOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedNic:
    network_uid: str
    mac: str
    address: str
    """With prefix length."""
    bandwidth: BandwidthTerm


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedWorkspace:
    name: str
    uid: str
    environment: Environment
    """Its image is a digest."""
    allocation: Allocation
    nics: tuple[WantedNic, ...] = ()
    nonce: str = ""
    switched: Switched = AS_BEGUN
    snapshot: SnapshotOrder | None = None
    migration: Migration | None = None
    """None: it is this host's alone."""
    disks: tuple[FurtherDisk, ...] = ()

    @property
    def data(self) -> tuple[str, ...]:
        """Digests of its data sets."""
        return tuple(each.image for each in self.disks if each.image)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """To another host of the site."""

    address: str
    macs: tuple[str, ...] = ()
    host: str = ""
    """Empty in a record of a broker that did not tell yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WideTunnel:
    """To the gateway of another site; `vni` is the receiver's."""

    site: str
    address: str
    port: int
    vni: int
    macs: tuple[str, ...] = ()
    guarantee_mbit_s: int = 0
    cap_mbit_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedPair:
    local_mac: str
    remote_mac: str
    bandwidth: BandwidthTerm


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedNetwork:
    uid: str
    name: str
    vni: int
    mtu: int
    tunnels: tuple[Tunnel, ...] = ()
    pairs: tuple[WantedPair, ...] = ()
    uplink_guarantee_mbit_s: int = 0
    uplink_cap_mbit_s: int = 0
    """0: up to the capacity of the uplink."""
    wide_tunnels: tuple[WideTunnel, ...] = ()
    sent_on: tuple[str, ...] = ()
    """MACs of what this host has given up to another one. In no record: see `handing_on`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedPart:
    name: str
    uid: str
    generation: int
    window: Window
    gone: bool = False
    workspaces: tuple[WantedWorkspace, ...] = ()
    networks: tuple[WantedNetwork, ...] = ()
    host_entries: tuple[HostEntry, ...] = ()
    cluster: str = ""
    keep_until: datetime | None = None
    """What its guests have in memory is kept from the window's end until then. None: nothing is."""

    @property
    def tenant(self) -> str:
        """Of `sites/{site}/tenants/{tenant}/parts/{part}`."""
        return self.name.split("/")[3]

    def network(self, uid: str) -> WantedNetwork:
        return next(network for network in self.networks if network.uid == uid)

    def taps(self) -> Iterator[tuple[WantedWorkspace, int, WantedNic]]:
        """Every NIC on this host, with its number in its workspace."""
        for workspace in self.workspaces:
            for number, nic in enumerate(workspace.nics):
                yield workspace, number, nic
