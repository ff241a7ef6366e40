"""Has guests' file systems thawed that were frozen for a copy, whatever else becomes of it.

A guest that is slow freezes its file systems when nobody waits for that any more, and thaws them by
nobody's word but its host's. So that one was tried to be frozen is written down before, and it is
asked to thaw until it says that it has.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from intertie.common.clock import Clock
from intertie.common.names import DeviceNames
from intertie.common.values import replace
from intertie.nodeagent.domain.failures import Attempts, HostFailure
from intertie.nodeagent.domain.ports import Hypervisor
from intertie.nodeagent.domain.reconcile import DomainState
from intertie.nodeagent.loops.knowledge import Knowledge

log = structlog.get_logger(__name__)

_WAITED_FOR = 6
"""Tries, about a minute: a guest without an agent by now may be sent away all the same."""


class Thawing:
    def __init__(self, clock: Clock, knowledge: Knowledge, hypervisor: Hypervisor) -> None:
        self._clock = clock
        self._knowledge = knowledge
        self._hypervisor = hypervisor
        self._freezing: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._attempts: dict[str, Attempts] = {}

    @contextmanager
    def freezing(self, part_uid: str, uid: str) -> Iterator[bool]:
        """Whether it may be frozen: it is not where that cannot be written down. Nobody thaws it
        meanwhile."""
        self._attempts.pop(uid, None)
        self._freezing.add(uid)
        try:
            self._note(part_uid, uid, frozen=True)
            yield self._knowledge.may_start
        finally:
            self._freezing.discard(uid)

    def look(self, part_uid: str, uid: str, domain: DomainState | None) -> None:
        """Begins to have it thawed, beside the passes, where it may be frozen. One that stands
        still cannot be asked."""
        if domain is not DomainState.RUNNING or not self._is_frozen(part_uid, uid):
            return
        due = self._attempts.get(uid, Attempts()).may_try(now=self._clock.monotonic())
        if due and uid not in self._tasks and uid not in self._freezing:
            self._tasks[uid] = task = asyncio.create_task(self._thaw(part_uid, uid))
            task.add_done_callback(lambda _task: self._tasks.pop(uid, None))

    def awaited(self, part_uid: str, uid: str) -> bool:
        """It stands still for its users until it is thawed, so better before it is sent. Where it
        goes it is asked too, but by no agent of an earlier release."""
        tried = self._attempts.get(uid, Attempts()).count
        return self._is_frozen(part_uid, uid) and tried < _WAITED_FOR

    def forget(self, uid: str) -> None:
        self._attempts.pop(uid, None)

    async def _thaw(self, part_uid: str, uid: str) -> None:
        try:
            if not await self._hypervisor.thaw(DeviceNames.domain(uid)):
                raise HostFailure("its file systems are frozen still")
        except HostFailure as error:
            tried = self._attempts.get(uid, Attempts())
            self._attempts[uid] = tried.failed(error, now=self._clock.monotonic())
            log.warning("guest.not_thawed", workspace=uid, problem=str(error))
        else:
            self._attempts.pop(uid, None)
            self._note(part_uid, uid, frozen=False)

    def _is_frozen(self, part_uid: str, uid: str) -> bool:
        part = self._knowledge.parts.get(part_uid)
        return part is not None and part.note(uid).frozen

    def _note(self, part_uid: str, uid: str, *, frozen: bool) -> None:
        """Of a part that may have been forgotten meanwhile."""
        part = self._knowledge.parts.get(part_uid)
        if part is not None:
            self._knowledge.remember(part_uid, uid, replace(part.note(uid), frozen=frozen))
