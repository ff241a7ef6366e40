"""Sends guests to other hosts, while they run or as they are put aside; beside the passes, for it
takes as long as there is memory and disk."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import NotFound
from intertie.common.names import DeviceNames
from intertie.nodeagent.domain.failures import Attempts, HostFailure, as_failure
from intertie.nodeagent.domain.migrating import Bearing, Channel, Migration, Role
from intertie.nodeagent.domain.ports import Deliver, Hypervisor, Peers, Storage
from intertie.nodeagent.domain.power import Memory
from intertie.nodeagent.domain.wanted import WantedWorkspace
from intertie.nodeagent.loops.knowledge import Knowledge

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class _Word:
    """To the other host, that it has one now."""

    number: int
    attempts: Attempts = field(default_factory=Attempts)
    heard: bool = False
    """Or that host is not to take it any more."""
    task: asyncio.Task[None] | None = None


class SendingGuests:
    """One guest at a time, as a host's uplink is all guests', and one try for each number of a
    migration. What came of it libvirt and the disk say; what is remembered here is only why it came
    to nothing."""

    def __init__(
        self,
        clock: Clock,
        knowledge: Knowledge,
        hypervisor: Hypervisor,
        storage: Storage,
        peers: Peers,
        given: Callable[[], Awaitable[None]],
        ended: Callable[[], None],
    ) -> None:
        """`given`: what still comes here for who was given is sent on, from then on. `ended` is
        called after each one, whatever came of it."""
        self._clock = clock
        self._knowledge = knowledge
        self._hypervisor = hypervisor
        self._storage = storage
        self._peers = peers
        self._given = given
        self._ended = ended
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._deliveries: dict[str, asyncio.Future[None]] = {}
        """By uid, of those that go as they are put aside, while they may be broken off."""
        self._failed: dict[str, tuple[int, str]] = {}
        """By uid, the number that was tried and what went wrong."""
        self._words: dict[str, _Word] = {}
        """By uid, of those that this host has given up."""

    def moving(self) -> frozenset[str]:
        return frozenset(uid for uid, task in self._tasks.items() if not task.done())

    def failed(self, uid: str, migration: Migration | None) -> str:
        """What went wrong with this one; empty: it goes on, or was not tried yet."""
        number, problem = self._failed.get(uid, (0, ""))
        return problem if migration is not None and migration.number == number else ""

    def send(self, uid: str, migration: Migration, bearing: Bearing) -> bool:
        """Begins to, unless one is being sent. Who waits for its turn is like any other guest, and
        is asked for again by the pass that follows each end."""
        if self.moving():
            return False
        self._tasks[uid] = task = asyncio.create_task(self._send(uid, migration, bearing))
        task.add_done_callback(partial(self._over, uid))
        return True

    def _over(self, uid: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(uid) is task:
            del self._tasks[uid]
        self._ended()

    async def follow(
        self,
        workspace: WantedWorkspace,
        problem: Callable[[HostFailure], None],
        *,
        stops: bool,
    ) -> None:
        """Breaks off what is to be sent no more, by a newer word of the site. One that `stops` is
        here still and must not run: it is stopped, which ends that too. `problem` is told why that
        could not be asked for."""
        if workspace.uid not in self.moving():
            return
        migration, name = workspace.migration, DeviceNames.domain(workspace.uid)
        is_wanted = migration is not None and migration.role is Role.SEND
        if (delivery := self._deliveries.get(workspace.uid)) is not None:
            if not is_wanted:
                delivery.cancel()
            return
        try:
            if stops:
                await self._hypervisor.stop(name)
            elif not is_wanted:
                await self._hypervisor.break_off(name)
        except HostFailure as error:
            problem(error)

    def forget(self, uid: str) -> None:
        """It is wanted no more."""
        if (delivery := self._deliveries.get(uid)) is not None:
            delivery.cancel()
        self._failed.pop(uid, None)
        self._words.pop(uid, None)

    def tell(self, workspace: WantedWorkspace, *, given: bool) -> None:
        """Has the other host told of one that was given up, as long as the site asks for it: again
        and again, for it stands still until then. Also by an agent that has not sent it itself."""
        uid, migration = workspace.uid, workspace.migration
        if migration is None:
            self.forget(uid)  # it is this host's alone, and what there was of it is over
        if not given or migration is None or migration.role is Role.TAKE:
            return
        word = self._word(uid, migration)
        busy = word.heard or (word.task is not None and not word.task.done())
        if not busy and word.attempts.may_try(now=self._clock.monotonic()):
            word.task = asyncio.create_task(self._say(uid, migration, word))

    def _word(self, uid: str, migration: Migration) -> _Word:
        word = self._words.get(uid)
        if word is None or word.number != migration.number:
            word = self._words[uid] = _Word(number=migration.number)
        return word

    async def _send(self, uid: str, migration: Migration, bearing: Bearing) -> None:
        log.info("guest.sending", workspace=uid, host=migration.host, number=migration.number)
        try:
            if migration.aside:
                async with self._peers.delivery(uid, migration, bearing) as deliver:
                    await self._deliver(uid, deliver)
                    self._check_wanted(uid, migration)
                    await self._give(uid, migration)
            else:
                async with self._peers.route(uid, migration, bearing) as route:
                    self._check_wanted(uid, migration)
                    await self._hypervisor.send(DeviceNames.domain(uid), route)
                    await self._give(uid, migration)
        except Exception as error:
            if not isinstance(error, (HostFailure, OSError)):
                log.error("guest.fault", workspace=uid, exc_info=True)
            problem = str(as_failure(error))
            self._failed[uid] = migration.number, problem
            log.warning("guest.not_sent", workspace=uid, problem=problem)

    async def _deliver(self, uid: str, deliver: Deliver) -> None:
        """Its files. Until they are there it may be broken off; afterwards it is given, or not."""

        async def all_of_them() -> None:
            if self._storage.memory(uid) is Memory.SAVED:
                await deliver(Channel.MEMORY_FILE)
            await deliver(Channel.DISK_FILE)

        self._deliveries[uid] = delivery = asyncio.ensure_future(all_of_them())
        try:
            await delivery
        except asyncio.CancelledError:
            if not delivery.cancelled():
                raise
            raise HostFailure("it is not to be sent any more") from None
        finally:
            delivery.cancel()
            del self._deliveries[uid]

    async def _give(self, uid: str, migration: Migration) -> None:
        await self._storage.give(uid)
        log.info("guest.given", workspace=uid, host=migration.host)
        word = self._word(uid, migration)
        await asyncio.gather(self._given(), self._say(uid, migration, word))

    def _check_wanted(self, uid: str, migration: Migration) -> None:
        """By the newest that is known of the site's records. HostFailure."""
        if not any(
            (found.number, found.role) == (migration.number, Role.SEND)
            for part in self._knowledge.parts.values()
            for workspace in part.wanted.workspaces
            if workspace.uid == uid and part.present and (found := workspace.migration) is not None
        ):
            raise HostFailure("it is not to be sent any more")

    async def _say(self, uid: str, migration: Migration, word: _Word) -> None:
        """Where the other host does not hear of it so, it does from the site."""
        try:
            await self._peers.take_over(uid, migration)
        except NotFound:
            log.info("guest.given_before", workspace=uid, host=migration.host)
        except Exception as error:
            failure = as_failure(error)
            word.attempts = word.attempts.failed(failure, now=self._clock.monotonic())
            log.warning("guest.not_told_of", workspace=uid, problem=str(failure))
            return
        word.heard = True
