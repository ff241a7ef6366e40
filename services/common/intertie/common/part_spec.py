"""What one site is asked to hold: its piece of a cluster, named as in the proto."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from intertie.common.intervals import Window
from intertie.common.names import workspace_label
from intertie.common.terms import (
    Allocation,
    BandwidthTerm,
    ClusterSpec,
    Dataset,
    DiskTerm,
    Environment,
    Volume,
)
from intertie.common.values import Struct, replace


class PartNic(Struct, frozen=True, kw_only=True):
    network: str
    mac: str
    address: str
    """With prefix length."""


class FurtherDisk(Struct, frozen=True, kw_only=True):
    """A data set, which is read-only, or a volume."""

    name: str
    """The disk's serial."""
    image: str = ""
    """Of a data set: a digest, never a name. Empty: a volume."""
    size_mib: int = 0
    """Of a volume."""
    disk: DiskTerm = DiskTerm()


class PartWorkspace(Struct, frozen=True, kw_only=True):
    group: str
    index: int
    environment: Environment
    """Its image is a digest, never a name."""
    allocation: Allocation
    nics: tuple[PartNic, ...] = ()
    max_per_host: int = 0
    """Of its group; 0: no bound."""
    disks: tuple[FurtherDisk, ...] = ()

    @property
    def label(self) -> str:
        return workspace_label(self.group, self.index)

    @property
    def images(self) -> tuple[str, ...]:
        """Digests of all that its host needs before it starts: of its image and its data sets."""
        return (self.environment.image, *(each.image for each in self.disks if each.image))

    @property
    def disk_mib(self) -> int:
        """Of its root disk and its volumes."""
        return self.allocation.disk_mib + sum(each.size_mib for each in self.disks)


class Member(Struct, frozen=True, kw_only=True):
    """A NIC on a network, wherever it is."""

    workspace: str
    site: str
    mac: str
    address: str
    """With prefix length."""


class PairPromise(Struct, frozen=True, kw_only=True):
    """Between workspaces `a` and `b`, in each direction."""

    a: str
    b: str
    bandwidth: BandwidthTerm


class PartNetwork(Struct, frozen=True, kw_only=True):
    name: str
    subnet: str
    members: tuple[Member, ...] = ()
    """Of all sites."""
    pairs: tuple[PairPromise, ...] = ()
    """Those that touch this site."""


class LinkReservation(Struct, frozen=True, kw_only=True):
    """The site's directed halves of its link to `peer`, for one network."""

    peer: str
    network: str
    egress_mbit_s: int = 0
    ingress_mbit_s: int = 0


class Transfer(Struct, frozen=True, kw_only=True):
    """An image or a data set on its way from one site's store to another's, at one rate."""

    digest: str
    size_bytes: int
    from_site: str
    to_site: str
    mbit_s: int
    window: Window
    data: bool = False
    """A data set, of which no format is asked."""

    @property
    def carries_bytes(self) -> int:
        """At most, at its rate in its window."""
        return self.mbit_s * (self.window.duration // timedelta(microseconds=1)) // 8


class HostEntry(Struct, frozen=True, kw_only=True):
    """A line of /etc/hosts."""

    address: str
    """Without prefix length."""
    names: tuple[str, ...]


PROMISED = "spec.recallable.promised"
"""Of what is short for that alone, in a refusal of a hold."""


class Recallable(Struct, frozen=True, kw_only=True):
    """What becomes of a part that its site may put aside for leases that do not wait."""

    keep_for: timedelta
    """After its window its disks and memory are kept for so long, if there is disk for that."""
    cancellable: bool = False
    """It is cancelled instead, and nothing of it is kept."""
    ran: timedelta = timedelta()
    """In windows before this one."""
    put_aside: bool = False
    """The window is not its last: what it has is kept after it."""
    deadline: datetime | None = None
    """It is done by then, and so put aside only while there is room promised for the rest."""
    promised: Window | None = None
    """After the window, and by the deadline: counted at all of its sites from when they held it."""

    @property
    def may_be_put_aside(self) -> bool:
        return self.deadline is None or self.promised is not None


class PartSpec(Struct, frozen=True, kw_only=True):
    cluster: str
    """Full name."""
    cluster_uid: str
    window: Window
    workspaces: tuple[PartWorkspace, ...] = ()
    """Of this site; none for a part that is only passed through."""
    networks: tuple[PartNetwork, ...] = ()
    links: tuple[LinkReservation, ...] = ()
    host_entries: tuple[HostEntry, ...] = ()
    recallable: Recallable | None = None
    """None: its site may not put it aside."""
    transfers: tuple[Transfer, ...] = ()
    """From or to this site, each in a window of its own. What was agreed on stands."""

    def pair_mbit_s(self, workspace: str) -> int:
        """Guaranteed to all pairs together that the workspace is an end of, each direction.

        Add this to what its NICs are guaranteed, for what its host's uplink must give.
        """
        return sum(
            pair.bandwidth.guarantee_mbit_s * ((pair.a, pair.b).count(workspace))
            for network in self.networks
            for pair in network.pairs
        )


def further_disks(spec: ClusterSpec, group: str) -> tuple[FurtherDisk, ...]:
    """What each workspace of the group has beside its root disk: its data sets, as the
    specification calls their sources, and then its volumes, each in their order there."""
    if not (spec.datasets or spec.volumes):
        return ()
    data = (
        FurtherDisk(name=each.name, image=each.source, disk=each.disk)
        for each in spec.datasets
        if not each.groups or group in each.groups
    )
    volumes = (
        FurtherDisk(name=each.name, size_mib=each.size_mib, disk=each.disk)
        for each in spec.volumes
        if each.group == group
    )
    return (*data, *volumes)


def with_further_disks(
    spec: ClusterSpec, has: Mapping[str, tuple[FurtherDisk, ...]]
) -> ClusterSpec:
    """The specification by which each group has just these; groups that are not named have none."""
    each_of = [(group, disk) for group, disks in has.items() for disk in disks]
    return replace(
        spec,
        datasets=tuple(
            Dataset(name=disk.name, source=disk.image, groups=(group,), disk=disk.disk)
            for group, disk in each_of
            if disk.image
        ),
        volumes=tuple(
            Volume(name=disk.name, size_mib=disk.size_mib, disk=disk.disk, group=group)
            for group, disk in each_of
            if not disk.image
        ),
    )
