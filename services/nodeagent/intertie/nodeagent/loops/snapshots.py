"""Makes images of guests' disks and sends them to the site's image store, beside the passes.

What has to be done for a guest itself comes first, always: then a copy that is being made is given
up, and made anew of what is there afterwards. A copy is whole once it is noted; sending it goes on
from there, through every end of this agent.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

import structlog

from intertie.common.clock import Clock
from intertie.common.names import DeviceNames
from intertie.common.tasks import uninterrupted
from intertie.common.terms import Readiness
from intertie.common.values import replace
from intertie.nodeagent.domain.domain_xml import MIB
from intertie.nodeagent.domain.failures import (
    Attempts,
    HostFailure,
    HypervisorSilent,
    as_failure,
)
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.ports import Hypervisor, Staging, Storage
from intertie.nodeagent.domain.reconcile import (
    DomainState,
    KnownPart,
    Note,
    Observed,
    Phase,
)
from intertie.nodeagent.domain.snapshot_note import (
    SeenSnapshot,
    SnapshotNote,
    SnapshotOrder,
    SnapshotState,
)
from intertie.nodeagent.domain.snapshot_ports import Snapshotting
from intertie.nodeagent.domain.snapshots import Way, way
from intertie.nodeagent.domain.wanted import WantedPart, WantedWorkspace
from intertie.nodeagent.loops.knowledge import Knowledge
from intertie.nodeagent.loops.pool_room import PoolRoom
from intertie.nodeagent.loops.thawing import Thawing

log = structlog.get_logger(__name__)

_LOOK_S = 0.5
"""Between two looks at a copy that an emulator makes."""
_CROWDED = "its copy was given up: another guest of its host waits for room; it is made anew"
_TRIES = 3
"""Of a copy that fails and nobody knows why."""


class Snapshots:
    def __init__(
        self,
        clock: Clock,
        knowledge: Knowledge,
        hypervisor: Hypervisor,
        storage: Storage,
        tools: Snapshotting,
        room: PoolRoom,
        files: WorkspaceFiles,
        *,
        ended: Callable[[], None],
    ) -> None:
        """`ended` is called after each copy and each sending, whatever came of it."""
        self._clock = clock
        self._knowledge = knowledge
        self._hypervisor = hypervisor
        self._storage = storage
        self.thawing = Thawing(clock, knowledge, hypervisor)
        self._copies = tools.copies
        self._store = tools.store
        self._room = room
        self._files = files
        self._ended = ended
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._copying: set[str] = set()
        """Those among them that have a guest's disk open."""
        self._progress: dict[str, Staging] = {}
        self._attempts: dict[str, Attempts] = {}
        self._failures: dict[str, int] = {}
        """How many of them were the copy's own."""
        self._one_copy = asyncio.Semaphore(1)
        self._one_upload = asyncio.Semaphore(1)
        """At a time: a host's disk and uplink are all guests'."""

    async def give_way(self, uid: str) -> None:
        """Something is to be done with the guest itself: nobody copies its disk once this
        returns, whoever began it, and what there was of a copy takes no room. HostFailure:
        somebody may, so nothing is to be done with it yet."""
        if uid in self._copying:
            await self._end(uid)
            log.info("snapshot.gave_way", workspace=uid)
        if self._is_half(uid):
            await self._discard(uid)

    def may_have_frozen(self, workspace: WantedWorkspace) -> bool:
        """By what there is of a copy, where no note says it any more."""
        return _has_agent(workspace) and self._copies.is_there(workspace.uid)

    async def drop(self, uid: str) -> None:
        """The workspace is wanted no more; its files are somebody else's to remove."""
        await self._end(uid)
        self._forget(uid)
        self.thawing.forget(uid)

    async def follow(
        self,
        part: KnownPart,
        workspace: WantedWorkspace,
        phase: Phase,
        seen: Observed,
        *,
        at_rest: bool,
        crowded: bool,
    ) -> None:
        """One look. `at_rest`: nothing else is to be done for the guest now. `crowded`: some guest
        of this host waits in a write to its disk. What fails of it is no failure of the guest."""
        self.thawing.look(part.wanted.uid, workspace.uid, seen.domain)
        try:
            await self._follow(part, workspace, phase, seen, at_rest=at_rest, crowded=crowded)
        except (HostFailure, OSError) as error:
            self._waits(workspace.uid, as_failure(error))

    async def _follow(
        self,
        known: KnownPart,
        workspace: WantedWorkspace,
        phase: Phase,
        seen: Observed,
        *,
        at_rest: bool,
        crowded: bool,
    ) -> None:
        part, uid, order = known.wanted, workspace.uid, workspace.snapshot
        note = self._note(part.uid, uid)
        if order is None and note is None and not self._copies.is_there(uid):
            return
        if (order.id if order else None) != (note.id if note else None):
            await self._end(uid)
            self._forget(uid)
            note = SnapshotNote(id=order.id) if order is not None else None
            self._write(part.uid, uid, note)
        over = order is None or note is None or note.outcome is not None
        if over:
            await self._end(uid)
        if self._knowledge.must_be_off:
            # What was here may be elsewhere by now, and its owner be told that none comes.
            await self._end(uid)
        if crowded and self._room.too_full():
            await self._give_room(part.uid, uid, note)
            return
        if uid in self._tasks:
            return
        if not self._attempts.get(uid, Attempts()).may_try(now=self._clock.monotonic()):
            return
        if self._is_half(uid) or (over and self._copies.is_there(uid)):
            # Of an earlier one, of an agent that is no more, or of a try that failed: it takes
            # room, and its job may go on, whatever is done for the guest now.
            await self._discard(uid)
        if order is None or note is None or note.outcome is not None:
            return
        if not self._knowledge.may_start:
            return
        if note.taken_time is not None and self._copies.is_whole(uid):
            self._begin(part, uid, self._send(part, uid, order, note))
            return
        how = way(phase, seen, known.note(uid), workspace.switched)
        if how is Way.NONE or not at_rest:
            return
        if self._copies.is_there(uid):
            # Whole, and not noted: of what moment nobody knows.
            await self._discard(uid)
        self._copying.add(uid)
        self._begin(part, uid, self._copy(part, workspace, order, how, seen))

    def told(self, part_uid: str, workspace: WantedWorkspace) -> SeenSnapshot | None:
        uid, order = workspace.uid, workspace.snapshot
        if order is None:
            return None
        note = self._note(part_uid, uid)
        if note is None or note.id != order.id:
            return SeenSnapshot(id=order.id, state=SnapshotState.WAITING)
        at = self._progress.get(uid, Staging())
        return SeenSnapshot(
            id=order.id,
            state=note.outcome or self._state(uid, note),
            message=note.message or self._attempts.get(uid, Attempts()).problem,
            taken_time=note.taken_time,
            quiesced=note.quiesced,
            done_bytes=note.size_bytes if note.outcome is SnapshotState.READY else at.done_bytes,
            total_bytes=note.size_bytes or at.total_bytes,
            digest=note.digest if note.outcome is SnapshotState.READY else "",
        )

    def _state(self, uid: str, note: SnapshotNote) -> SnapshotState:
        if note.taken_time is not None:
            return SnapshotState.UPLOADING
        return SnapshotState.COPYING if uid in self._copying else SnapshotState.WAITING

    # Copying

    async def _copy(
        self,
        part: WantedPart,
        workspace: WantedWorkspace,
        order: SnapshotOrder,
        how: Way,
        seen: Observed,
    ) -> None:
        uid = workspace.uid
        async with self._one_copy:
            needed = await self._copies.needed_bytes(uid)
            with self._room.writing(
                "a copy of its disk",
                -(-needed // MIB),
                lambda: self._copies.written_bytes(uid) // MIB,
                owed_mib=self._storage.owed_mib(),
                final=True,
            ):
                await self._copies.prepare(uid)
                if how is Way.BESIDE:
                    taken_time, quiesced = await self._beside(part.uid, workspace, seen)
                else:
                    taken_time, quiesced = self._clock.now(), False
                    await self._copies.copy(uid, lambda done: self._at(uid, done, needed))
                digest, size = await self._copies.finish(uid)
        # The clock of a host may be behind that of whoever has signed for it.
        taken_time = max(taken_time, order.asked_time or taken_time)
        note = SnapshotNote(
            id=order.id, taken_time=taken_time, quiesced=quiesced, digest=digest, size_bytes=size
        )
        self._write(part.uid, uid, note)
        self._tried(uid)
        log.info("snapshot.copied", workspace=uid, bytes=size, quiesced=quiesced)

    async def _beside(
        self, part_uid: str, workspace: WantedWorkspace, seen: Observed
    ) -> tuple[datetime, bool]:
        """The moment, and whether its file systems were written out then. However it ends else,
        whoever discards its file ends the job first: to ask for that here is to lose what comes of
        it."""
        uid, name = workspace.uid, DeviceNames.domain(workspace.uid)
        target = str(self._files.copying(uid))
        quiesced = False
        if _has_agent(workspace) and seen.domain is DomainState.RUNNING:
            with self.thawing.freezing(part_uid, uid) as may:
                begun = self._hypervisor.begin_copy(name, target, quiesce=may)
                quiesced = await uninterrupted(begun)
            self.thawing.look(part_uid, uid, DomainState.RUNNING)
        else:
            await uninterrupted(self._hypervisor.begin_copy(name, target, quiesce=False))
        taken_time = self._clock.now()
        while not (job := await self._hypervisor.copy_job(name)).over:
            self._at(uid, job.done_bytes, job.total_bytes)
            await self._clock.sleep(_LOOK_S)
        if job.problem:
            raise HostFailure(f"its disk could not be copied: {job.problem}")
        return taken_time, quiesced

    async def _give_room(self, part_uid: str, uid: str, note: SnapshotNote | None) -> None:
        """To a guest that waits for it: it was promised its disk. A copy can be made anew."""
        if uid not in self._tasks and not self._copies.is_there(uid):
            return
        await self._end(uid)
        if self._is_half(uid):
            if not self._attempts.get(uid, Attempts()).may_try(now=self._clock.monotonic()):
                return
            await self._discard(uid)
        self._copies.discard(uid)
        self._progress.pop(uid, None)
        if note is not None and note.outcome is None:
            self._write(part_uid, uid, SnapshotNote(id=note.id))
            self._waits(uid, HostFailure(_CROWDED, final=True))

    # Sending

    async def _send(
        self, part: WantedPart, uid: str, order: SnapshotOrder, note: SnapshotNote
    ) -> None:
        assert note.taken_time is not None
        async with self._one_upload:
            await self._store.put(
                order,
                part.tenant,
                self._files.copied(uid),
                note,
                lambda done: self._at(uid, done, note.size_bytes),
            )
        self._tried(uid)
        self._write(part.uid, uid, replace(note, outcome=SnapshotState.READY))
        self._copies.discard(uid)
        log.info("snapshot.sent", workspace=uid, image=order.image_id, digest=note.digest)

    # Tasks

    def _begin(self, part: WantedPart, uid: str, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await work
            except HypervisorSilent as error:
                self._waits(uid, error)
            except Exception as error:
                if not isinstance(error, (HostFailure, OSError)):
                    log.error("snapshot.fault", workspace=uid, exc_info=True)
                self._failed(part.uid, uid, as_failure(error))
            finally:
                self._copying.discard(uid)

        def done(task: asyncio.Task[None]) -> None:
            if self._tasks.get(uid) is task:
                del self._tasks[uid]
            self._ended()

        self._tasks[uid] = task = asyncio.create_task(run())
        task.add_done_callback(done)

    async def _end(self, uid: str) -> None:
        task = self._tasks.pop(uid, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _forget(self, uid: str) -> None:
        """What is known of the order so far."""
        self._progress.pop(uid, None)
        self._tried(uid)

    def _tried(self, uid: str) -> None:
        """To an end."""
        self._attempts.pop(uid, None)
        self._failures.pop(uid, None)

    def _is_half(self, uid: str) -> bool:
        return self._copies.is_there(uid) and not self._copies.is_whole(uid)

    async def _discard(self, uid: str) -> None:
        """HostFailure where its job may go on: then its file stays, by which that is known."""
        await self._hypervisor.end_copy(DeviceNames.domain(uid))
        self._copies.discard(uid)
        self._progress.pop(uid, None)

    def _waits(self, uid: str, error: HostFailure) -> None:
        """What is no fault of the copy's, however often it comes."""
        tried = self._attempts.get(uid, Attempts()).failed(error, now=self._clock.monotonic())
        self._attempts[uid] = tried
        log.warning("snapshot.waits", workspace=uid, problem=str(error))

    def _failed(self, part_uid: str, uid: str, error: HostFailure) -> None:
        note = self._note(part_uid, uid)
        copied = note is not None and note.taken_time is not None
        tried = self._attempts.get(uid, Attempts()).failed(error, now=self._clock.monotonic())
        self._attempts[uid] = tried
        self._failures[uid] = failures = self._failures.get(uid, 0) + 1
        log.warning("snapshot.failed", workspace=uid, problem=str(error), tries=failures)
        if note is not None and (error.final or (not copied and failures >= _TRIES)):
            self._write(
                part_uid, uid, replace(note, outcome=SnapshotState.FAILED, message=str(error))
            )
            self._tried(uid)

    def _at(self, uid: str, done: int, total: int) -> None:
        self._progress[uid] = Staging(done_bytes=done, total_bytes=total)

    def _note(self, part_uid: str, uid: str) -> SnapshotNote | None:
        part = self._knowledge.parts.get(part_uid)
        return part.note(uid).snapshot if part is not None else None

    def _write(self, part_uid: str, uid: str, note: SnapshotNote | None) -> None:
        """Of a part that may have been forgotten meanwhile."""
        part = self._knowledge.parts.get(part_uid)
        if part is not None and part.note(uid).snapshot != note:
            before: Note = part.note(uid)
            self._knowledge.remember(part_uid, uid, replace(before, snapshot=note))


def _has_agent(workspace: WantedWorkspace) -> bool:
    return workspace.environment.readiness is Readiness.GUEST_AGENT
