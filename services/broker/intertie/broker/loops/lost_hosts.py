"""Hosts that stop reporting: has them fenced, and finds another place for what was on them."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import datetime, timedelta
from itertools import islice

import structlog

from intertie.broker.domain.cluster import HOST_LOST, without_host
from intertie.broker.domain.fleet import HostFacts, Policy
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.lost_hosts import (
    HostRecord,
    HostState,
    Vigil,
    Watched,
    are_many,
    let_go,
    next_of,
)
from intertie.broker.domain.malleable import waits_to_do_without, without_failed
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.ports import Fence, Ledger, NotCertain
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.replacing import Over, Replaced, concerned, without
from intertie.common.clock import Clock
from intertie.common.errors import EtcdUnavailable, NotLeading, StaleWrite
from intertie.common.values import replace

log = structlog.get_logger(__name__)

_LONGEST_WAIT = timedelta(seconds=60)
_LOOK_OVER_S = 10.0
LOOKED_AT_ONCE = 500
"""Parts; between them others get their turn."""
_TRIES = 3
"""To write what came of a fence, where another loop has written the host's record meanwhile."""
_SILENT = frozenset({HostState.SILENT, HostState.FENCING})


class LostHosts:
    """Level-triggered, but for what it has watched itself, which is nobody else's to know."""

    def __init__(
        self,
        ledger: Ledger,
        policy: Policy,
        fence: Fence | None,
        clock: Clock,
        *,
        lost_after: timedelta,
    ) -> None:
        self._ledger = ledger
        self._policy = policy
        self._fence = fence
        self._clock = clock
        self._lost_after = lost_after
        self._vigil = Vigil()
        self._term = 0
        self._fencing: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, int] = {}
        """How often in a row a host could not be fenced."""
        self._again_at: dict[str, float] = {}
        self._looked_over: dict[str, HostState] | None = None
        """What hosts were when all parts were last looked over; None: to be done again."""
        self._look_over_at = 0.0

    async def sweep(self, touched: frozenset[str] | None = None) -> None:
        term = await self._ledger.check_leading()
        if term != self._term:
            self._term, self._vigil, self._looked_over = term, Vigil(), None
        view = await self._ledger.view()
        self._vigil = self._vigil.look(view.fleet.members(), at=self._clock.monotonic())
        self._fencing = {host: task for host, task in self._fencing.items() if not task.done()}
        await self._judge(view)
        await self._look_over()

    async def _judge(self, view: LedgerView) -> None:
        now, at = self._clock.now(), self._clock.monotonic()
        watched = [self._watched(view, facts, now=now, at=at) for facts in view.fleet.members()]
        read_at = {name: each.revision for name, each in view.hosts.items()}
        """Of the records that are judged: others write them too, meanwhile."""
        many = are_many(watched)
        for each in watched:
            host = each.facts.host
            if host in self._fencing:
                continue
            after = next_of(
                each,
                lost_after=self._lost_after,
                fences=self._fence is not None,
                many=many,
                now=now,
            )
            if after is not None:
                await self._write(read_at.get(host, 0), after, each.facts)
            elif (
                self._fence is not None
                and each.record.state is HostState.FENCING
                and at >= self._again_at.get(host, at)
            ):
                self._begin(self._fence, each)

    def _watched(self, view: LedgerView, facts: HostFacts, *, now: datetime, at: float) -> Watched:
        found, heard = view.hosts.get(facts.host), self._vigil.heard[facts.host]
        record = found.value if found else HostRecord(name=facts.host, since=now)
        is_back = heard.is_back(at=at)
        waits = record.state is HostState.FENCED and facts.fenced_epoch == record.epoch
        return Watched(
            record=record,
            facts=facts,
            silent_for=heard.silent_for(at=at),
            is_back=is_back,
            has_parts=waits and is_back and _has_parts(view, facts.host),
        )

    async def _write(self, read_at: int, record: HostRecord, facts: HostFacts) -> bool:
        """What rests on its silence is written if it is silent still. Whether it was."""
        silent = () if record.state is HostState.UP else ((facts.host, facts.revision),)
        write = Write(record=record, read_at=read_at)
        try:
            await self._ledger.commit(Change(writes=(write,), silent=silent))
        except StaleWrite as error:
            log.debug("host.lost_race", host=record.name, key=error.key)
            return False
        log.warning("host.state", host=record.name, state=record.state.name, why=record.why)
        return True

    # Fencing

    def _begin(self, fence: Fence, watched: Watched) -> None:
        """Beside the passes: it may take long, and other hosts wait for nothing."""
        host = watched.facts.host
        self._fencing[host] = asyncio.create_task(self._make_certain(fence, watched))

    async def _make_certain(self, fence: Fence, watched: Watched) -> None:
        host, epoch = watched.facts.host, watched.record.epoch
        try:
            why = await fence.fence(watched.facts, watched.silent_for)
        except NotCertain as error:
            self._put_off(host, error)
            done, why = False, f"not certain yet: {error}"
        except Exception as error:
            log.exception("host.fence_failed", host=host)
            self._put_off(host, NotCertain(repr(error)))
            return
        else:
            self._failed.pop(host, None)
            self._again_at.pop(host, None)
            done = True
        try:
            for _ in range(_TRIES):
                current = (await self._ledger.view()).hosts.get(host)
                if current is None or not _is_fencing(current.value, epoch):
                    return
                record = current.value
                after = replace(record, why=why)
                if done:
                    after = record.move(HostState.FENCED, now=self._clock.now(), why=why)
                if after == record or await self._write(current.revision, after, watched.facts):
                    return
        except (EtcdUnavailable, NotLeading) as error:
            log.warning("host.not_written", host=host, problem=str(error))

    def _put_off(self, host: str, error: NotCertain) -> None:
        failed = self._failed[host] = self._failed.get(host, 0) + 1
        wait = error.wait or min(timedelta(seconds=2 ** min(failed - 1, 6)), _LONGEST_WAIT)
        self._again_at[host] = self._clock.monotonic() + wait.total_seconds()

    # What was on them

    async def _look_over(self) -> None:
        """All parts, when a host has become something else, and at times while one is not UP."""
        view, at = await self._ledger.view(), self._clock.monotonic()
        states = {name: each.value.state for name, each in view.hosts.items()}
        up = all(state is HostState.UP for state in states.values())
        if states == self._looked_over and (up or at < self._look_over_at):
            return
        self._looked_over, self._look_over_at = states, at + _LOOK_OVER_S
        fenced = {name for name, state in states.items() if state is HostState.FENCED}
        silent = {
            name: each.value.since
            for name, each in view.hosts.items()
            if each.value.state in _SILENT
        }
        if fenced or silent:
            await self._empty(fenced, silent)
        await self._show(silent)
        await self._let_go()

    async def _let_go(self) -> None:
        """Of hosts that are admitted no more nobody waits for a sign of life."""
        left = {
            name
            for name, each in (await self._ledger.view()).hosts.items()
            if each.value.state is not HostState.UP and name not in self._policy.hosts
        }
        left.difference_update(self._fencing)
        if not left:
            return
        async for found in self._in_turn():
            if found.value.counted:
                left.difference_update(_places(found.value, await self._ledger.view()))
        hosts = (await self._ledger.view()).hosts
        for host in [hosts[name] for name in sorted(left) if name in hosts]:
            record = let_go(host.value, now=self._clock.now())
            write = Write(record=record, read_at=host.revision)
            try:
                await self._ledger.commit(Change(writes=(write,)))
            except StaleWrite as error:
                log.debug("host.lost_race", host=record.name, key=error.key)
            else:
                log.warning("host.let_go", host=record.name)

    async def _in_turn(self) -> AsyncIterator[Versioned[Part]]:
        """All parts, each as it is by then."""
        names = iter(list((await self._ledger.view()).parts))
        while some := list(islice(names, LOOKED_AT_ONCE)):
            view = await self._ledger.view()
            for name in some:
                if (found := view.parts.get(name)) is not None:
                    yield found
            if len(some) == LOOKED_AT_ONCE:
                await self._clock.sleep(0)

    async def _show(self, silent: Mapping[str, datetime]) -> None:
        """Their owners see which hosts do not report."""
        async for found in self._in_turn():
            part = found.value
            if part.state is not PartState.CONFIRMED or not (silent or part.silent):
                continue
            now = tuple((host, silent[host]) for host in part.hosts() if host in silent)
            if now != part.silent:
                write = Write(record=replace(part, silent=now), read_at=found.revision)
                await self._commit(Change(writes=(write,)), part)

    async def _commit(self, change: Change, part: Part) -> bool:
        try:
            await self._ledger.commit(change)
        except StaleWrite as error:
            self._looked_over = None
            log.debug("host.lost_race", part=part.name, key=error.key)
            return False
        return True

    async def _empty(self, fenced: set[str], silent: Mapping[str, datetime]) -> None:
        """Part by part: each finds what those before it have left."""
        nowhere = fenced | set(silent)
        async for found in self._in_turn():
            # What no host was ever told of can run nowhere, so nothing need be made certain.
            told = found.value.generation > 0
            if concerned(found.value, fenced if told else nowhere):
                untold = set() if told else set(silent)
                await self._without(await self._ledger.view(), found, fenced, untold)

    async def _without(
        self,
        view: LedgerView,
        found: Versioned[Part],
        fenced: Collection[str],
        untold: Collection[str],
    ) -> None:
        now, part = self._clock.now(), found.value
        become = without(part, {*fenced, *untold}, view, self._policy, now=now)
        match become:
            case Replaced(part=after):
                left = [host for host in part.hosts() if host not in after.hosts()]
                told = view.told.get(part.uid, {})
                change = Change(
                    writes=(Write(record=after, read_at=found.revision),),
                    admitted_on=view.generation,
                    unwanted=tuple((host, part.uid) for host in left if host in told),
                )
            case Over() if concerned(part, fenced):
                over = self._fewer_or_over(view, found, become, fenced, now=now)
                if over is None:
                    return
                change = over
            case _:
                return
        if await self._commit(change, part):
            hosts = list(change.parts()[0].hosts())
            log.warning("host.part_without", part=part.name, hosts=hosts)

    def _fewer_or_over(
        self,
        view: LedgerView,
        found: Versioned[Part],
        over: Over,
        lost: Collection[str],
        *,
        now: datetime,
    ) -> Change | None:
        """None while it has to wait before it can go on without what was there."""
        part, cluster = found.value, view.clusters.get(found.value.spec.cluster)
        if cluster is not None and cluster.value.part == part.name:
            names = {each.workspace for each in part.placed if each.host in lost}
            fewer = without_failed(cluster, part, names, view, self._policy, now=now)
            if fewer is not None:
                return Change(
                    writes=(
                        Write(record=fewer.part, read_at=found.revision),
                        Write(record=fewer.record, read_at=cluster.revision),
                    )
                )
            if waits_to_do_without(cluster.value, part, names):
                return None
        log.warning("host.part_ends", part=part.name, why=over.why)
        return self._over(view, found, over, now=now)

    def _over(
        self, view: LedgerView, found: Versioned[Part], over: Over, *, now: datetime
    ) -> Change:
        ending = found.value.ending(now=now, reason=HOST_LOST, message=over.why)
        writes = [Write(record=ending, read_at=found.revision)]
        cluster = view.clusters.get(found.value.spec.cluster)
        if cluster and cluster.value.part == ending.name and not cluster.value.over:
            after = without_host(cluster.value, over.why, over.shortfalls, now=now)
            writes.append(Write(record=after, read_at=cluster.revision))
        return Change(writes=tuple(writes))


def _is_fencing(record: HostRecord, epoch: int) -> bool:
    return (record.state, record.epoch) == (HostState.FENCING, epoch)


def _has_parts(view: LedgerView, host: str) -> bool:
    """Of those that count, one has something there, or had, or told it so; or the host says
    something of one still, and so has not taken away what it had: a disk that was left there would
    be taken for that of a workspace that comes back."""
    return any(
        host in _places(each.value, view) or host in view.seen.get(each.value.uid, ())
        for each in view.parts.values()
        if each.value.counted
    )


def _places(part: Part, view: LedgerView) -> set[str]:
    return {*part.hosts(), *part.left_hosts(), *view.told.get(part.uid, ())}
