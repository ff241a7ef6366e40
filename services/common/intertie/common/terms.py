"""The values that a specification is made of, named and divided as in the protos.

They hold what was asked for, well-formed or not: see `spec.validate` and `spec.normalise`.
"""

from datetime import datetime, timedelta
from enum import Enum

from intertie.common.intervals import Window
from intertie.common.values import Struct

DEFAULT_DURATION = timedelta(hours=1)
DEFAULT_READY_WITHIN = timedelta(minutes=15)


class OnIsolation(Enum):
    """What happens to a workspace whose host is cut off from its site."""

    KEEP = "KEEP"
    STOP = "STOP"


class OnHostLoss(Enum):
    """What happens to a workspace whose host is lost: silent for long, and known to be off."""

    END = "END"
    RESTART = "RESTART"


class OnSiteLoss(Enum):
    """What happens to a workspace whose site is lost to its cluster: it has given its part up, or
    was not heard of for long."""

    FAIL = "FAIL"
    REPLACE = "REPLACE"


class OnLinkLoss(Enum):
    """What happens to a workspace if a link from its site to another of its cluster's is lost, or
    less than it was to be, for long."""

    STAY = "STAY"
    MOVE = "MOVE"


class Readiness(Enum):
    """What tells that a workspace is ready."""

    CHANNEL = "CHANNEL"
    GUEST_AGENT = "GUEST_AGENT"
    RUNNING = "RUNNING"


class AffinityKind(Enum):
    TOGETHER = "TOGETHER"
    """All workspaces of the groups are at one site."""
    APART = "APART"
    """No site has workspaces of two of the groups."""


class Kind(Enum):
    """How a lease waits."""

    BEST_EFFORT = "BEST_EFFORT"
    DEADLINE = "DEADLINE"


class BandwidthTerm(Struct, frozen=True, kw_only=True):
    """In each direction."""

    guarantee_mbit_s: int = 0
    cap_mbit_s: int = 0
    """0: equal to the guarantee."""


class DiskTerm(Struct, frozen=True, kw_only=True):
    """A cap that is 0 beside a guarantee that is 0 stands for the site's default."""

    guarantee_iops: int = 0
    cap_iops: int = 0
    guarantee_mib_s: int = 0
    cap_mib_s: int = 0


class PairTerm(Struct, frozen=True, kw_only=True):
    """Between every workspace of the group that carries it and every workspace of `group`."""

    group: str
    network: str = ""
    bandwidth: BandwidthTerm = BandwidthTerm()


class AvailabilityTerm(Struct, frozen=True, kw_only=True):
    on_isolation: OnIsolation = OnIsolation.KEEP
    stop_after: timedelta = timedelta()
    """Only with STOP."""
    on_host_loss: OnHostLoss = OnHostLoss.END
    on_site_loss: OnSiteLoss = OnSiteLoss.FAIL
    on_link_loss: OnLinkLoss = OnLinkLoss.STAY


class Allocation(Struct, frozen=True, kw_only=True):
    """How much one workspace gets."""

    vcpus: int
    memory_mib: int
    disk_mib: int
    disk: DiskTerm = DiskTerm()
    nic: BandwidthTerm = BandwidthTerm()
    """For each NIC."""
    pairs: tuple[PairTerm, ...] = ()
    availability: AvailabilityTerm = AvailabilityTerm()


class Contextualization(Struct, frozen=True, kw_only=True):
    ssh_authorized_keys: tuple[str, ...] = ()
    user_data: bytes = b""


class Environment(Struct, frozen=True, kw_only=True):
    """What a workspace is."""

    image: str
    """A name at the site, or a digest."""
    architecture: str = ""
    hypervisor: str = ""
    contextualization: Contextualization = Contextualization()
    readiness: Readiness = Readiness.CHANNEL
    timezone: str = ""
    """Empty: the image's own."""
    ready_within: timedelta = timedelta()
    """Of its start; 0: DEFAULT_READY_WITHIN."""


class GroupPlacement(Struct, frozen=True, kw_only=True):
    allow_sites: tuple[str, ...] = ()
    deny_sites: tuple[str, ...] = ()
    max_per_site: int = 0
    max_per_host: int = 0
    min_sites: int = 0


class Group(Struct, frozen=True, kw_only=True):
    """n like workspaces: `count`, or from `min_count` to `max_count`."""

    name: str
    count: int = 0
    min_count: int = 0
    max_count: int = 0
    environment: Environment
    allocation: Allocation
    networks: tuple[str, ...] = ()
    placement: GroupPlacement = GroupPlacement()

    @property
    def fewest(self) -> int:
        return self.count or self.min_count

    @property
    def most(self) -> int:
        return self.count or self.max_count


class LatencyBound(Struct, frozen=True, kw_only=True):
    """One way, between every workspace of the two groups."""

    groups: tuple[str, ...]
    max_latency: timedelta


class Network(Struct, frozen=True, kw_only=True):
    name: str
    subnet: str
    latency: tuple[LatencyBound, ...] = ()


class LeaseTerms(Struct, frozen=True, kw_only=True):
    start_time: datetime | None = None
    """None: as soon as it is admitted."""
    duration: timedelta | None = None
    end_time: datetime | None = None
    max_delay: timedelta = timedelta()
    kind: Kind | None = None
    """None: it does not wait. Else `duration` is for how long it runs in all."""
    deadline: datetime | None = None
    """Only with DEADLINE: by when it has run for so long."""
    max_wait: timedelta = timedelta()
    """At a time, of a best-effort one; 0: as long as its site lets any wait."""
    cancellable: bool = False
    """Of a best-effort one: it is cancelled instead of being put aside."""

    def window(self, *, now: datetime) -> Window:
        """The window as asked for, were it admitted now."""
        start = self.start_time or now
        if self.end_time is not None:
            return Window(start, self.end_time)
        return Window(start, start + (self.duration or DEFAULT_DURATION))


class Affinity(Struct, frozen=True, kw_only=True):
    """What groups have to do with one another where sites are chosen."""

    groups: tuple[str, ...]
    kind: AffinityKind


class Placement(Struct, frozen=True, kw_only=True):
    max_sites: int = 0
    affinities: tuple[Affinity, ...] = ()
    max_cost: float = 0.0
    """Of the whole lease, in the unit of account; 0: no bound."""


class Dataset(Struct, frozen=True, kw_only=True):
    """What workspaces read, each as a disk."""

    name: str
    source: str
    """As Environment.image."""
    groups: tuple[str, ...] = ()
    """Empty: all."""
    disk: DiskTerm = DiskTerm()


class Volume(Struct, frozen=True, kw_only=True):
    """A disk of its own for each workspace of the group."""

    name: str
    size_mib: int
    disk: DiskTerm = DiskTerm()
    group: str


class ClusterSpec(Struct, frozen=True, kw_only=True):
    groups: tuple[Group, ...]
    networks: tuple[Network, ...] = ()
    lease: LeaseTerms = LeaseTerms()
    placement: Placement = Placement()
    datasets: tuple[Dataset, ...] = ()
    volumes: tuple[Volume, ...] = ()

    def group(self, name: str) -> Group:
        return next(group for group in self.groups if group.name == name)

    def network(self, name: str) -> Network:
        return next(network for network in self.networks if network.name == name)


def shared_networks(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[str, ...]:
    """The networks that two groups have in common, in the order of the first."""
    return tuple(name for name in ours if name in theirs)
