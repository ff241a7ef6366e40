"""Has a lease that waits begin: at all of its sites, or it waits as before."""

from collections.abc import Callable

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import DomainError, StaleWrite
from intertie.common.names import PartName
from intertie.common.values import replace
from intertie.metasched.domain.cluster import PENDING, ClusterRecord, ClusterState
from intertie.metasched.domain.commit import Outcome, tx_name, tx_of
from intertie.metasched.domain.parts import agreement_digest, part_specs
from intertie.metasched.domain.plan import Plan, placed_as_well
from intertie.metasched.domain.planned import PlanUnsound
from intertie.metasched.domain.ports import Clusters, Register, Room, Stored
from intertie.metasched.domain.queue_policy import QueuePolicy
from intertie.metasched.domain.taken import Taken
from intertie.metasched.domain.waiting import recallable_of
from intertie.metasched.usecases.brief import Brief
from intertie.metasched.usecases.coallocate import Coallocate, Overtaken, Refused
from intertie.metasched.usecases.create_cluster import (
    PLANS,
    CommitTerms,
    after_refusal,
    discard,
)
from intertie.metasched.usecases.fits_aside import FitsAside
from intertie.metasched.usecases.line import brief_from_now
from intertie.metasched.usecases.pauses import Pauses
from intertie.metasched.usecases.planning import Planning
from intertie.metasched.usecases.telling import Telling, Underway

log = structlog.get_logger(__name__)


class BeginWaiting:
    """One co-allocation, as Create has it, but for what becomes of the cluster where it is refused:
    it is QUEUED again. Wherever this stops, the loop that recovers does the same."""

    def __init__(
        self,
        *,
        clusters: Clusters,
        register: Register,
        planning: Planning,
        coallocate: Coallocate,
        underway: Underway,
        clock: Clock,
        policy: QueuePolicy,
        terms: CommitTerms,
        draw: Callable[[], str],
        fits: FitsAside,
        pauses: Pauses,
        room: Room,
    ) -> None:
        self._clusters = clusters
        self._register = register
        self._planning = planning
        self._coallocate = coallocate
        self._underway = underway
        self._clock = clock
        self._policy = policy
        self._terms = terms
        self._draw = draw
        self._fits = fits
        self._pauses = pauses
        self._room = room
        self.tell = Telling(coallocate, underway)

    async def __call__(self, name: str, leaves: tuple[Taken, ...] = ()) -> bool:
        """Whether it begins. `leaves`: what others are to get that begin in the same round, as long
        as it is as well off elsewhere."""
        if name in self._underway:
            return False
        self._underway.add(name)
        try:
            stored = await self._clusters.get(name)
            if stored is None or not _is_queued(stored):
                return False
            return await self._begin(stored, leaves)
        finally:
            self._underway.remove(name)

    async def _begin(self, stored: Stored, leaves: tuple[Taken, ...]) -> bool:
        """Planned again after a refusal, as a Create is."""
        name, uid = stored.record.name, stored.record.uid
        try:
            self._room.check()
            brief = brief_from_now(stored.record, now=self._clock.now())
            for number in range(1, PLANS + 1):
                plan = await self._planned(brief, leaves)
                try:
                    await self._attempt(stored, plan)
                except Refused as error:
                    log.info("queue.refused", cluster=name, tx=error.tx, problem=str(error))
                    brief = after_refusal(brief, plan, error, last=number == PLANS)
                    again = await self._clusters.get(name)
                    if again is None or again.record.uid != uid or not _is_queued(again):
                        self._pauses.refused(uid, error)
                        return False
                    stored = again
                else:
                    self._pauses.begun(uid)
                    return True
            raise AssertionError("unreachable")
        except (Overtaken, DomainError) as error:
            log.info("queue.not_begun", cluster=name, problem=str(error))
            self._pauses.refused(uid, error)
            return False
        except PlanUnsound as error:
            # A bug, which each pass would meet again before it came to anybody else.
            log.exception("queue.unsound", cluster=name)
            self._pauses.refused(uid, error)
            return False

    async def _planned(self, brief: Brief, leaves: tuple[Taken, ...]) -> Plan:
        """As the planning refuses."""
        best = await self._planning(brief)
        if not leaves:
            return best
        try:
            plan = await self._planning(replace(brief, leaves=leaves))
        except DomainError:
            return best
        return plan if placed_as_well(plan, best) else best

    async def _attempt(self, stored: Stored, plan: Plan) -> None:
        """One transaction; Refused, Overtaken and others: it waits as before, but where it is not
        known that it was aborted."""
        record, now = stored.record, self._clock.now()
        tx_id = tx_name(self._draw())
        tenant = record.path.tenant
        parts = {site: str(PartName(site, tenant, tx_id)) for site in plan.site_names}
        assert record.waits is not None
        record = replace(
            record.move(ClusterState.PLANNED, now=now),
            plan=plan,
            tx=tx_id,
            parts=parts,
            waits=replace(record.waits, foreseen=None, keep_for=self._policy.longest(record.spec)),
        )
        self._fits.check(record, plan, now=now)
        recallable = recallable_of(record, self._policy)
        placed = record.layout()
        specs = part_specs(record.name, record.uid, record.spec, plan, placed, recallable)
        tx = tx_of(
            record,
            tx_id,
            agreement_digest(specs),
            coordinator=self._terms.coordinator,
            decide_by=now + self._terms.decide_within,
            now=now,
            until=plan.window.end,
        )

        async def begin() -> int:
            try:
                revision = await self._register.begin(
                    tx, record, read_at=stored.read_at, request=None
                )
            except StaleWrite:
                await self._clusters.check_leading()
                raise Overtaken from None
            return revision

        try:
            record, decision = await self._coallocate(tx, specs, record, begin=begin)
        except (Refused, Overtaken, DomainError):
            await self._wait_again(record)
            raise
        self.tell(tx, decision)
        log.info("queue.begun", cluster=record.name, tx=tx_id, sites=plan.site_names)

    async def _wait_again(self, tried: ClusterRecord) -> None:
        """Only where it is known that it was aborted: else that is for the loop that recovers."""
        try:
            decision = await self._register.decision(tried.tx)
            stored = await self._clusters.get(tried.name)
            if decision is None or decision.outcome is not Outcome.ABORT or stored is None:
                return
            record = stored.record
            if record.tx == tried.tx and record.state in PENDING:
                await discard(self._clusters, stored, now=self._clock.now())
        except DomainError as error:
            log.warning("queue.not_queued_again", cluster=tried.name, problem=str(error))


def _is_queued(stored: Stored) -> bool:
    return stored.record.state is ClusterState.QUEUED
