"""Has a lease that is put aside go on: at all of its sites, or it is put aside as before."""

from collections.abc import Callable

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import DomainError, StaleWrite
from intertie.common.values import replace
from intertie.metasched.domain.aside import Stretch, amend_of, going_on, is_saved
from intertie.metasched.domain.cluster import ClusterRecord, ClusterState
from intertie.metasched.domain.commit import tx_name, tx_of
from intertie.metasched.domain.ports import Clusters, Register, Room, Stored
from intertie.metasched.domain.queue_policy import QueuePolicy
from intertie.metasched.domain.waiting import waits
from intertie.metasched.usecases.coallocate import Coallocate, Refused
from intertie.metasched.usecases.create_cluster import CommitTerms
from intertie.metasched.usecases.long_way import LongWay
from intertie.metasched.usecases.part_cache import PartCache
from intertie.metasched.usecases.pauses import Pauses
from intertie.metasched.usecases.telling import Telling, Underway

log = structlog.get_logger(__name__)


class GoOn:
    """The long way: HOLD and COMMIT of a later window, on the hosts that have what was saved.
    Wherever this stops, the loop that recovers aborts what is not decided."""

    def __init__(
        self,
        *,
        clusters: Clusters,
        register: Register,
        parts: PartCache,
        coallocate: Coallocate,
        underway: Underway,
        clock: Clock,
        policy: QueuePolicy,
        terms: CommitTerms,
        draw: Callable[[], str],
        pauses: Pauses,
        room: Room,
    ) -> None:
        self._clusters = clusters
        self._register = register
        self._parts = parts
        self._long_way = LongWay(clusters, register, coallocate, clock)
        self._underway = underway
        self._clock = clock
        self._policy = policy
        self._terms = terms
        self._draw = draw
        self._pauses = pauses
        self._room = room
        self.tell = Telling(coallocate, underway)

    async def __call__(self, name: str) -> bool:
        """Whether it goes on."""
        if name in self._underway:
            return False
        self._underway.add(name)
        try:
            stored = await self._clusters.get(name)
            if (
                stored is None
                or not waits(stored.record)
                or stored.record.state is not ClusterState.SUSPENDED
            ):
                return False
            parts = await self._parts.parts_of(stored.record)
            if not is_saved(stored.record, parts):
                return False
            stretch = going_on(stored.record, parts, self._policy, now=self._clock.now())
            return stretch is not None and await self._over_all(stored, stretch)
        finally:
            self._underway.remove(name)

    async def _over_all(self, stored: Stored, stretch: Stretch) -> bool:
        record, after, now = stored.record, stretch.record, self._clock.now()
        tx_id = tx_name(self._draw())
        decide_by = now + self._terms.decide_within
        tx = tx_of(
            record,
            tx_id,
            stretch.digest,
            coordinator=self._terms.coordinator,
            decide_by=min(decide_by, stretch.decide_by or decide_by),
            now=now,
            until=after.window.end,
            replaces=record.terms,
        )
        under = replace(record, amend=amend_of(tx_id, after, now=now))
        try:
            self._room.check()
            await self._register.begin_amend(tx, under, read_at=stored.read_at)
            _, decision = await self._long_way(
                tx, stretch.specs, lambda standing, _: _goes_on(standing, after)
            )
        except (Refused, StaleWrite, DomainError) as error:
            log.info("queue.not_gone_on", cluster=record.name, tx=tx_id, problem=str(error))
            self._pauses.refused(record.uid, error)
            return False
        self._pauses.begun(record.uid)
        log.info("queue.went_on", cluster=record.name, tx=tx_id)
        self.tell(tx, decision)
        return True


def _goes_on(standing: ClusterRecord, after: ClusterRecord) -> ClusterRecord:
    """What sites have said while they were asked, of price and refunds, stays."""
    return replace(
        standing,
        state=after.state,
        plan=after.plan,
        waits=after.waits,
        terms=after.terms,
        amend=None,
    )
