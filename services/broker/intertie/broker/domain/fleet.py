"""The hosts of the site as their agents report them, and what of them may be promised."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum, IntEnum

from intertie.broker.domain.admission_policy import ACCEPT_ALL, AdmissionPolicy
from intertie.broker.domain.counted import Used
from intertie.broker.domain.pricing import Flat, Pricing
from intertie.broker.domain.queue_policy import QueuePolicy
from intertie.broker.domain.refund_policy import RefundPolicy
from intertie.common.quantities import Vector
from intertie.common.snapshot import Snapshot
from intertie.common.values import Struct, field, replace

ALIVE_FOR = timedelta(seconds=15)
_SOME_TIME = datetime.min.replace(tzinfo=UTC)


class WorkspaceState(IntEnum):
    """As in intertie.api.cluster.v1.Workspace.State, by number."""

    STATE_UNSPECIFIED = 0
    PLANNED = 1
    STAGING = 2
    DEFINED = 3
    RUNNING = 4
    PAUSED = 5
    STOPPED = 6
    ENDED = 7
    FAILED = 8
    SUSPENDED = 9


WORKSPACE_NEXT: dict[WorkspaceState, frozenset[WorkspaceState]] = {
    WorkspaceState.PLANNED: frozenset(
        {WorkspaceState.STAGING, WorkspaceState.DEFINED, WorkspaceState.ENDED}
    ),
    WorkspaceState.STAGING: frozenset({WorkspaceState.DEFINED, WorkspaceState.ENDED}),
    WorkspaceState.DEFINED: frozenset({WorkspaceState.RUNNING, WorkspaceState.ENDED}),
    WorkspaceState.RUNNING: frozenset(
        {
            WorkspaceState.PAUSED,
            WorkspaceState.STOPPED,
            WorkspaceState.SUSPENDED,
            WorkspaceState.ENDED,
        }
    ),
    WorkspaceState.PAUSED: frozenset(
        {
            WorkspaceState.RUNNING,
            WorkspaceState.STOPPED,
            WorkspaceState.SUSPENDED,
            WorkspaceState.ENDED,
        }
    ),
    WorkspaceState.SUSPENDED: frozenset(
        {WorkspaceState.RUNNING, WorkspaceState.STOPPED, WorkspaceState.ENDED}
    ),
    WorkspaceState.STOPPED: frozenset({WorkspaceState.RUNNING, WorkspaceState.ENDED}),
    WorkspaceState.ENDED: frozenset(),
    WorkspaceState.FAILED: frozenset({WorkspaceState.ENDED}),
}
"""What agents do, beside FAILED, which is reached from every state but ENDED. The broker
believes what it is told; the table is what docs/states.md is drawn from."""


class Growth(Struct, frozen=True, kw_only=True):
    """How many times what it started with a guest may have while it runs; 1: no more."""

    memory: int = 1
    vcpus: int = 1


class HostWay(Struct, frozen=True, kw_only=True):
    """From a gateway to another site's, and back, as its agent finds it."""

    address: str
    round_trip: timedelta | None = None
    """None: it does not know."""
    lost_since: datetime | None = None
    """None: it is not."""


class HostFacts(Struct, frozen=True, kw_only=True):
    """What an agent found on its host."""

    host: str
    capacity: Vector
    address: str = ""
    """On the site's underlay."""
    agent_address: str = ""
    gateway: bool = False
    wide_address: str = ""
    wide_port: int = 0
    hypervisors: tuple[str, ...] = ()
    architecture: str = ""
    missing: tuple[str, ...] = ()
    growth: Growth | None = None
    """None: its agent does not say."""
    report_time: datetime
    mtu: int = 0
    wide_mtu: int = 0
    fenced_epoch: int = 0
    """The newest of which it says that it was fenced in it, and has run no guest since."""
    fence_after: timedelta = timedelta()
    """It stops its guests once it cannot report for so long; 0: it does not."""
    migrates: bool = False
    """Its agent knows what that is; one that does not would start what it is to take."""
    migrates_aside: bool = False
    """Likewise of what goes as it is put aside."""
    cpu: str = ""
    """The same only of hosts whose processors can do the same; empty: it does not say."""
    ways: tuple[HostWay, ...] = ()
    """Of a gateway: those that have ever answered. They change all the time, and nothing is decided
    by them here."""
    revision: int = 0
    """At which the report was written."""

    def standing(self) -> "HostFacts":
        """Without what changes with each report: the same while the host is."""
        return replace(self, report_time=_SOME_TIME, revision=0, ways=())

    def alive(self, *, now: datetime) -> bool:
        """A host is alive while its agent has reported within the last 15 s."""
        return now - self.report_time <= ALIVE_FOR


class MemoryMove(Struct, frozen=True, kw_only=True):
    """What it took to move a guest's memory to its host's pool, or back."""

    octets: int
    duration: timedelta


class SeenSnapshot(Struct, frozen=True, kw_only=True):
    """How far a host is with an image of a workspace's disk."""

    id: str
    shown: Snapshot


class MigrationOutcome(Enum):
    """As intertie.api.nodeagent.v1.SeenMigration.State, by name."""

    READY = "READY"
    TAKEN = "TAKEN"
    KEPT = "KEPT"
    GIVEN = "GIVEN"
    FAILED = "FAILED"


class SeenMigration(Struct, frozen=True, kw_only=True):
    number: int
    outcome: MigrationOutcome
    message: str = ""


class SeenWorkspace(Struct, frozen=True, kw_only=True):
    name: str
    state: WorkspaceState
    message: str = ""
    ready: bool = False
    ready_time: datetime | None = None
    staging_done_bytes: int = 0
    staging_total_bytes: int = 0
    pending: str = ""
    """What of its terms is not in force, in words."""
    saved: MemoryMove | None = None
    restored: MemoryMove | None = None
    """The last that came to its end."""
    used: Used | None = None
    """Since it was first on that host; None: nothing is known."""
    snapshot: SeenSnapshot | None = None
    migration: SeenMigration | None = None
    """What came of its being on its way; None: there is nothing to say."""


class SeenPart(Struct, frozen=True, kw_only=True):
    """What one agent has found and done for one part."""

    host: str
    part_uid: str
    generation: int
    workspaces: tuple[SeenWorkspace, ...] = ()
    gone: bool = False
    message: str = ""
    obeyed_generation: int = 0
    """The newest of which nothing is missing on the host; 0: none that it knows of."""
    cleared_generation: int = 0
    """The newest of which the host has nothing that is not in it; 0: it does not say."""


class LinkPolicy(Struct, frozen=True, kw_only=True):
    """This site's directed halves of its link to `peer`."""

    peer: str
    egress_mbit_s: int
    ingress_mbit_s: int
    latency: timedelta = timedelta()


class Policy(Struct, frozen=True, kw_only=True):
    """What the operator of the site allows."""

    site: str
    hosts: tuple[str, ...]
    """Those that are admitted; others may report what they like."""
    cpu_overcommit: float = 1.0
    memory_reserve_mib: int = 0
    default_disk_cap_iops: int = 500
    default_disk_cap_mib_s: int = 100
    links: tuple[LinkPolicy, ...] = ()
    pricing: Pricing = field(default_factory=Flat)
    refunds: RefundPolicy = field(default_factory=RefundPolicy)
    admission: AdmissionPolicy = ACCEPT_ALL
    queue: QueuePolicy = QueuePolicy()

    def link(self, peer: str) -> LinkPolicy | None:
        return next((link for link in self.links if link.peer == peer), None)

    def promisable(self, facts: HostFacts) -> Vector:
        """What may be promised of a host: its vCPUs times the overcommit that the operator
        allows, its memory less the reserve, all else as found."""
        found = facts.capacity
        return Vector(
            vcpus=int(found.vcpus * self.cpu_overcommit),
            memory_mib=max(found.memory_mib - self.memory_reserve_mib, 0),
            disk_mib=found.disk_mib,
            iops=found.iops,
            throughput_mib_s=found.throughput_mib_s,
            uplink_mbit_s=found.uplink_mbit_s,
        )


class Fleet(Struct, frozen=True, kw_only=True):
    """Every host that has ever reported, and which of them are admitted.

    One that is admitted no more gets nothing new; what is on it goes on, and is still reached.
    """

    facts: Mapping[str, HostFacts] = field(default_factory=dict)
    """By name."""
    admitted: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    """Those that are fenced, or are just being: they get nothing new, whatever they report."""
    fenced: frozenset[str] = frozenset()
    """Those of which it is certain that none of their guests runs."""

    @classmethod
    def of(cls, facts: Iterable[HostFacts], policy: Policy) -> "Fleet":
        known = {each.host: each for each in facts}
        return cls(facts=dict(sorted(known.items())), admitted=frozenset(policy.hosts))

    def members(self) -> tuple[HostFacts, ...]:
        """The admitted ones that have ever reported."""
        return tuple(each for host, each in self.facts.items() if host in self.admitted)

    def alive(self, *, now: datetime) -> tuple[HostFacts, ...]:
        """Those that may get something new."""
        return tuple(
            each for each in self.members() if each.alive(now=now) and each.host not in self.held
        )

    def gateway(self, *, now: datetime) -> str:
        """The host that carries traffic to other sites: the first one that is alive."""
        for each in self.alive(now=now):
            if each.gateway and each.wide_address:
                return each.host
        return ""
