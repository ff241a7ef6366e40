"""Tells agents what is wanted, and takes note of what they say."""

import asyncio
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog

from intertie.broker.domain.cluster import (
    WORKSPACE_FAILED,
    ClusterRecord,
    WorkspaceView,
    failed,
    lost,
    settled,
    workspaces_of,
)
from intertie.broker.domain.fleet import Fleet, Policy
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.malleable import waits_to_do_without, without_failed
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.ports import Ledger
from intertie.broker.domain.reconcile import NEVER, End, GivenUp, Note, Step, Tell, step_of, until
from intertie.broker.domain.records import Change, Unchanged, Write
from intertie.common.clock import Clock
from intertie.common.errors import StaleWrite
from intertie.common.points import reach

log = structlog.get_logger(__name__)

PATIENCE = timedelta(seconds=20)
"""A workspace that is FAILED for so long without a break is lost: agents try again by
themselves what may come right, a restart of libvirtd for one."""

ENDED_AT_ONCE = 60
"""Hosts whose records go in one transaction, which has room for a part's networks too."""


@dataclass(frozen=True, slots=True)
class _Quiet:
    """What there was when a part or a cluster needed nothing. Ledgers never change what is in a
    mapping that they have shown, so that it is the same says that it says the same."""

    found: object
    uid: str = ""
    """Of the part."""
    told: object = None
    seen: object = None
    until: datetime = NEVER
    part_name: str = ""
    part: object = None


class Reconcile:
    """Level-triggered: a pass over everything looks at all of it, and passes over what is as it
    was when there was nothing to do for it. Between, passes look at what was touched alone."""

    def __init__(self, ledger: Ledger, policy: Policy, clock: Clock) -> None:
        self._ledger = ledger
        self._policy = policy
        self._clock = clock
        self._failing_since: dict[str, datetime] = {}
        self._quiet_parts: dict[str, _Quiet] = {}
        self._quiet_clusters: dict[str, _Quiet] = {}
        """By name."""
        self._fleet: Fleet | None = None
        self._footing: tuple[object, ...] = ()
        self._part_of: dict[str, str] = {}
        """Names by uid, of the parts that hosts may speak of."""
        self._held_back: set[str] = set()
        """Names of new parts of which hosts were not told in the last pass."""

    async def sweep(self, touched: frozenset[str] | None = None) -> None:
        """Over everything where that is None."""
        view, now = await self._ledger.view(), self._clock.now()
        self._stand_on(view.fleet)
        parts: Iterable[str] = view.parts
        clusters: Iterable[str] = view.clusters
        if touched is None:
            self._forget(view)
        else:
            parts = clusters = self._concerned(view, touched)
        steps = [*self._part_steps(view, parts, now)]
        new = [each for each in steps if _is_new(each[1])]
        known = [each for each in steps if not _is_new(each[1])]
        takes: list[Callable[[], Awaitable[None]]] = [partial(self._take, *each) for each in known]
        takes += self._cluster_steps(view, clusters, now)
        done = await asyncio.gather(*(self._guarded(step) for step in takes))
        late = [found for (found, _), told in zip(known, done, strict=False) if not told]
        await self._tell_of_new(new, late)

    async def _tell_of_new(
        self, new: Sequence[tuple[Versioned[Part], Step]], late: Sequence[Versioned[Part]]
    ) -> None:
        """After all else that hosts are to be told: another part may have given way for one. `late`
        are those of which they could not be told."""
        busy = {host for each in late for host in each.value.hosts()}
        clear = [each for each in new if busy.isdisjoint(each[0].value.hosts())]
        self._held_back = {each[0].value.name for each in new}.difference(
            each[0].value.name for each in clear
        )
        await asyncio.gather(*(self._guarded(partial(self._take, *each)) for each in clear))

    def _stand_on(self, fleet: Fleet) -> None:
        """What hosts are told of a part goes by what other hosts say of themselves."""
        if fleet is self._fleet:
            return
        self._fleet, footing = fleet, _footing(fleet)
        if footing != self._footing:
            self._footing = footing
            self._quiet_parts = {}

    def _forget(self, view: LedgerView) -> None:
        if len(self._part_of) > len(view.parts):
            self._part_of = {uid: at for uid, at in self._part_of.items() if at in view.parts}
            self._quiet_parts = _only(self._quiet_parts, view.parts)
        if len(self._quiet_clusters) > len(view.clusters):
            self._quiet_clusters = _only(self._quiet_clusters, view.clusters)

    def _concerned(self, view: LedgerView, touched: frozenset[str]) -> list[str]:
        """Parts, by name or uid, and the clusters that they are of."""
        names = dict.fromkeys((*touched, *self._held_back))
        for each in touched:
            name = self._part_of.get(each, each)
            part = view.parts.get(name)
            if part is not None:
                self._part_of[part.value.uid] = name
                names.update(dict.fromkeys((name, part.value.spec.cluster)))
        return list(names)

    def _part_steps(
        self, view: LedgerView, names: Iterable[str], now: datetime
    ) -> Iterator[tuple[Versioned[Part], Step]]:
        parts, told_of, seen_of = view.parts, view.told, view.seen
        for name in names:
            found = parts.get(name)
            if found is None:
                continue
            quiet = self._quiet_parts.get(name)
            if (
                quiet is not None
                and quiet.found is found
                and now < quiet.until
                and told_of.get(quiet.uid) is quiet.told
                and seen_of.get(quiet.uid) is quiet.seen
            ):
                continue
            part = found.value
            uid = part.uid
            self._part_of[uid] = name
            if part.state is not PartState.CONFIRMED:
                self._quiet_parts[name] = _Quiet(found)
                continue
            told, seen = told_of.get(uid), seen_of.get(uid)
            step = step_of(part, told or {}, seen or {}, view.fleet, self._policy, now=now)
            if step is not None:
                yield found, step
                continue
            self._quiet_parts[name] = _Quiet(found, uid, told, seen, until(part, now=now))

    async def _take(self, found: Versioned[Part], step: Step) -> None:
        match step:
            case Tell(part=part, wanted=wanted):
                write = Write(record=part, read_at=found.revision)
                reach("broker.before_tell")
                await self._ledger.commit(Change(writes=(write,), wanted=wanted))
                log.info(
                    "reconcile.told",
                    part=part.name,
                    generation=part.generation,
                    hosts=sorted(wanted),
                    gone=part.end_requested_time is not None,
                )
                reach("broker.told")
            case Note(part=part):
                write = Write(record=part, read_at=found.revision)
                await self._ledger.commit(Change(writes=(write,)))
                log.info(
                    "reconcile.noted",
                    part=part.name,
                    moving={each.workspace: each.state.name for each in part.moving},
                    unmoved=dict(part.unmoved),
                )
            case GivenUp(part=part, hosts=hosts):
                await self._take_away(found, part, hosts)
                log.info("reconcile.given_up", part=part.name, hosts=list(hosts))
            case End(part=part, hosts=hosts):
                reach("broker.before_part_ended")
                await self._take_away(found, part, hosts)
                log.info("reconcile.ended", part=part.name, reason=part.end_reason)
                reach("broker.part_ended")

    async def _take_away(self, found: Versioned[Part], after: Part, hosts: tuple[str, ...]) -> None:
        """Takes the records away, and with the last of them writes what becomes of the part:
        whoever finds it broken off goes on."""
        unwanted = [(host, after.uid) for host in hosts]
        revision = found.revision
        while len(unwanted) > ENDED_AT_ONCE:
            batch, unwanted = unwanted[:ENDED_AT_ONCE], unwanted[ENDED_AT_ONCE:]
            same = Write(record=found.value, read_at=revision)
            revision = await self._ledger.commit(Change(writes=(same,), unwanted=tuple(batch)))
        write = Write(record=after, read_at=revision)
        await self._ledger.commit(Change(writes=(write,), unwanted=tuple(unwanted)))

    def _cluster_steps(
        self, view: LedgerView, names: Iterable[str], now: datetime
    ) -> Iterator[Callable[[], Awaitable[None]]]:
        clusters, parts, seen_of = view.clusters, view.parts, view.seen
        for name in names:
            cluster = clusters.get(name)
            if cluster is None:
                continue
            quiet = self._quiet_clusters.get(name)
            if (
                quiet is not None
                and quiet.found is cluster
                and parts.get(quiet.part_name) is quiet.part
                and seen_of.get(quiet.uid) is quiet.seen
            ):
                continue
            if cluster.value.over:
                self._quiet_clusters[name] = _Quiet(cluster)
                continue
            part = parts.get(cluster.value.part)
            uid = part.value.uid if part else ""
            seen = seen_of.get(uid)
            workspaces = workspaces_of(part.value, seen or {}) if part else ()
            change = self._judged(cluster, part, workspaces, view, now)
            if change is not None:
                yield partial(self._note, change)
            elif not failed(workspaces):
                self._quiet_clusters[name] = _Quiet(
                    cluster, uid, seen=seen, part_name=cluster.value.part, part=part
                )

    def _judged(
        self,
        cluster: Versioned[ClusterRecord],
        part: Versioned[Part] | None,
        workspaces: tuple[WorkspaceView, ...],
        view: LedgerView,
        now: datetime,
    ) -> Change | None:
        record = cluster.value
        if part is not None and self._lost(record.uid, bool(failed(workspaces)), now):
            if part.value.state is not PartState.CONFIRMED or part.value.end_requested_time:
                return None
            names = {each.label for each in failed(workspaces)}
            fewer = without_failed(cluster, part.value, names, view, self._policy, now=now)
            if fewer is not None:
                return Change(
                    writes=(
                        Write(record=fewer.record, read_at=cluster.revision),
                        Write(record=fewer.part, read_at=part.revision),
                    )
                )
            if waits_to_do_without(record, part.value, names):
                return None
            after = lost(record, workspaces, now=now)
            ending = part.value.ending(now=now, reason=WORKSPACE_FAILED)
            return Change(
                writes=(
                    Write(record=after, read_at=cluster.revision),
                    Write(record=ending, read_at=part.revision),
                )
            )
        after = settled(record, part.value if part else None, workspaces, now=now)
        if after == record:
            return None
        return Change(
            writes=(Write(record=after, read_at=cluster.revision),),
            unchanged=(
                Unchanged(kind=Part, name=record.part, read_at=part.revision if part else 0),
            ),
        )

    async def _note(self, change: Change) -> None:
        await self._ledger.commit(change)
        record = change.writes[0].record
        assert isinstance(record, ClusterRecord)
        log.info("reconcile.cluster", cluster=record.name, state=record.state.name)

    async def _guarded(self, step: Callable[[], Awaitable[None]]) -> bool:
        """Whether it was taken. One part that another has just written does not keep the others
        waiting. A step is made when it is its turn: whoever stops before leaves nothing behind that
        was not awaited."""
        try:
            await step()
        except StaleWrite as error:
            log.debug("reconcile.lost_race", key=error.key)
            return False
        return True

    def _lost(self, uid: str, fails: bool, now: datetime) -> bool:
        if not fails:
            self._failing_since.pop(uid, None)
            return False
        return now - self._failing_since.setdefault(uid, now) >= PATIENCE


def _is_new(step: Step) -> bool:
    """Hosts are told of the part for the first time."""
    return isinstance(step, Tell) and step.part.generation == 1


def _only(quiet: dict[str, _Quiet], there: Container[str]) -> dict[str, _Quiet]:
    return {name: each for name, each in quiet.items() if name in there}


def _footing(fleet: Fleet) -> tuple[object, ...]:
    """All that hosts say of themselves but that they are alive, and what is known of those that
    do not."""
    facts = (each.standing() for each in fleet.facts.values())
    return (*facts, fleet.fenced)
