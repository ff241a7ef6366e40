"""Starts the leases that wait, as soon as there is room for them, and tells the others what they
wait for; and gives those that run more workspaces, or fewer."""

from collections.abc import Callable, Sequence

import structlog

from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.deadlines import sooner
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import Images, Ledger, Room
from intertie.broker.domain.queueing import (
    brought,
    given_more,
    outlooks,
    room_made,
    started,
    starting,
    stretches_over,
    told,
    waited_too_long,
    waiting,
)
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.resizing import LOOKED_AT, looked_at
from intertie.common.clock import Clock
from intertie.common.errors import LedgerFull, NoCapacity, SiteUnreachable, StaleWrite

log = structlog.get_logger(__name__)

TELL_S = 5.0
"""What they wait for changes with every admission; so often it is told at most, and so
often those that run may get more."""
RESIZED_AT_MOST = 8
"""Leases that get more in one pass."""
NO_IMAGES_S = 60.0
"""For so long nobody looks again for an image that was not here."""


class Queue:
    def __init__(
        self,
        ledger: Ledger,
        policy: Policy,
        clock: Clock,
        draw_seed: Callable[[], str],
        room: Room,
        images: Images,
    ) -> None:
        self._ledger = ledger
        self._policy = policy
        self._clock = clock
        self._draw_seed = draw_seed
        self._room = room
        self._images = images
        self._told_s = float("-inf")
        self._in_vain_s = float("-inf")
        self._no_images: dict[str, float] = {}
        """Clusters that could have more, and whose image was not here, and since when."""
        self._had_their_turn: set[str] = set()
        """Clusters that had no room for more, while there are others to look at."""

    async def sweep(self, touched: frozenset[str] | None = None) -> None:
        """Costs nothing where nobody waits, whatever was touched."""
        view = await self._ledger.view()
        if view.recallables() or view.in_line():
            await self._note()
        if not view.in_line():
            return
        await self._give_up(view)
        await self._start()
        await self._make_room()
        await self._begin_sooner()
        if self._clock.monotonic() - self._told_s >= TELL_S:
            self._told_s = self._clock.monotonic()
            await self._bring_elsewhere()
            await self._tell()
            await self._give_more()

    async def _note(self) -> None:
        """What time alone has made of them, one after the other, each on the ledger with those
        before it."""
        while True:
            view = await self._ledger.view()
            change = next(stretches_over(view, now=self._clock.now()), None)
            if change is None:
                return
            try:
                await self._ledger.submit(change)
            except StaleWrite as error:
                log.debug("queue.lost_race", key=error.key)
                return
            match change.writes[0].record:
                case ClusterRecord(name=name):
                    log.info("queue.suspended", cluster=name)
                case Part(name=name) if len(change.writes) > 1:
                    log.info("queue.migration_over", part=name)
                case Part(name=name) if change.admitted_on is None:
                    log.info("queue.saved", part=name)
                case Part(name=name):
                    log.warning("queue.counts_on", part=name)

    async def _give_up(self, view: LedgerView) -> None:
        """Those that have waited for too long."""
        now = self._clock.now()
        for each in view.in_line():
            after = waited_too_long(each.value, self._policy, now=now)
            if after is not each.value:
                await self._write(after, each.revision)
                log.info("queue.waited_too_long", cluster=after.name)

    async def _start(self) -> None:
        """One after the other, each on the ledger with those before it. What goes on is on record
        already; of the others none starts while the ledger is short of room."""
        view = await self._ledger.view()
        for name in starting(view, self._policy, now=self._clock.now()):
            view = await self._ledger.view()
            try:
                change = started(view, name, self._policy, self._draw_seed(), now=self._clock.now())
            except NoCapacity as refusal:
                log.info("queue.no_room_any_more", cluster=name, why=str(refusal))
                continue
            if not all(each.read_at for each in change.writes):
                try:
                    self._room.check()
                except LedgerFull as refusal:
                    log.info("queue.short_of_room", cluster=name, why=str(refusal))
                    continue
            await self._ledger.submit(change)
            log.info("queue.started", cluster=name)

    async def _begin_sooner(self) -> None:
        """One a pass of those that have a window to come; that makes the next pass."""
        view = await self._ledger.view()
        if (change := sooner(view, self._policy, now=self._clock.now())) is not None:
            await self._ledger.submit(change)
            log.info("queue.begins_sooner", writes=len(change.writes))

    async def _bring_elsewhere(self) -> None:
        """One that can go on only there."""
        view = await self._ledger.view()
        if (change := brought(view, self._policy, now=self._clock.now())) is not None:
            try:
                await self._ledger.submit(change)
            except StaleWrite as error:
                log.debug("queue.lost_race", key=error.key)
                return
            [write] = change.writes
            assert isinstance(write.record, Part)
            moving = {each.workspace: each.host for each in write.record.moving}
            log.info("queue.brought_elsewhere", part=write.record.name, moving=moving)

    async def _make_room(self) -> None:
        """For the first in line. Where that was in vain, it is tried again after a while."""
        view = await self._ledger.view()
        if not waiting(view) or self._clock.monotonic() - self._in_vain_s < TELL_S:
            return
        if (change := room_made(view, self._policy, now=self._clock.now())) is None:
            self._in_vain_s = self._clock.monotonic()
            return
        names = [each.record.name for each in change.writes if isinstance(each.record, Part)]
        try:
            await self._ledger.submit(change)
        except StaleWrite as error:
            log.debug("queue.lost_race", key=error.key)
            return
        log.info("queue.left_with_fewer", parts=names)

    async def _give_more(self) -> None:
        """To one after the other, each on the ledger with those before it. Whoever runs an image
        that is not here any more gets none, and is not in the way of others."""
        at = self._clock.monotonic()
        self._no_images = {
            name: since for name, since in self._no_images.items() if at - since < NO_IMAGES_S
        }
        but = {*self._no_images, *self._had_their_turn}
        try:
            self._room.check()
            for _ in range(RESIZED_AT_MOST):
                view = await self._ledger.view()
                found = given_more(view, self._policy, but, now=self._clock.now())
                if found is None:
                    self._next_turn(looked_at(but, view, self._policy, now=self._clock.now()))
                    return
                after, change = found
                but.add(after.record.name)
                if await self._has_images(after.part):
                    await self._ledger.submit(change)
                    counts = dict(after.record.counts)
                    log.info("queue.given_more", cluster=after.record.name, counts=counts)
                else:
                    self._no_images[after.record.name] = at
        except LedgerFull as refusal:
            log.info("queue.short_of_room", why=str(refusal))
        except SiteUnreachable as error:
            log.info("queue.no_images", why=str(error))
        except StaleWrite as error:
            log.debug("queue.lost_race", key=error.key)

    def _next_turn(self, in_vain: Sequence[str]) -> None:
        """Those for whom there is no room are not in the way of others for whom there may be."""
        if len(in_vain) < LOOKED_AT:
            self._had_their_turn = set()
        else:
            self._had_their_turn.update(in_vain)

    async def _has_images(self, part: Part) -> bool:
        needed = {image for each in part.spec.workspaces for image in each.images}
        for digest in sorted(needed):
            if await self._images.find(part.path.tenant, digest) is None:
                return False
        return True

    async def _tell(self) -> None:
        view = await self._ledger.view()
        for name, outlook in outlooks(view, self._policy, now=self._clock.now()).items():
            each = view.clusters[name]
            after = told(each.value, outlook)
            if after is not each.value:
                await self._write(after, each.revision)

    async def _write(self, record: ClusterRecord, read_at: int) -> None:
        try:
            await self._ledger.commit(Change(writes=(Write(record=record, read_at=read_at),)))
        except StaleWrite as error:
            log.debug("queue.lost_race", key=error.key)
