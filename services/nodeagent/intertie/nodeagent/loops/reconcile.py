"""Drives the host towards what is wanted: look, decide, do what is missing, again and again.

Nothing here remembers what it did: each pass starts from what libvirt, the kernel and the disk
show. Only the records that were obeyed and what guests said is kept, in the state file.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import structlog

from intertie.common.clock import Clock
from intertie.common.points import reach
from intertie.common.tasks import first_of
from intertie.common.values import replace
from intertie.nodeagent.domain.failures import HostFailure, RecordsUnreadable
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.handing_on import handed_on
from intertie.nodeagent.domain.keeping import alive_in, connected
from intertie.nodeagent.domain.machine import MachineFacts
from intertie.nodeagent.domain.network_plan import Place
from intertie.nodeagent.domain.ports import (
    ArrivalSockets,
    Channels,
    HostNetwork,
    Hypervisor,
    Images,
    Peers,
    Records,
    StateStore,
    Storage,
    Traffic,
)
from intertie.nodeagent.domain.reconcile import (
    DomainState,
    KnownPart,
    Phase,
    phase_of,
)
from intertie.nodeagent.domain.report import HostFacts, SeenPart
from intertie.nodeagent.domain.snapshot_ports import Snapshotting
from intertie.nodeagent.domain.traffic_plan import IncastShare
from intertie.nodeagent.domain.wanted import WantedPart
from intertie.nodeagent.loops.arrivals import Arrivals
from intertie.nodeagent.loops.clearing import Clearing
from intertie.nodeagent.loops.connections import Connections
from intertie.nodeagent.loops.driving import Driving
from intertie.nodeagent.loops.guest_looks import GuestLooks
from intertie.nodeagent.loops.guest_steps import GuestSteps
from intertie.nodeagent.loops.knowledge import Knowledge
from intertie.nodeagent.loops.listening import Listening
from intertie.nodeagent.loops.live_terms import LiveTerms
from intertie.nodeagent.loops.moving_memory import MovingMemory
from intertie.nodeagent.loops.pool_room import PoolRoom
from intertie.nodeagent.loops.room import Room
from intertie.nodeagent.loops.self_fence import SelfFence
from intertie.nodeagent.loops.sending_guests import SendingGuests
from intertie.nodeagent.loops.sight import Sight
from intertie.nodeagent.loops.snapshots import Snapshots

log = structlog.get_logger(__name__)

_AHEAD = timedelta(seconds=10)
"""A gateway makes room so long before: a pass may take a while, and clocks differ."""
_HELD = frozenset({Phase.STAGE, Phase.RUN, Phase.KEEP})
"""Parts that have files here, and may have guests."""


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
        snapshotting: Snapshotting,
        channels: Channels,
        peers: Peers,
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
        pool = self._pool = PoolRoom(storage)
        memory = MovingMemory(clock, hypervisor, storage, pool, files, ended=self._hint.set)
        snapshots = Snapshots(
            clock, knowledge, hypervisor, storage, snapshotting, pool, files, ended=self._hint.set
        )
        room = self._room = Room(hypervisor, memory_mib, memory.moving)
        sending = self._sending = SendingGuests(
            clock, knowledge, hypervisor, storage, peers,
            given=self._send_on, ended=self._hint.set,
        )  # fmt: skip
        steps = self._steps = GuestSteps(
            knowledge, connections, listening, hypervisor, storage, images, files, machine,
            memory, room, snapshots, sending,
        )  # fmt: skip
        terms = LiveTerms(clock, hypervisor, room, cgroups=machine.cgroups)
        looks = GuestLooks(clock, knowledge, storage, images, listening, terms, steps, sending)
        self._looks = looks
        sight = self._sight = Sight(hypervisor)
        driving = self._driving = Driving(clock, sight, knowledge, looks, steps, terms, sending)
        self._clearing = Clearing(
            sight, knowledge, hypervisor, storage, channels, steps, driving
        )  # fmt: skip
        self._period_s = period_s
        self._connecting = asyncio.Lock()
        """Whoever has it knows what was given: nobody undoes what is sent on with an older plan."""
        self._report: tuple[SeenPart, ...] | None = None
        self._obeyed: dict[str, int] = {}
        """By part uid, the newest generation of which nothing was missing."""
        self.fenced_epoch = 0
        """Of which it was told that it is fenced, and no guest runs since."""
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
        return self._sight.domains or {}

    @property
    def report(self) -> tuple[SeenPart, ...] | None:
        """Of every part that this host knows; None before the first pass that could see."""
        return self._report

    def arrivals(self, sockets: ArrivalSockets) -> Arrivals:
        """What serves the agents of hosts that send guests here."""
        return Arrivals(
            self._clock, self._knowledge, self._hypervisor, self._storage, self._listening,
            self._room, self._pool, self._images, sockets, self._steps.check_network,
        )  # fmt: skip

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
        sight, clearing = self._sight, self._clearing
        sight.begin()
        self._room.look_again()
        changed = await self._knowledge.read()
        self._driving.begin(each for part in changed for each in part.workspaces)
        if changed:
            reach("agent.obeying")
        if not self._knowledge.begun:
            return
        now = self._clock.now()
        # Before guests are looked at: one that is put aside meanwhile is not what it looks like.
        self._driving.moving = self._steps.moving()
        await sight.look()
        if self._knowledge.must_be_off:
            await clearing.put_off()
        known = self.known
        phases = {uid: phase_of(part, now=now) for uid, part in known.items()}
        kept = [(known[uid].wanted, phase) for uid, phase in phases.items() if phase in _HELD]
        held = [part for part, _ in kept]
        await clearing.clear(held)
        reach("agent.before_connect")
        alive = alive_in(held, sight.domains, self._driving.moving)
        async with self._connecting:
            await self._connect(
                [
                    connected(part, alive) if phase is Phase.KEEP else self._handed_on(part)
                    for part, phase in kept
                ]
            )
        reach("agent.connected")
        if self._knowledge.complete:
            self._images.retain(
                frozenset(
                    digest
                    for part in held
                    for each in part.workspaces
                    for digest in (each.environment.image, *each.data)
                )
            )
        await asyncio.gather(
            *(
                self._driving.drive(known[uid], workspace, phase, now)
                for uid, phase in phases.items()
                if phase in _HELD
                for workspace in known[uid].wanted.workspaces
            )
        )
        await self._settle(phases)
        if self._knowledge.fenced and clearing.is_off():
            self.fenced_epoch = self._knowledge.epoch
        self._report = tuple(
            self._seen(part, phases[uid], now) for uid, part in sorted(self.known.items())
        )

    # Networks

    async def _connect(self, active: list[WantedPart]) -> None:
        reserved = self._knowledge.reserved_mbit_s(now=self._clock.now(), ahead=_AHEAD)
        try:
            if self._knowledge.complete:
                await self._connections.apply(active, reserved)
            else:
                known = [part.wanted for part in self.known.values()]
                strangers = self._clearing.strangers()
                await self._connections.apply_known(active, known, strangers, reserved)
        except (HostFailure, OSError) as error:
            self._sight.stuck = True
            self._sight.problem(HostFailure(str(error)))
        applied = self._connections.applied
        if applied.problem:
            self._sight.problem(HostFailure(applied.problem))
        self._sight.stuck = self._sight.stuck or bool(applied.left)

    def _handed_on(self, part: WantedPart) -> WantedPart:
        uids = (each.uid for each in part.workspaces if each.migration is not None)
        return handed_on(part, {uid for uid in uids if self._storage.is_given(uid)})

    async def _send_on(self) -> None:
        """What was given, at once: until then nothing reaches it. Where that fails, and for all
        that comes with it, a pass follows."""
        self._hint.set()
        async with self._connecting:
            now = self._clock.now()
            known = [(part, phase_of(part, now=now)) for part in self.known.values()]
            running = [part.wanted for part, phase in known if phase is Phase.RUN]
            parts = [(part, self._handed_on(part)) for part in running]
            try:
                await self._connections.send_on([after for part, after in parts if after != part])
            except (HostFailure, OSError) as error:
                log.warning("guest.not_sent_on", problem=str(error))
            else:
                log.info("guest.sent_on")

    # What came of it

    async def _settle(self, phases: Mapping[str, Phase]) -> None:
        """Looks at the guests again, and listens to those that are not ready yet."""
        if self._sight.domains is None:
            return
        await self._sight.look()
        if self._sight.domains is None:
            return
        running = (
            (uid, workspace)
            for uid, phase in phases.items()
            if phase in (Phase.RUN, Phase.KEEP)
            for workspace in self.known[uid].wanted.workspaces
        )
        await self._listening.sweep(running, self._sight.domains)

    def _seen(self, part: KnownPart, phase: Phase, now: datetime) -> SeenPart:
        wanted = part.wanted
        moving = self._steps.moving().intersection(each.uid for each in wanted.workspaces)
        left = self._sight.stuck or self._sight.domains is None or moving
        gone = phase is Phase.OVER and not left
        if self._obeys(part, phase, now):
            self._obeyed[wanted.uid] = wanted.generation
        elif phase is Phase.KEEP:
            # By the same record its guests were to run a moment ago.
            self._obeyed.pop(wanted.uid, None)
        if self._sight.domains is None:
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
                    self._driving.attempts(workspace.uid),
                    now,
                    waits=self._driving.waits.get(workspace.uid, ""),
                    sure=self._sight.domains is not None,
                )
                for workspace in wanted.workspaces
            ),
            gone=gone,
            message=self._message(),
            obeyed_generation=self._obeyed.get(wanted.uid, 0),
            cleared_generation=wanted.generation if self._has_cleared() else 0,
        )

    def _obeys(self, part: KnownPart, phase: Phase, now: datetime) -> bool:
        """Nothing of its newest record is missing here, nor is anything of an earlier one left."""
        if self._sight.domains is None or not self._has_cleared():
            return False
        if not self._knowledge.may_start:
            return False
        return phase is Phase.OVER or all(
            self._looks.has_all(part, workspace, phase, self._sight.domains, now)
            for workspace in part.wanted.workspaces
        )

    def _has_cleared(self) -> bool:
        """Nothing is here that is in no record."""
        blind = self._sight.domains is None or self._sight.stuck
        return not (blind or self._connections.applied.problem) and self._knowledge.complete

    def _message(self) -> str:
        return "; ".join(dict.fromkeys((*self._knowledge.problems, *self._sight.problems)))
