"""Has a lease that waits begin: at all of its sites, or it waits as before."""

from collections.abc import Callable

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import DomainError, StaleWrite
from intertie.common.names import PartName
from intertie.common.values import replace
from intertie.metasched.domain.cluster import PENDING, ClusterRecord, ClusterState
from intertie.metasched.domain.commit import Outcome, TxRecord, tx_name
from intertie.metasched.domain.parts import agreement_digest, part_specs
from intertie.metasched.domain.ports import Clusters, Register, Stored
from intertie.metasched.domain.queue_policy import QueuePolicy
from intertie.metasched.domain.waiting import recallable_of
from intertie.metasched.usecases.coallocate import Coallocate, Overtaken, Refused
from intertie.metasched.usecases.create_cluster import CommitTerms, discard
from intertie.metasched.usecases.line import brief_from_now
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
        self.tell = Telling(coallocate, underway)

    async def __call__(self, name: str) -> bool:
        """Whether it begins."""
        if name in self._underway:
            return False
        self._underway.add(name)
        try:
            stored = await self._clusters.get(name)
            if stored is None or stored.record.state is not ClusterState.QUEUED:
                return False
            return await self._begin(stored)
        finally:
            self._underway.remove(name)

    async def _begin(self, stored: Stored) -> bool:
        record, now = stored.record, self._clock.now()
        try:
            plan = await self._planning(brief_from_now(record, now=now))
        except DomainError as error:
            log.info("queue.no_room_any_more", cluster=record.name, problem=str(error))
            return False
        tx_id = tx_name(self._draw())
        tenant = record.path.tenant
        parts = {site: str(PartName(site, tenant, tx_id)) for site in plan.site_names}
        assert record.waits is not None
        record = replace(
            record.move(ClusterState.PLANNED, now=now),
            plan=plan,
            tx=tx_id,
            parts=parts,
            waits=replace(record.waits, foreseen=None),
        )
        recallable = recallable_of(record, self._policy)
        placed = record.layout()
        specs = part_specs(record.name, record.uid, record.spec, plan, placed, recallable)
        tx = TxRecord(
            tx=tx_id,
            cluster=record.name,
            cluster_uid=record.uid,
            coordinator=self._terms.coordinator,
            owner=record.owner,
            digest=agreement_digest(specs),
            parts=parts,
            create_time=now,
            decide_by=now + self._terms.decide_within,
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
        except (Refused, Overtaken, DomainError) as error:
            log.info("queue.not_begun", cluster=record.name, tx=tx_id, problem=str(error))
            await self._wait_again(record)
            return False
        self.tell(tx, decision)
        log.info("queue.begun", cluster=record.name, tx=tx_id, sites=plan.site_names)
        return True

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
