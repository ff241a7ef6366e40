"""Gives a cluster over several sites other terms: at all of them, or at none."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from intertie.common.amend_rules import LAST_MINUTES, amended, check_may_change, window_of
from intertie.common.clock import Clock
from intertie.common.errors import (
    AmendPending,
    ClusterOver,
    DomainError,
    EtagStale,
    LeaseEnding,
    NotFound,
    RequestIdReuse,
    StaleWrite,
)
from intertie.common.intervals import Window
from intertie.common.names import uid_of
from intertie.common.points import reach
from intertie.common.spec import ClusterSpec
from intertie.common.values import replace
from intertie.metasched.domain.amending import (
    Growth,
    Target,
    beside_standing,
    check_open,
    growth_of,
    target_of,
    to_plan,
)
from intertie.metasched.domain.cluster import PENDING, Amend, ClusterRecord, ClusterView
from intertie.metasched.domain.commit import Decision, Outcome, TxRecord, commit_of, tx_name
from intertie.metasched.domain.lost_sites import without_sites
from intertie.metasched.domain.parts import digest_of, said
from intertie.metasched.domain.ports import Clusters, Register, RequestRecord, Room, Stored
from intertie.metasched.usecases.brief import Brief
from intertie.metasched.usecases.coallocate import Coallocate, Refused
from intertie.metasched.usecases.create_cluster import PLANS, CommitTerms
from intertie.metasched.usecases.get_cluster import GetCluster
from intertie.metasched.usecases.long_way import LongWay, in_force
from intertie.metasched.usecases.planning import Planning
from intertie.metasched.usecases.refused_growth import after_refusal
from intertie.metasched.usecases.telling import Callers, Requests, Telling, Underway

log = structlog.get_logger(__name__)

_WAIT_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOrder:
    name: str
    spec: ClusterSpec
    """As it was sent; what `paths` do not name is passed over."""
    paths: tuple[str, ...]
    etag: str
    caller: str
    request_id: str

    @property
    def request_key(self) -> str:
        return f"{uid_of(self.caller)}/{self.request_id}"

    @property
    def digest(self) -> str:
        return digest_of(
            {"update": self.name, "spec": said(self.spec), "paths": self.paths, "etag": self.etag}
        )


class UpdateCluster:
    """Where a site takes more of anything, all are asked, and the old terms stand until COMMIT
    puts the new ones on record, in one transaction. Else nobody is asked.

    Wherever this stops, the loop that recovers goes on: it aborts what is not decided, and the
    old terms stand as they did.
    """

    def __init__(
        self,
        *,
        clusters: Clusters,
        register: Register,
        planning: Planning,
        coallocate: Coallocate,
        get_cluster: GetCluster,
        underway: Underway,
        clock: Clock,
        terms: CommitTerms,
        draw: Callable[[], str],
        room: Room,
    ) -> None:
        self._clusters = clusters
        self._register = register
        self._planning = planning
        self._long_way = LongWay(clusters, register, coallocate, clock)
        self._get_cluster = get_cluster
        self._underway = underway
        self._clock = clock
        self._terms = terms
        self._draw = draw
        self._room = room
        self._tell = Telling(coallocate, underway)
        self._requests = Requests(self._tell)

    async def plan_only(self, order: UpdateOrder) -> ClusterView:
        """What the cluster would be. Takes and writes nothing."""
        stored = await self._standing(order)
        record = stored.record
        spec = self._spec(order, record)
        growth = growth_of(record, spec)
        grown = await self._planning(self._brief(record, spec, growth)) if growth.possible else None
        target = target_of(record, spec, growth, grown, "t", now=self._clock.now())
        self._check_time(record, target)
        after = record if spec == record.spec else record.amended(self._amend(order, target, "t"))
        return await self._get_cluster.as_if(after, record)

    async def __call__(self, order: UpdateOrder) -> ClusterView:
        """The cluster once its new terms are on record; at a retry, as it is now.

        Goes on when the caller goes away: a retry that comes meanwhile gets the same outcome. But
        it is planned only as long as somebody waits.
        """
        await self._clusters.check_leading()
        key = order.request_key, order.digest
        return await self._requests.once(key, lambda callers: self._update(order, callers))

    def begun(self) -> tuple[asyncio.Task[Any], ...]:
        """What goes on, whether or not its caller still waits."""
        return self._requests.begun()

    async def drain(self) -> None:
        """Until all that was begun is decided, and the sites that answer were told."""
        await self._requests.drain()

    async def _update(self, order: UpdateOrder, callers: Callers) -> ClusterView:
        while True:
            earlier = await self._earlier(order)
            if earlier is not None:
                return earlier
            self._underway.add(order.name)
            try:
                return await self._undertake(order, await self._standing(order), callers)
            except StaleWrite:
                await self._clusters.check_leading()
            finally:
                self._underway.remove(order.name)

    async def _earlier(self, order: UpdateOrder) -> ClusterView | None:
        """What the request id stands for already. While that is under way, waits; one that was
        aborted is a new attempt."""
        while (request := await self._clusters.request(order.request_key)) is not None:
            if request.digest != order.digest:
                raise RequestIdReuse(order.request_id)
            stored = await self._clusters.get(request.cluster)
            if stored is None or stored.record.uid != request.cluster_uid:
                raise NotFound(request.cluster)
            decision = await self._register.decision(request.tx) if request.tx else None
            if not request.tx or (decision and decision.outcome is Outcome.COMMIT):
                return await self._get_cluster.view(stored.record)
            if decision is None:
                await self._clock.sleep(_WAIT_S)
            else:
                await self._long_way.clear(order.name, request.tx)
        return None

    async def _standing(self, order: UpdateOrder) -> Stored:
        """What is to be changed, if it may be, and is still what the caller has seen."""
        while True:
            stored = await self._clusters.get(order.name)
            if stored is None:
                raise NotFound(order.name)
            record = stored.record
            check_may_change(record.spec)
            amend = record.amend
            if amend is None:
                break
            decision = await self._register.decision(amend.tx)
            if decision is None or decision.outcome is not Outcome.ABORT:
                again = await self._clusters.get(order.name)
                if again is None or again.read_at != stored.read_at:
                    continue
                raise AmendPending(order.name)
            await self._long_way.clear(order.name, amend.tx)
        if record.state in PENDING and record.end_requested_time is None:
            raise AmendPending(order.name)
        check_open(record, now=self._clock.now())
        if order.etag and order.etag != (await self._get_cluster.view(record)).etag:
            raise EtagStale(order.name)
        return stored

    def _spec(self, order: UpdateOrder, record: ClusterRecord) -> ClusterSpec:
        return amended(record.spec, order.spec, order.paths, record.window, now=self._clock.now())

    async def _undertake(self, order: UpdateOrder, stored: Stored, callers: Callers) -> ClusterView:
        record = stored.record
        spec = self._spec(order, record)
        if spec == record.spec:
            await self._clusters.note(order.request_key, self._request(order, record, ""), stored)
            return await self._get_cluster.view(record)
        growth = growth_of(record, spec)
        brief = self._brief(record, spec, growth)
        for number in range(1, PLANS + 1):
            grown = None
            if growth.possible:
                grown = await callers.while_there(self._planning(brief))
            tx_id = tx_name(self._draw())
            target = target_of(record, spec, growth, grown, tx_id, now=self._clock.now())
            reach("metasched.before_amend")
            if not target.takes_more:
                return await self._at_once(order, stored, target, tx_id)
            self._check_time(record, target)
            self._room.check()
            try:
                return await self._over_all(order, stored, target, tx_id)
            except Refused as error:
                log.info("update.refused", cluster=order.name, problem=str(error))
                last = number == PLANS or not growth.possible
                brief = after_refusal(brief, grown, error, last=last)
                brief = replace(brief, since=self._clock.now())
            stored = await self._unchanged(order, record)
        raise AssertionError("unreachable")

    def _brief(self, record: ClusterRecord, spec: ClusterSpec, growth: Growth) -> Brief:
        window, now = window_of(spec.lease, record.window), self._clock.now()
        ahead = Window(max(window.start, now), window.end)
        return Brief(
            tenant=record.path.tenant,
            spec=without_sites(to_plan(spec, growth, record.plan), frozenset(record.left)),
            windows=(ahead,),
            without={},
            image_gone={},
            beside=lambda problem: beside_standing(problem, record, growth, now=self._clock.now()),
            since=now,
            sends_nothing=frozenset(record.left),
        )

    def _check_time(self, record: ClusterRecord, target: Target) -> None:
        if target.takes_more and record.window.end - self._clock.now() < LAST_MINUTES:
            end = record.window.end.isoformat(timespec="seconds")
            raise LeaseEnding(record.name, end)

    async def _unchanged(self, order: UpdateOrder, record: ClusterRecord) -> Stored:
        """The record for the next attempt; what it was drawn up on must still stand."""
        stored = await self._clusters.get(order.name)
        if stored is None or stored.record.uid != record.uid:
            raise NotFound(order.name)
        check_open(stored.record, now=self._clock.now())
        if stored.record.terms != record.terms or stored.record.amend is not None:
            raise AmendPending(order.name)
        return stored

    async def _at_once(
        self, order: UpdateOrder, stored: Stored, target: Target, tx_id: str
    ) -> ClusterView:
        """Nobody takes more of anything, so nobody is asked."""
        tx = replace(self._tx(stored.record, target, tx_id), specs=target.specs)
        decision = commit_of(replace(tx, parts={}), {}, now=self._clock.now())
        after = stored.record.amended(self._amend(order, target, tx_id))
        await self._register.begin_amend(
            tx,
            after,
            read_at=stored.read_at,
            key=order.request_key,
            request=self._request(order, after, tx_id),
            decision=decision,
        )
        in_force()
        return await self._decided(tx, decision, after)

    async def _over_all(
        self, order: UpdateOrder, stored: Stored, target: Target, tx_id: str
    ) -> ClusterView:
        """Begun before any site is asked: who is refused by the record has taken nothing."""
        tx = self._tx(stored.record, target, tx_id)
        under = replace(stored.record, amend=self._amend(order, target, tx_id))
        await self._register.begin_amend(
            tx,
            under,
            read_at=stored.read_at,
            key=order.request_key,
            request=self._request(order, under, tx_id),
        )
        try:
            after, decision = await self._long_way(tx, target.specs, ClusterRecord.amended)
        except (Refused, DomainError):
            await self._check_still_open(order.name)
            raise
        return await self._decided(tx, decision, after)

    async def _decided(self, tx: TxRecord, decision: Decision, after: ClusterRecord) -> ClusterView:
        log.info("update.amended", cluster=tx.cluster, tx=tx.tx, terms=after.terms)
        self._tell(tx, decision)
        return await self._get_cluster.view(after)

    async def _check_still_open(self, name: str) -> None:
        """What the caller is told where an end came in between."""
        stored = await self._clusters.get(name)
        if stored is None or stored.record.over or stored.record.end_requested_time is not None:
            raise ClusterOver(name)

    def _tx(self, record: ClusterRecord, target: Target, tx_id: str) -> TxRecord:
        return target.transaction(
            record,
            tx_id,
            coordinator=self._terms.coordinator,
            within=self._terms.decide_within,
            now=self._clock.now(),
        )

    def _amend(self, order: UpdateOrder, target: Target, tx_id: str) -> Amend:
        return target.amend(tx_id, request_key=order.request_key, now=self._clock.now())

    def _request(self, order: UpdateOrder, record: ClusterRecord, tx_id: str) -> RequestRecord:
        return RequestRecord(
            digest=order.digest,
            cluster=record.name,
            cluster_uid=record.uid,
            create_time=self._clock.now(),
            tx=tx_id,
        )
