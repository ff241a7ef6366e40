"""Has what a cluster lost with a site begin anew at others: by other terms, for which all sites
but the lost ones are asked, or not at all."""

from collections.abc import Callable, Mapping, Set

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import Aborted, StaleWrite
from intertie.common.intervals import Window
from intertie.common.values import replace
from intertie.metasched.domain.amending import (
    Growth,
    Target,
    beside_standing,
    target_of,
    to_plan,
)
from intertie.metasched.domain.cluster import Amend, ClusterRecord
from intertie.metasched.domain.commit import tx_name
from intertie.metasched.domain.lost_sites import (
    growth_without,
    may_be_placed_anew,
    reasons,
    without_sites,
)
from intertie.metasched.domain.ports import Clusters, Register, Room, Stored
from intertie.metasched.usecases.brief import Brief
from intertie.metasched.usecases.coallocate import Coallocate, Refused
from intertie.metasched.usecases.create_cluster import PLANS, CommitTerms
from intertie.metasched.usecases.long_way import LongWay
from intertie.metasched.usecases.planning import Planning
from intertie.metasched.usecases.refused_growth import after_refusal
from intertie.metasched.usecases.telling import Telling, Underway

log = structlog.get_logger(__name__)


class ReplaceLost:
    """The long way of an amend, without the sites that are lost: nobody needs their word for what
    is taken from them. Wherever this stops, the loop that recovers aborts what is not decided, and
    the cluster is as it was."""

    def __init__(
        self,
        *,
        clusters: Clusters,
        register: Register,
        planning: Planning,
        coallocate: Coallocate,
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
        self._underway = underway
        self._clock = clock
        self._terms = terms
        self._draw = draw
        self._room = room
        self.tell = Telling(coallocate, underway)

    async def __call__(
        self, name: str, lost: Mapping[str, str], *, still: Callable[[], bool]
    ) -> bool:
        """Whether it was done. `lost`: its sites that are to be left, each with why; `still`: they
        are lost by what is known now, without which nothing is put on record.

        Raises why it cannot be had elsewhere now, or Refused; then all is as it was. Nothing is
        done where the cluster is over, or is at work on something else."""
        if name in self._underway:
            return False
        self._underway.add(name)
        try:
            stored = await self._clusters.get(name)
            if stored is None or not _open(stored.record, lost.keys(), self._clock):
                return False
            return await self._replace(stored, lost, still)
        finally:
            self._underway.remove(name)

    async def _replace(
        self, stored: Stored, lost: Mapping[str, str], still: Callable[[], bool]
    ) -> bool:
        sites = frozenset(lost)
        growth = growth_without(stored.record, sites)
        brief = self._brief(stored.record, growth, sites)
        for number in range(1, PLANS + 1):
            record, now = stored.record, self._clock.now()
            if not still():
                return False
            grown = await self._planning(brief) if growth.possible else None
            tx_id = tx_name(self._draw())
            target = target_of(record, record.spec, growth, grown, tx_id, now=now, lost=sites)
            self._room.check()
            try:
                return still() and await self._over_all(stored, target, tx_id, lost, still)
            except Refused as error:
                log.info("replace.refused", cluster=record.name, problem=str(error))
                last = number == PLANS or grown is None
                brief = after_refusal(brief, grown, error, last=last)
                brief = replace(brief, since=self._clock.now())
            again = await self._clusters.get(record.name)
            if again is None or not _open(again.record, sites, self._clock):
                return False
            if again.record.terms != record.terms:
                return False  # what was planned by does not stand any more: it is looked at anew
            stored = again
        raise AssertionError("unreachable")

    def _brief(self, record: ClusterRecord, growth: Growth, lost: frozenset[str]) -> Brief:
        now, window = self._clock.now(), record.window
        spec, out = to_plan(record.spec, growth, record.plan), lost.union(record.left)
        return Brief(
            tenant=record.path.tenant,
            spec=without_sites(spec, out),
            windows=(Window(max(window.start, now), window.end),),
            without={},
            image_gone={},
            since=now,
            sends_nothing=out,
            beside=lambda problem: beside_standing(problem, record, growth, now=self._clock.now()),
        )

    async def _over_all(
        self,
        stored: Stored,
        target: Target,
        tx_id: str,
        lost: Mapping[str, str],
        still: Callable[[], bool],
    ) -> bool:
        record, now = stored.record, self._clock.now()
        told = (*reasons(record, target.plan, lost), *target.plan.reasons)
        target = replace(target, plan=replace(target.plan, reasons=told))
        tx = target.transaction(
            record,
            tx_id,
            coordinator=self._terms.coordinator,
            within=self._terms.decide_within,
            now=now,
        )
        under = replace(record, amend=target.amend(tx_id, now=now))
        try:
            await self._register.begin_amend(tx, under, read_at=stored.read_at)
        except StaleWrite:
            log.debug("replace.lost_race", cluster=record.name)
            return False

        def amended(standing: ClusterRecord, amend: Amend) -> ClusterRecord:
            if not still():
                raise Aborted(tx_id, "what was lost is there again")
            return standing.amended(amend)

        after, decision = await self._long_way(tx, target.specs, amended)
        log.info(
            "replace.replaced",
            cluster=record.name,
            tx=tx_id,
            lost=sorted(lost),
            sites=sorted(after.parts),
        )
        self.tell(tx, decision)
        return True


def _open(record: ClusterRecord, lost: Set[str], clock: Clock) -> bool:
    """Nothing else is under way, and they are sites of it yet."""
    return (
        record.amend is None
        and lost <= record.parts.keys()
        and may_be_placed_anew(record, now=clock.now())
    )
