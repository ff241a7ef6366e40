"""Tells the site what this host has and what was found on it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from intertie.common.clock import Clock
from intertie.common.points import reach
from intertie.common.tasks import first_of
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.ports import Records
from intertie.nodeagent.domain.report import HostFacts, SeenPart, with_used
from intertie.nodeagent.domain.used import Tally
from intertie.nodeagent.loops.reconcile import Reconciler

log = structlog.get_logger(__name__)

FACTS_S = 5.0
_ALL_S = 30.0
"""How often everything is written again: whatever became of the records, they are right by then."""
_AGAIN_S = 10.0
"""After a write whose answer was lost, the one that follows it, or the deletion, is done again so
much later: a first write that was lost may come after the deletion. More than a pass takes."""


class Reporter:
    """Writes seen records when they change, and facts as a sign of life."""

    def __init__(
        self,
        reconciler: Reconciler,
        records: Records,
        clock: Clock,
        facts: Callable[[], Awaitable[HostFacts]],
        used: Callable[[str], Mapping[str, Tally]] = lambda part_uid: {},
        urgent: asyncio.Event | None = None,
    ) -> None:
        """`used`: what workspaces of a part have, by their uids. It alone is no reason to write.
        `urgent`, when it is set: facts are to be told now, not only with the next sign of life."""
        self._reconciler = reconciler
        self._records = records
        self._clock = clock
        self._facts = facts
        self._used = used
        self._urgent = urgent
        self._written: dict[str, SeenPart] = {}
        self._lost: set[str] = set()
        """Parts of which nobody knows whether the last write was done."""
        self._again_at: dict[str, float] = {}
        self._all_at = clock.monotonic()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_facts())
            while True:
                await self._reconciler.swept.wait()
                self._reconciler.swept.clear()
                try:
                    await self.tell()
                except (HostFailure, OSError) as error:
                    log.warning("report.failed", problem=str(error))

    async def tell(self) -> None:
        """Brings the records up to the reconciler's last report."""
        report = self._reconciler.report
        if report is None:
            return
        if self._clock.monotonic() >= self._all_at:
            kept = {part.uid for part in report}
            for uid in await self._records.seen_uids() - kept:
                await self._records.delete_seen(uid)
            self._written = {}
            self._all_at = self._clock.monotonic() + _ALL_S
        for uid in [uid for uid in self._again_at if self._is_due_again(uid)]:
            if uid not in self._reconciler.known:
                await self._records.delete_seen(uid)
                self._done(uid)
        for part in report:
            known = self._reconciler.known.get(part.uid)
            if known is None:
                # A pass that ended while its record was being deleted still reported it.
                continue
            if not known.present and part.gone:
                await self._records.delete_seen(part.uid)
                self._written.pop(part.uid, None)
                self._reconciler.forget(part.uid)
                self._done(part.uid)
                log.info("part.forgotten", part=part.name)
            elif self._written.get(part.uid) != part or self._is_due_again(part.uid):
                await self._write(part)

    def _is_due_again(self, uid: str) -> bool:
        return uid in self._again_at and self._clock.monotonic() >= self._again_at[uid]

    async def _write(self, part: SeenPart) -> None:
        reach("agent.before_seen")
        told = with_used(part, self._used(part.uid))
        try:
            await self._records.write_seen(told, now=self._clock.now())
        except (HostFailure, OSError):
            self._lost.add(part.uid)
            raise
        reach("agent.seen")
        self._written[part.uid] = part
        self._done(part.uid)

    def _done(self, uid: str) -> None:
        """What its record needed was written; after a write that was lost, it will be again."""
        if uid in self._lost:
            self._lost.discard(uid)
            self._again_at[uid] = self._clock.monotonic() + _AGAIN_S
        elif self._is_due_again(uid):
            del self._again_at[uid]

    async def _tell_facts(self) -> None:
        while True:
            if self._urgent is not None:
                self._urgent.clear()
            try:
                await self._reconciler.tell(await self._facts())
            except (HostFailure, OSError) as error:
                log.warning("facts.failed", problem=str(error))
            if self._urgent is None:
                await self._clock.sleep(FACTS_S)
            else:
                await first_of(self._clock.sleep(FACTS_S), self._urgent.wait())
