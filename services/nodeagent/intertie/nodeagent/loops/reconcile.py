"""Drives the host towards what is wanted: look, decide, do what is missing, again and again.

Nothing here remembers what it did: each pass starts from what libvirt, the kernel and the disk
show. Only the records that were obeyed and what guests said is kept, in the state file.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime

import structlog

from intertie.common.clock import Clock
from intertie.common.names import DeviceNames
from intertie.common.points import reach
from intertie.common.tasks import first_of
from intertie.common.values import replace
from intertie.nodeagent.domain.failures import (
    Attempts,
    HostFailure,
    HypervisorSilent,
    RecordsUnreadable,
)
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.keeping import alive_in, connected
from intertie.nodeagent.domain.machine import MachineFacts
from intertie.nodeagent.domain.memory_room import NoMemoryYet
from intertie.nodeagent.domain.network_plan import Place
from intertie.nodeagent.domain.ports import (
    Channels,
    HostNetwork,
    Hypervisor,
    Images,
    Records,
    StateStore,
    Storage,
    Traffic,
)
from intertie.nodeagent.domain.reconcile import (
    ALIVE,
    DomainState,
    KnownPart,
    Note,
    Observed,
    Phase,
    Step,
    phase_of,
)
from intertie.nodeagent.domain.report import HostFacts, SeenPart
from intertie.nodeagent.domain.traffic_plan import IncastShare
from intertie.nodeagent.domain.wanted import WantedPart, WantedWorkspace
from intertie.nodeagent.loops.connections import Connections
from intertie.nodeagent.loops.guest_looks import GuestLooks
from intertie.nodeagent.loops.guest_steps import GuestSteps
from intertie.nodeagent.loops.knowledge import Knowledge
from intertie.nodeagent.loops.listening import Listening
from intertie.nodeagent.loops.live_terms import LiveTerms
from intertie.nodeagent.loops.moving_memory import MovingMemory
from intertie.nodeagent.loops.room import Room
from intertie.nodeagent.loops.self_fence import SelfFence

log = structlog.get_logger(__name__)

_WITHOUT_A_NOTE = frozenset({Step.STOP, Step.RESUME, Step.PRESS, Step.SAVE, Step.KEEP})
"""What is done even while nothing may be started, or written down."""
_HELD = frozenset({Phase.STAGE, Phase.RUN, Phase.KEEP})
"""Parts that have files here, and may have guests."""
_AT_ONCE = 4
"""Guests that are made or started at the same time."""


class Reconciler:
    """All parts of one host. `sweep` is one pass; `run` makes one every `period_s` and on hints."""

    def __init__(
        self,
        *,
        clock: Clock,
        records: Records,
        state: StateStore,
        hypervisor: Hypervisor,
        network: HostNetwork,
        traffic: Traffic,
        storage: Storage,
        images: Images,
        channels: Channels,
        files: WorkspaceFiles,
        place: Place,
        machine: MachineFacts,
        memory_mib: Callable[[], int],
        self_fence: SelfFence,
        uplink_mbit_s: int,
        wide_mbit_s: int,
        period_s: float,
    ) -> None:
        """`memory_mib`: what all guests together may have."""
        self._clock = clock
        self._records = records
        knowledge = self._knowledge = Knowledge(clock, records, state, self_fence)
        connections = self._connections = Connections(
            network, traffic, place, uplink_mbit_s=uplink_mbit_s, wide_mbit_s=wide_mbit_s
        )
        self._hypervisor = hypervisor
        self._storage = storage
        self._images = images
        self._channels = channels
        listening = self._listening = Listening(clock, knowledge, hypervisor, channels)
        self._hint = asyncio.Event()
        memory = MovingMemory(clock, hypervisor, storage, files, ended=self._hint.set)
        room = self._room = Room(hypervisor, memory_mib, memory.moving)
        steps = self._steps = GuestSteps(
            knowledge, connections, listening, hypervisor, storage, images, files, machine,
            memory, room,
        )  # fmt: skip
        terms = self._terms = LiveTerms(clock, hypervisor, room, cgroups=machine.cgroups)
        self._looks = GuestLooks(clock, knowledge, storage, images, listening, terms, steps)
        self._period_s = period_s
        self._attempts: dict[str, Attempts] = {}
        self._waits: dict[str, str] = {}
        """By workspace uid, what kept it from beginning in this pass that is no failure."""
        self._domains: Mapping[str, DomainState] | None = None
        self._problems: list[str] = []
        self._stuck = False
        """Something that nobody wants could not be removed in this pass."""
        self._report: tuple[SeenPart, ...] | None = None
        self._moving: frozenset[str] = frozenset()
        """Whose memory was on its way when guests were last looked at."""
        self._obeyed: dict[str, int] = {}
        """By part uid, the newest generation of which nothing was missing."""
        self.fenced_epoch = 0
        """Of which it was told that it is fenced, and no guest runs since."""
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self.swept = asyncio.Event()
        """Set after every pass; whoever waits for one clears it."""

    @property
    def known(self) -> Mapping[str, KnownPart]:
        return self._knowledge.parts

    def wanted(self) -> tuple[WantedPart, ...]:
        """Those that something is promised to."""
        now = self._clock.now()
        return tuple(
            part.wanted
            for part in self.known.values()
            if not part.wanted.gone and phase_of(part, now=now) is not Phase.KEEP
        )

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps this host from obeying its records in full."""
        return self._knowledge.problems

    @property
    def domains(self) -> Mapping[str, DomainState]:
        """As of the last pass; empty while libvirt is silent."""
        return self._domains or {}

    @property
    def report(self) -> tuple[SeenPart, ...] | None:
        """Of every part that this host knows; None before the first pass that could see."""
        return self._report

    async def yield_to(self, shares: Mapping[str, IncastShare]) -> None:
        """Sends those hosts no more than they ask for; HostFailure or OSError where that is not
        done yet, and is at the next pass."""
        await self._connections.yield_to(shares)

    async def tell(self, facts: HostFacts) -> None:
        """Writes the host's facts, with what keeps it from obeying, and what it promises and has
        done for its being fenced."""
        promised, began = self._knowledge.promise(), self._clock.monotonic()
        told = replace(
            facts,
            missing=(*facts.missing, *self.problems),
            fenced_epoch=self.fenced_epoch,
            fence_after=promised,
        )
        await self._records.write_facts(told, now=self._clock.now())
        self._knowledge.reported(began, promised)

    def forget(self, part_uid: str) -> None:
        """Of a part that is gone from the host and from the records."""
        self._knowledge.forget(part_uid)
        self._obeyed.pop(part_uid, None)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._hear())
            while True:
                self._hint.clear()
                try:
                    await self.sweep()
                except HostFailure as error:
                    log.warning("sweep.failed", problem=str(error))
                except Exception as error:
                    # One pass that fails must not end all: guests have to be stopped in time.
                    log.error("sweep.failed", problem=repr(error), exc_info=True)
                self.swept.set()
                await first_of(self._clock.sleep(self._period_s), self._hint.wait())

    async def _hear(self) -> None:
        """A guest that is ready is told of at once."""
        while True:
            await self._channels.news()
            self._hint.set()

    async def _follow(self) -> None:
        """Hints only make a pass come sooner."""
        while True:
            with contextlib.suppress(RecordsUnreadable):
                async for _ in self._records.hints():
                    self._hint.set()
            await self._clock.sleep(self._period_s)

    async def sweep(self) -> None:
        """One pass."""
        self._problems = []
        self._waits = {}
        self._room.look_again()
        self._stuck = False
        changed = await self._knowledge.read()
        for part in changed:
            for workspace in part.workspaces:
                self._attempts.pop(workspace.uid, None)
        if changed:
            reach("agent.obeying")
        if not self._knowledge.begun:
            return
        now = self._clock.now()
        # Before guests are looked at: one that is put aside meanwhile is not what it looks like.
        self._moving = self._steps.moving()
        try:
            self._domains = await self._hypervisor.states()
        except HypervisorSilent as error:
            self._domains = None
            self._problem(error)
        if self._knowledge.must_be_off:
            await self._put_off()
        known = self.known
        phases = {uid: phase_of(part, now=now) for uid, part in known.items()}
        kept = [(known[uid].wanted, phase) for uid, phase in phases.items() if phase in _HELD]
        held = [part for part, _ in kept]
        await self._clear(held)
        reach("agent.before_connect")
        alive = alive_in(held, self._domains, self._moving)
        await self._connect(
            [connected(part, alive) if phase is Phase.KEEP else part for part, phase in kept]
        )
        reach("agent.connected")
        if self._knowledge.complete:
            self._images.retain(
                frozenset(ws.environment.image for part in held for ws in part.workspaces)
            )
        await asyncio.gather(
            *(
                self._drive(known[uid], workspace, phase, now)
                for uid, phase in phases.items()
                if phase in _HELD
                for workspace in known[uid].wanted.workspaces
            )
        )
        await self._settle(phases)
        if self._knowledge.fenced and self._is_off():
            self.fenced_epoch = self._knowledge.epoch
        self._report = tuple(
            self._seen(part, phases[uid], now) for uid, part in sorted(self.known.items())
        )

    async def _put_off(self) -> None:
        """All guests, those included that nobody knows of here."""
        running = [name for name, state in self.domains.items() if state in ALIVE]
        for name in running:
            try:
                await self._hypervisor.stop(name)
                log.warning("guest.put_off", domain=name)
            except HostFailure as error:
                self._problem(error)
        if running:
            await self._look_again()

    def _is_off(self) -> bool:
        if self._domains is None or self._stuck or self._steps.moving():
            return False
        return ALIVE.isdisjoint(self._domains.values())

    # Away with what is not wanted

    async def _clear(self, held: list[WantedPart]) -> None:
        """Removes guests, then their files. While libvirt is silent, nothing: a guest may run."""
        if self._domains is None:
            return
        uids = {workspace.uid for part in held for workspace in part.workspaces}
        spared = uids | self._strangers()
        wanted = {DeviceNames.domain(uid) for uid in spared}
        left = dict(self._domains)
        for name in [name for name in self._domains if name not in wanted]:
            try:
                reach("agent.before_remove")
                await self._hypervisor.remove(name)
                reach("agent.removed")
                del left[name]
                log.info("guest.removed", domain=name)
            except HostFailure as error:
                self._stuck = True
                self._problem(error)
        self._domains = left
        for uid in (self._storage.uids() | self._channels.listening()) - spared:
            self._channels.close(uid)
            self._attempts.pop(uid, None)
            self._terms.forget(uid)
            self._looks.forget(uid)
            self._steps.forget(uid)
            if DeviceNames.domain(uid) not in left:
                try:
                    await self._storage.remove(uid)
                    reach("agent.files_removed")
                except OSError as error:
                    self._stuck = True
                    self._problem(HostFailure(f"files of {uid}: {error.strerror}"))

    def _strangers(self) -> frozenset[str]:
        """Workspaces on this host that may belong to a part whose record cannot be read."""
        if self._knowledge.complete:
            return frozenset()
        known = {ws.uid for part in self.known.values() for ws in part.wanted.workspaces}
        guests = {name.removeprefix(DeviceNames.domain("")) for name in self.domains}
        return (self._storage.uids() | guests) - known

    # Networks

    async def _connect(self, active: list[WantedPart]) -> None:
        try:
            if self._knowledge.complete:
                await self._connections.apply(active)
            else:
                known = [part.wanted for part in self.known.values()]
                await self._connections.apply_known(active, known, self._strangers())
        except (HostFailure, OSError) as error:
            self._stuck = True
            self._problem(HostFailure(str(error)))
        applied = self._connections.applied
        if applied.problem:
            self._problem(HostFailure(applied.problem))
        self._stuck = self._stuck or bool(applied.left)

    # Guests

    async def _drive(
        self, part: KnownPart, workspace: WantedWorkspace, phase: Phase, now: datetime
    ) -> None:
        if self._domains is None:
            return
        if workspace.uid in self._moving | self._steps.moving():
            return
        seen = self._looks.observe(workspace, self._domains)
        if seen.domain in ALIVE and workspace.uid not in part.notes:
            # The file with the notes was lost: what was asked of it was done for all that is known.
            known = Note(boots=workspace.switched.boots)
            self._knowledge.remember(part.wanted.uid, workspace.uid, known)
            part = self.known[part.wanted.uid]
        wanted = self._looks.next_steps(part, workspace, phase, seen, now)
        if not self._knowledge.may_start and not _WITHOUT_A_NOTE & {*wanted}:
            return
        if seen.domain not in ALIVE:
            self._looks.forget(workspace.uid)
        if not wanted:
            self._attempts.pop(workspace.uid, None)
            self._steps.forget(workspace.uid)
        attempts = self._attempts.get(workspace.uid, Attempts())
        if not wanted or not attempts.may_try(now=self._clock.monotonic()):
            if phase is not Phase.KEEP:
                await self._put_in_force(workspace, seen)
            return
        if Step.START in wanted:
            self._terms.forget(workspace.uid)
        async with self._at_once:
            try:
                for step in wanted:
                    if step is Step.PRESS:
                        self._looks.pressed(workspace.uid)
                    if self._domains is not None:
                        await self._steps.take(step, part.wanted, workspace)
            except HypervisorSilent as error:
                self._domains = None
                self._problem(error)
            except NoMemoryYet as error:
                self._waits[workspace.uid] = str(error)
            except HostFailure as error:
                self._failed(workspace, attempts, error)
            except OSError as error:
                self._failed(
                    workspace, attempts, HostFailure(f"this host's disk: {error.strerror}")
                )
            except Exception as error:
                # A fault in one guest's way, whatever it is, does not keep others from theirs.
                log.error("guest.fault", workspace=workspace.uid, exc_info=True)
                self._failed(workspace, attempts, HostFailure(repr(error)))

    async def _put_in_force(self, workspace: WantedWorkspace, seen: Observed) -> None:
        """Its newest terms, while it runs; what fails of them is no failure of the guest."""
        if seen.domain not in (DomainState.RUNNING, DomainState.PAUSED):
            self._terms.forget(workspace.uid)
            return
        if not self._terms.due(workspace):
            return
        async with self._at_once:
            if self._domains is None:
                return
            try:
                await self._terms.follow(workspace)
            except HypervisorSilent as error:
                self._domains = None
                self._problem(error)

    def _failed(self, workspace: WantedWorkspace, attempts: Attempts, error: HostFailure) -> None:
        tried = attempts.failed(error, now=self._clock.monotonic())
        self._attempts[workspace.uid] = tried
        log.warning("guest.failed", workspace=workspace.uid, problem=str(error))

    # What came of it

    async def _settle(self, phases: Mapping[str, Phase]) -> None:
        """Looks at the guests again, and listens to those that are not ready yet."""
        if self._domains is None:
            return
        await self._look_again()
        if self._domains is None:
            return
        running = (
            (uid, workspace)
            for uid, phase in phases.items()
            if phase in (Phase.RUN, Phase.KEEP)
            for workspace in self.known[uid].wanted.workspaces
        )
        await self._listening.sweep(running, self._domains)

    async def _look_again(self) -> None:
        try:
            self._domains = await self._hypervisor.states()
        except HypervisorSilent as error:
            self._domains = None
            self._problem(error)

    def _seen(self, part: KnownPart, phase: Phase, now: datetime) -> SeenPart:
        wanted = part.wanted
        moving = self._steps.moving().intersection(each.uid for each in wanted.workspaces)
        left = self._stuck or self._domains is None or moving
        gone = phase is Phase.OVER and not left
        if self._obeys(part, phase, now):
            self._obeyed[wanted.uid] = wanted.generation
        elif phase is Phase.KEEP:
            # By the same record its guests were to run a moment ago.
            self._obeyed.pop(wanted.uid, None)
        if self._domains is None:
            before = {seen.uid: seen for seen in self._report or ()}.get(wanted.uid)
            if before is not None:
                # Nothing is known of the guests but that they were left alone.
                return replace(before, generation=wanted.generation, message=self._message())
        return SeenPart(
            name=wanted.name,
            uid=wanted.uid,
            generation=wanted.generation,
            workspaces=tuple(
                self._looks.told(
                    part,
                    workspace,
                    phase,
                    self.domains,
                    self._attempts.get(workspace.uid, Attempts()),
                    now,
                    waits=self._waits.get(workspace.uid, ""),
                )
                for workspace in wanted.workspaces
            ),
            gone=gone,
            message=self._message(),
            obeyed_generation=self._obeyed.get(wanted.uid, 0),
        )

    def _obeys(self, part: KnownPart, phase: Phase, now: datetime) -> bool:
        """Nothing of its newest record is missing here, nor is anything of an earlier one left."""
        if self._domains is None or self._stuck or self._connections.applied.problem:
            return False
        if not (self._knowledge.may_start and self._knowledge.complete):
            return False
        return phase is Phase.OVER or all(
            self._looks.has_all(part, workspace, phase, self._domains, now)
            for workspace in part.wanted.workspaces
        )

    def _problem(self, error: HostFailure) -> None:
        self._problems.append(str(error))
        log.warning("sweep.problem", problem=str(error))

    def _message(self) -> str:
        return "; ".join(dict.fromkeys((*self._knowledge.problems, *self._problems)))
