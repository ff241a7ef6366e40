"""What the agent says it has found and done."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from intertie.common.values import replace
from intertie.nodeagent.domain.migrating import SeenMigration
from intertie.nodeagent.domain.power import MemoryMove
from intertie.nodeagent.domain.reconcile import WorkspaceState
from intertie.nodeagent.domain.snapshot_note import SeenSnapshot
from intertie.nodeagent.domain.used import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenWorkspace:
    name: str
    uid: str
    state: WorkspaceState
    message: str = ""
    ready_time: datetime | None = None
    """None: not ready."""
    staging_done_bytes: int = 0
    staging_total_bytes: int = 0
    pending: str = ""
    """What of its terms is not in force while it runs; empty when all is."""
    saved: MemoryMove | None = None
    """The last one that came to its end."""
    restored: MemoryMove | None = None
    used: Tally | None = None
    """None: nothing is known."""
    snapshot: SeenSnapshot | None = None
    """Of what was asked for last; None: nothing was."""
    migration: SeenMigration | None = None
    """None: there is nothing to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPart:
    name: str
    uid: str
    generation: int
    workspaces: tuple[SeenWorkspace, ...] = ()
    gone: bool = False
    message: str = ""
    obeyed_generation: int = 0
    """The newest generation of which nothing is missing; 0: none yet."""
    cleared_generation: int = 0
    """The newest of which nothing is here that is not in it; 0: none yet."""


def with_used(part: SeenPart, tallies: Mapping[str, Tally]) -> SeenPart:
    """With what each has used, by uid of the workspace; those among them that are not here any
    more are told as ENDED."""
    there = {each.uid for each in part.workspaces}
    return replace(
        part,
        workspaces=(
            *(replace(each, used=tallies.get(each.uid)) for each in part.workspaces),
            *(
                SeenWorkspace(name=each.workspace, uid=uid, state=WorkspaceState.ENDED, used=each)
                for uid, each in tallies.items()
                if uid not in there
            ),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What may be promised on this host."""

    vcpus: int
    memory_mib: int
    disk_mib: int
    iops: int
    throughput_mib_s: int
    uplink_mbit_s: int

    def within(self, other: "Capacity") -> "Capacity":
        """The lesser of both, amount by amount."""
        return Capacity(
            vcpus=min(self.vcpus, other.vcpus),
            memory_mib=min(self.memory_mib, other.memory_mib),
            disk_mib=min(self.disk_mib, other.disk_mib),
            iops=min(self.iops, other.iops),
            throughput_mib_s=min(self.throughput_mib_s, other.throughput_mib_s),
            uplink_mbit_s=min(self.uplink_mbit_s, other.uplink_mbit_s),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How many times what it started with a guest may have while it runs; 1: no more."""

    memory: int = 1
    vcpus: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenWay:
    """From this gateway to another site's, and back."""

    address: str
    round_trip: timedelta | None = None
    """None: it is lost, or was found again just now."""
    lost_since: datetime | None = None
    """None: it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    host: str
    capacity: Capacity
    address: str
    agent_address: str
    wide_address: str = ""
    """Empty: no gateway."""
    wide_port: int = 0
    hypervisors: tuple[str, ...] = ()
    architecture: str = ""
    cpu: str = ""
    """Of its processors, the same only where they can do the same; empty: it cannot tell."""
    missing: tuple[str, ...] = ()
    """What the host cannot do, a sentence each."""
    growth: Growth = Growth()
    """Of guests of its preferred hypervisor."""
    mtu: int = 1500
    wide_mtu: int = 0
    fenced_epoch: int = 0
    """The newest in which the host was told that it is fenced, and runs no guest since."""
    fence_after: timedelta = timedelta()
    """Its agent stops all guests once it could not write this for so long; 0: it does not."""
    ways: tuple[SeenWay, ...] = ()
    """Of a gateway: those that have ever answered."""
