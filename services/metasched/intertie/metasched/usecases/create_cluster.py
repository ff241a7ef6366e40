"""Plans a cluster over the sites and has them commit to it, whole or not at all."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import (
    Aborted,
    DomainError,
    FieldInvalid,
    HoldExpired,
    ImageNotReady,
    LedgerFull,
    NameTaken,
    NoCapacity,
    NotFound,
    PartOver,
    PlanStale,
    RequestIdReuse,
    SiteUnreachable,
    StaleWrite,
)
from intertie.common.names import PartName
from intertie.common.part_rules import for_promise_alone
from intertie.common.spec import ClusterSpec, Kind, normalise, validate
from intertie.common.values import replace
from intertie.metasched.domain.cluster import (
    PENDING,
    ClusterRecord,
    ClusterState,
    ClusterView,
    Waits,
)
from intertie.metasched.domain.commit import tx_name, tx_of
from intertie.metasched.domain.parts import agreement_digest, part_specs
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.ports import (
    Clusters,
    Register,
    RequestRecord,
    Room,
    Stored,
    ToldPlans,
)
from intertie.metasched.domain.price_agreed import sites_above_budget
from intertie.metasched.domain.queue_policy import QueuePolicy
from intertie.metasched.domain.told_plan import ToldPlan, as_accepted, check_price
from intertie.metasched.domain.waiting import nowhere, queued, queued_again, recallable_of
from intertie.metasched.usecases.brief import Brief
from intertie.metasched.usecases.coallocate import Coallocate, Overtaken, Refused
from intertie.metasched.usecases.enqueue_cluster import EnqueueCluster
from intertie.metasched.usecases.explaining import Explaining
from intertie.metasched.usecases.fits_aside import FitsAside
from intertie.metasched.usecases.get_cluster import GetCluster
from intertie.metasched.usecases.order import Order
from intertie.metasched.usecases.plan_cluster import accepted
from intertie.metasched.usecases.planning import Planning
from intertie.metasched.usecases.room_to_go_on import RoomToGoOn
from intertie.metasched.usecases.telling import Callers, NobodyWaits, Requests, Telling, Underway

log = structlog.get_logger(__name__)

PLANS = 4
"""The first plan and three more after refusals."""

_WAIT_S = 0.2
_LOST = "its end was asked for, or another replica took over"
_PLAN_AGAIN = (
    NoCapacity,
    ImageNotReady,
    SiteUnreachable,
    HoldExpired,
    NotFound,
    PartOver,
    LedgerFull,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitTerms:
    coordinator: str
    """Our own SPIFFE name."""
    decide_within: timedelta


class CreateCluster:
    def __init__(
        self,
        *,
        clusters: Clusters,
        register: Register,
        planning: Planning,
        explaining: Explaining,
        fits: FitsAside,
        enqueue: EnqueueCluster,
        coallocate: Coallocate,
        get_cluster: GetCluster,
        underway: Underway,
        clock: Clock,
        policy: QueuePolicy,
        terms: CommitTerms,
        plans: ToldPlans,
        draw: Callable[[], str],
        room: Room,
    ) -> None:
        """`draw` gives 32 hex digits that nobody else has."""
        self._clusters = clusters
        self._register = register
        self._planning = planning
        self._room_to_go_on = RoomToGoOn(planning)
        self._explaining = explaining
        self._fits = fits
        self._enqueue = enqueue
        self._coallocate = coallocate
        self._get_cluster = get_cluster
        self._underway = underway
        self._clock = clock
        self._policy = policy
        self._terms = terms
        self._plans = plans
        self._draw = draw
        self._room = room
        self._tell = Telling(coallocate, underway)
        self._requests = Requests(self._tell)

    async def plan_only(self, order: Order) -> ClusterView:
        """What would be done now, or why nothing; of a plan that is accepted, its sites are not
        asked. Takes and writes nothing."""
        spec, now = self._normal(order.spec), self._clock.now()
        chosen = await accepted(self._plans, order, now=now)
        if chosen is not None:
            plan = as_accepted(chosen, spec.lease, now=now)
            return await self._get_cluster.view(self._record(order, spec, plan, uid=self._uid()))
        if spec.lease.kind is Kind.BEST_EFFORT:
            return await self._enqueue.plan_only(self._in_line(order, spec))
        brief = self._planning.brief(order.name.tenant, spec, now=now)
        try:
            plan = await self._promised(order, brief, await self._planning.in_time(brief))
        except NoCapacity as refusal:
            raise await self._explaining(brief, refusal, now=now) from None
        return await self._get_cluster.view(self._record(order, spec, plan, uid=self._uid()))

    async def __call__(self, order: Order) -> ClusterView:
        """The cluster once it is committed; at a retry, the first call's as it is now, though a
        first call would be refused by now: its start may have passed.

        Goes on when the caller goes away: a retry that comes meanwhile gets the same outcome. One
        that is refused must not leave another at work, of whose cluster nobody would hear. But
        while nothing of it is held, it is planned only as long as somebody waits.
        """
        await self._clusters.check_leading()
        key = order.request_key, order.digest
        return await self._requests.once(key, lambda callers: self._create(order, callers))

    def begun(self) -> tuple[asyncio.Task[Any], ...]:
        """What goes on, whether or not its caller still waits."""
        return self._requests.begun()

    async def drain(self) -> None:
        """Until all that was begun is decided, and the sites that answer were told."""
        await self._requests.drain()

    def _normal(self, spec: ClusterSpec) -> ClusterSpec:
        now = self._clock.now()
        validate(spec, now=now)
        return normalise(spec, now=now)

    async def _create(self, order: Order, callers: Callers) -> ClusterView:
        name = str(order.name)
        while True:
            request, stored = await asyncio.gather(
                self._clusters.request(order.request_key), self._clusters.get(name)
            )
            if request is not None:
                earlier = await self._earlier(order)
                if earlier is not None:
                    return earlier
                continue
            self._room.check()
            spec = self._normal(order.spec)
            if stored is not None and not stored.record.over:
                if await self._clusters.request(order.request_key) is not None:
                    continue  # both were written between the two reads: it is this very request's
                raise NameTaken(name)
            chosen = await accepted(self._plans, order, now=self._clock.now())
            if spec.lease.kind is Kind.BEST_EFFORT:
                asked = self._request(order, record := self._in_line(order, spec))
                try:
                    return await self._enqueue(record, asked, stored, callers)
                except StaleWrite:
                    await self._clusters.check_leading()
                    continue
            self._underway.add(name)
            try:
                return await self._undertake(order, spec, stored, chosen, callers)
            except Overtaken:
                continue
            finally:
                self._underway.remove(name)

    async def _earlier(self, order: Order) -> ClusterView | None:
        """What the request id stands for already. While that is being made, waits."""
        while (request := await self._clusters.request(order.request_key)) is not None:
            if request.digest != order.digest:
                raise RequestIdReuse(order.request_id)
            stored = await self._clusters.get(request.cluster)
            if stored is None or stored.record.uid != request.cluster_uid:
                if await self._clusters.request(order.request_key) == request:
                    raise NotFound(request.cluster)
                continue
            if stored.record.state not in PENDING:
                return await self._get_cluster.view(stored.record)
            await self._clock.sleep(_WAIT_S)
        return None

    async def _undertake(
        self,
        order: Order,
        spec: ClusterSpec,
        replaced: Stored | None,
        chosen: ToldPlan | None,
        callers: Callers,
    ) -> ClusterView:
        """Plans and co-allocates until it is committed, or nothing is left to try. What was chosen
        is tried alone: PlanStale where it cannot be had."""
        uid = self._uid()
        read_at = replaced.read_at if replaced else 0
        brief = self._planning.brief(order.name.tenant, spec, now=self._clock.now())
        begun = False
        try:
            for number in range(1, PLANS + 1):
                last = number == PLANS
                looking = self._planned(order, brief, chosen, last=last)
                plan = await callers.while_there(looking)
                log.info("create.planned", cluster=str(order.name), sites=plan.site_names)
                try:
                    record = await self._attempt(order, spec, plan, uid, read_at, begun, chosen)
                    return await self._get_cluster.view(record)
                except Refused as error:
                    begun = True
                    log.info("create.refused", cluster=str(order.name), problem=str(error))
                    last = last or chosen is not None
                    brief = after_refusal(brief, plan, error, last=last)
                    brief = replace(brief, since=self._clock.now())
                    read_at = await self._still_ours(order, uid)
            raise AssertionError("unreachable")
        except NoCapacity as refusal:
            await self._discard(order, uid)
            if chosen is not None:
                short = "; ".join(str(each) for each in refusal.shortfalls)
                raise PlanStale(short, refusal.shortfalls) from None
            explaining = self._explaining(brief, refusal, now=self._clock.now())
            raise await callers.while_there(explaining) from None
        except (DomainError, Refused, NobodyWaits) as error:
            if not await self._discard(order, uid) and isinstance(error, Aborted):
                raise Overtaken from error
            raise

    async def _planned(
        self, order: Order, brief: Brief, chosen: ToldPlan | None, *, last: bool = False
    ) -> Plan:
        if chosen is not None:
            plan = as_accepted(chosen, brief.spec.lease, now=self._clock.now())
        else:
            plan = await self._planning.in_time(brief)
        return plan if last else await self._promised(order, brief, plan)

    async def _promised(self, order: Order, brief: Brief, plan: Plan) -> Plan:
        """The plan with room to go on in, unless it would be too large to be put aside."""
        found = await self._room_to_go_on(brief, plan)
        if found.promised is None:
            return plan
        try:
            record = self._record(order, brief.spec, found, uid="")
            self._fits.check(record, found, now=self._clock.now())
        except FieldInvalid as error:
            log.info("create.not_promised", cluster=str(order.name), problem=str(error))
            return plan
        return found

    async def _attempt(
        self,
        order: Order,
        spec: ClusterSpec,
        plan: Plan,
        uid: str,
        read_at: int,
        begun: bool,
        chosen: ToldPlan | None,
    ) -> ClusterRecord:
        """One transaction, recorded first, then carried through."""
        now = self._clock.now()
        tx_id = tx_name(self._draw())
        parts = {site: str(PartName(site, order.name.tenant, tx_id)) for site in plan.site_names}
        record = self._record(order, spec, plan, uid=uid, tx=tx_id, parts=parts)
        recallable = recallable_of(record, self._policy)
        specs = part_specs(record.name, uid, spec, plan, record.layout(), recallable)
        tx = tx_of(
            record,
            tx_id,
            agreement_digest(specs),
            coordinator=self._terms.coordinator,
            decide_by=now + self._terms.decide_within,
            now=now,
            until=plan.window.end,
        )
        request = self._request(order, record)

        async def begin() -> int:
            try:
                revision = await self._register.begin(
                    tx, record, read_at=read_at, request=None if begun else request
                )
            except StaleWrite:
                await self._clusters.check_leading()
                if begun:
                    raise Aborted(tx_id, _LOST) from None
                raise Overtaken from None
            return revision

        def agree(priced: ClusterRecord) -> None:
            if chosen is not None:
                check_price(chosen, priced.price)
            if dearer := sites_above_budget(spec, plan, priced.plan):
                raise Refused(tx_id, dearer)

        record, decision = await self._coallocate(tx, specs, record, begin=begin, agree=agree)
        self._tell(tx, decision)
        return record

    async def _still_ours(self, order: Order, uid: str) -> int:
        """When its record was read. Overtaken: a replica that led for a while has aborted and
        discarded it, so that nothing of it is left, and the request stands for nothing."""
        stored = await self._clusters.get(str(order.name))
        if stored is None or stored.record.uid != uid:
            raise Overtaken
        if stored.record.end_requested_time is not None:
            raise Aborted(stored.record.tx, "its end was asked for")
        return stored.read_at

    async def _discard(self, order: Order, uid: str) -> bool:
        """Whether it was still on record, by all that is known."""
        try:
            stored = await self._clusters.get(str(order.name))
            if stored is None or stored.record.uid != uid:
                return False
            if stored.record.state in PENDING:
                await discard(self._clusters, stored, now=self._clock.now())
        except DomainError as error:
            log.warning("create.not_discarded", cluster=str(order.name), problem=str(error))
        return True

    def _request(self, order: Order, record: ClusterRecord) -> RequestRecord:
        return RequestRecord(
            digest=order.digest,
            cluster=record.name,
            cluster_uid=record.uid,
            create_time=record.create_time,
        )

    def _in_line(self, order: Order, spec: ClusterSpec) -> ClusterRecord:
        now = self._clock.now()
        plan = nowhere(spec, ("its sites are looked at for room",), now=now)
        return queued(self._record(order, spec, plan, uid=self._uid()), now=now)

    def _uid(self) -> str:
        return self._draw()[:12]

    def _record(
        self,
        order: Order,
        spec: ClusterSpec,
        plan: Plan,
        *,
        uid: str,
        tx: str = "",
        parts: dict[str, str] | None = None,
    ) -> ClusterRecord:
        now = self._clock.now()
        return ClusterRecord(
            name=str(order.name),
            uid=uid,
            spec=spec,
            owner=order.caller,
            state=ClusterState.PLANNED,
            plan=plan,
            tx=tx,
            parts=parts or {},
            request_key=order.request_key,
            create_time=now,
            waits=Waits(since=now) if spec.lease.deadline is not None else None,
        )


async def discard(clusters: Clusters, stored: Stored, *, now: datetime) -> None:
    """What could not be had leaves no record: a retry plans anew; but of a lease that waits for
    room, which waits on. What was cancelled leaves one: a retry is told so."""
    record = stored.record
    if record.end_requested_time is None and record.queues:
        await clusters.save(queued_again(record, now=now), read_at=stored.read_at)
    elif record.end_requested_time is None:
        await clusters.delete(stored)
    else:
        await clusters.save(record.move(ClusterState.CANCELLED, now=now), read_at=stored.read_at)


def after_refusal(brief: Brief, plan: Plan, error: Refused, *, last: bool) -> Brief:
    """What to plan by after a refusal; raises what the caller is told when it is over."""
    for refusal in error.refusals.values():
        if not isinstance(refusal, _PLAN_AGAIN):
            raise refusal
    # Whatever a site says: without a promise nothing is refused for that alone.
    of_room = {
        site: each
        for site, each in error.refusals.items()
        if plan.promised is None or not for_promise_alone(each)
    }
    if not of_room:
        return replace(brief, to_go_on=False)
    brief = brief.after(plan, of_room)
    if not last:
        return brief
    if brief.refused:
        raise NoCapacity(brief.refused)
    first = next(iter(error.refusals.values()))
    if isinstance(first, SiteUnreachable | ImageNotReady | LedgerFull):
        raise first
    raise Aborted(error.tx, f"sites did not keep what they held: {error}")
