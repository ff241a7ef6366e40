"""The loop that counts what workspaces use, over restarts of guests and of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from intertie.common.names import DeviceNames
from intertie.common.values import replace
from intertie.nodeagent.adapters.state_file import StateFile
from intertie.nodeagent.convert import seen_to_proto
from intertie.nodeagent.domain.ports import DomainCounters
from intertie.nodeagent.domain.reconcile import KnownPart, WorkspaceState
from intertie.nodeagent.domain.report import SeenPart, SeenWorkspace, with_used
from intertie.nodeagent.domain.used import Mark, nic_mark
from intertie.nodeagent.loops.usage import KEPT_S, PERIOD_S, UsageMeter
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.parts import A_UID, PART

DOMAIN = DeviceNames.domain(A_UID)


class Using:
    def __init__(self, folder: Path) -> None:
        self.host = Host()
        self.state = StateFile(folder)
        self.known: dict[str, KnownPart] = {PART.uid: KnownPart(wanted=PART, present=True)}
        self.taps: dict[str, Mark] = {}
        self.seen: tuple[SeenPart, ...] | None = ()
        self.agent_starts()

    def agent_starts(self) -> None:
        """Another one, with what the one before had kept."""
        self.meter = UsageMeter(
            lambda: self.known,
            lambda: self.seen,
            self.host.hypervisor,
            lambda device: self.taps.get(device),
            self.state,
            self.host.clock,
        )

    async def read(self, **guest: int | str) -> None:
        await self.host.clock.advance(PERIOD_S)
        counters: Mapping[str, DomainCounters] = (
            {DOMAIN: DomainCounters(**guest)} if guest else {}  # type: ignore[arg-type]
        )
        self.host.hypervisor.counted = dict(counters)
        await self.meter.sweep()

    def cpu_ns(self) -> int:
        return self.meter.of(PART.uid)[A_UID].cpu_ns


async def test_what_was_never_there_has_used_nothing_that_anybody_knows(tmp_path: Path) -> None:
    using = Using(tmp_path)
    await using.read()
    assert using.meter.of(PART.uid) == {}


async def test_it_counts_over_restarts_of_guest_and_agent(tmp_path: Path) -> None:
    using = Using(tmp_path)
    await using.read(made="1", cpu_time_ns=100, read_operations=2, write_operations=3)
    await using.read(made="1", cpu_time_ns=150, read_operations=2, write_operations=4)
    assert using.cpu_ns() == 150
    await using.read()
    assert using.cpu_ns() == 150, "it is off"
    await using.read(made="2", cpu_time_ns=400)
    assert using.cpu_ns() == 550, "all that it used since it was started"
    using.agent_starts()
    await using.read(made="2", cpu_time_ns=500)
    assert using.cpu_ns() == 650, "nothing of it twice"
    assert using.meter.of(PART.uid)[A_UID].disk_operations == 6


async def test_an_agent_that_was_killed_goes_on_from_what_it_kept(tmp_path: Path) -> None:
    """A guest that ran through it loses nothing, though it was not kept each time."""
    using = Using(tmp_path)
    for number in range(1, 8):
        await using.read(made="1", cpu_time_ns=100 * number)
    using.agent_starts()
    assert using.cpu_ns() == 100, "only what began is kept at once"
    await using.read(made="1", cpu_time_ns=800)
    assert using.cpu_ns() == 800
    await using.host.clock.advance(KEPT_S)
    await using.read(made="1", cpu_time_ns=900)
    using.agent_starts()
    assert using.cpu_ns() == 900


async def test_nics_count_for_themselves(tmp_path: Path) -> None:
    using = Using(tmp_path)
    tap = DeviceNames.tap(A_UID, 0)
    using.taps[tap] = nic_mark("7", sent_bytes=10, received_bytes=20)
    await using.read(made="1")
    using.taps[tap] = nic_mark("8", sent_bytes=5, received_bytes=6)
    await using.read(made="1")
    found = using.meter.of(PART.uid)[A_UID]
    assert (found.sent_bytes, found.received_bytes) == (15, 26)


async def test_while_libvirt_is_silent_nothing_new_is_known(tmp_path: Path) -> None:
    using = Using(tmp_path)
    await using.read(made="1", cpu_time_ns=100)
    heard = using.meter.of(PART.uid)[A_UID].read_time
    using.host.hypervisor.silent = True
    await using.read(made="1", cpu_time_ns=200)
    assert using.meter.of(PART.uid)[A_UID].read_time == heard


async def test_suspended_is_counted_and_told(tmp_path: Path) -> None:
    using = Using(tmp_path)
    await using.read(made="1", cpu_time_ns=100)
    workspace = SeenWorkspace(name="w-0", uid=A_UID, state=WorkspaceState.SUSPENDED)
    part = SeenPart(name=PART.name, uid=PART.uid, generation=1, workspaces=(workspace,))
    using.seen = (part,)
    for _ in range(4):
        await using.read()
    told = seen_to_proto(with_used(part, using.meter.of(PART.uid)), now=using.host.clock.now())
    [each] = told.workspaces
    assert each.used.suspended_time.ToTimedelta().total_seconds() == 3 * PERIOD_S
    assert each.used.cpu_time.ToNanoseconds() == 100


async def test_an_agent_that_was_killed_knows_who_was_suspended(tmp_path: Path) -> None:
    """It says nothing before it has looked at its guests."""
    using = Using(tmp_path)
    await using.read(made="1", cpu_time_ns=100)
    workspace = SeenWorkspace(name="w-0", uid=A_UID, state=WorkspaceState.SUSPENDED)
    part = SeenPart(name=PART.name, uid=PART.uid, generation=1, workspaces=(workspace,))
    using.seen = (part,)
    for _ in range(3):
        await using.read()
    using.seen = None
    using.agent_starts()
    await using.read()
    using.seen = (part,)
    await using.read()
    assert using.meter.of(PART.uid)[A_UID].suspended.total_seconds() == 4 * PERIOD_S


async def test_who_is_gone_is_told_of_until_its_part_is_forgotten(tmp_path: Path) -> None:
    using = Using(tmp_path)
    await using.read(made="1", cpu_time_ns=100)
    gone = replace(PART, gone=True, workspaces=())
    using.known = {PART.uid: KnownPart(wanted=gone, present=True)}
    await using.read()
    last = SeenPart(name=PART.name, uid=PART.uid, generation=2, gone=True)
    [each] = with_used(last, using.meter.of(PART.uid)).workspaces
    assert (each.uid, each.state, each.used and each.used.cpu_ns) == (
        A_UID,
        WorkspaceState.ENDED,
        100,
    )
    using.known = {}
    await using.read()
    using.agent_starts()
    assert using.meter.of(PART.uid) == {}
