"""All or nothing: prepare, decide, tell."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import TypeVar, cast

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import (
    Aborted,
    AmendPending,
    ClockSkew,
    DecisionInvalid,
    DecisionPending,
    DomainError,
    NotFound,
    NotLeading,
    PartOver,
    SiteUnreachable,
    StaleWrite,
    TermsStale,
)
from intertie.common.names import PartName
from intertie.common.part_spec import PartSpec
from intertie.common.points import reach
from intertie.metasched.domain.cluster import ClusterRecord, ClusterState, priced
from intertie.metasched.domain.commit import (
    Decision,
    Outcome,
    Receipt,
    ReceiptFacts,
    TxRecord,
    abort_of,
    commit_of,
    was_late,
    why_not_commit,
)
from intertie.metasched.domain.ports import (
    HoldOrder,
    Pause,
    Prepared,
    ReceiptReader,
    Register,
    Sites,
    Terms,
)
from intertie.metasched.usecases.part_cache import PartCache

log = structlog.get_logger(__name__)

T = TypeVar("T")

_ATTEMPTS = 2
"""What a site was asked to prepare is asked for once more where its answer was lost: it is
idempotent."""

ELECTION = timedelta(seconds=8)
"""How long a site may be without a leader: one that was killed is known to be gone when its lease
has run out."""
_AGAIN_S = 0.5

_LOST = "its end was asked for, a site did not wait, or another replica took over"


class Refused(Exception):
    """Sites would not prepare; the transaction is aborted and all were told."""

    def __init__(self, tx: str, refusals: Mapping[str, DomainError]) -> None:
        super().__init__("; ".join(f"{site}: {error}" for site, error in refusals.items()))
        self.tx = tx
        self.refusals = refusals


class Overtaken(Exception):
    """The record of the transaction could not be written: the name or the request id was, by
    another call, meanwhile."""


class Coallocate:
    """One transaction, its record included; see docs on commit for the protocol.

    Wherever this stops, the transaction is settled: by the loop that recovers, which finds its
    record; and where not even that was written, by the sites that have prepared, which ask the
    register when the time to decide is over, and leave an ABORT there for any who come later.
    """

    def __init__(
        self,
        sites: Sites,
        register: Register,
        receipts: ReceiptReader,
        parts: PartCache,
        clock: Clock,
        pause: Pause,
    ) -> None:
        self._sites = sites
        self._parts = parts
        self._register = register
        self._receipts = receipts
        self._clock = clock
        self._pause = pause

    async def __call__(
        self,
        tx: TxRecord,
        specs: Mapping[str, PartSpec],
        cluster: ClusterRecord,
        *,
        begin: Callable[[], Awaitable[int]],
        agree: Callable[[ClusterRecord], None] = lambda _: None,
    ) -> tuple[ClusterRecord, Decision]:
        """The cluster, SCHEDULED: COMMIT is on record, and the sites are to be told.

        `begin` writes the record of both and gives the revision that it was written at; `agree` is
        shown the cluster at the price that its sites ask, before anything is decided.
        Refused or Aborted, and what these two raise: ABORT is on record, and the sites that could
        be reached were told.
        """
        reach("metasched.before_begin")
        try:
            cluster, decision = await self._decide(tx, specs, cluster, begin, agree)
        except (Refused, DomainError, Overtaken) as error:
            decision = await self.abort(tx, error)
            if decision.outcome is Outcome.ABORT:
                raise
            # The answer to our COMMIT was lost, the COMMIT was not.
            cluster = _scheduled(cluster, now=self._clock.now())
        log.info("commit.committed", tx=tx.tx, cluster=cluster.name, sites=tx.participants)
        reach("metasched.decided")
        return cluster, decision

    async def abort(self, tx: TxRecord, error: Exception) -> Decision:
        """What stands; where that is ABORT, the sites that could be reached were told."""
        log.info("commit.aborting", tx=tx.tx, problem=str(error))
        reach("metasched.before_abort")
        decision = await self._register.abort(
            abort_of(
                tx.tx,
                by=tx.coordinator,
                reason=str(error)[:500],
                now=self._clock.now(),
                digest=tx.digest,
            )
        )
        if decision.outcome is Outcome.ABORT:
            reach("metasched.aborted")
            await self.tell(tx, decision)
        return decision

    async def agreed(
        self, tx: TxRecord, specs: Mapping[str, PartSpec]
    ) -> tuple[Decision, dict[str, Prepared]]:
        """The COMMIT that may be written, once all sites have prepared; Refused, Aborted."""
        prepared = await self._at_all(tx, lambda site: self._prepare(tx, site, specs[site]))
        return await self._commit(tx, prepared), prepared

    def heard(self, tx: TxRecord, prepared: Mapping[str, Prepared]) -> None:
        """What the sites have said of their parts, to be shown meanwhile."""
        for site, answer in prepared.items():
            self._parts.heard(tx.parts[site], answer.seen)

    async def bring(self, cluster: str) -> None:
        """Tells the sites of a cluster the decisions that they may not have heard of, in order."""
        txs = [each for each in await self._register.transactions() if each.cluster == cluster]
        for tx in sorted(txs, key=lambda each: each.order):
            decision = await self._register.decision(tx.tx)
            if decision is not None:
                await self.tell(tx, decision)

    async def announce(self, tx: TxRecord, decision: Decision) -> None:
        """Tells the sites for the first time."""
        await self._pause("after_decide")
        await self.tell(tx, decision)

    async def tell(self, tx: TxRecord, decision: Decision) -> bool:
        """Brings the decision to every site once; true, and settled, when all have answered."""
        answered = await asyncio.gather(
            *(self._tell(tx, site, part, decision) for site, part in sorted(tx.parts.items()))
        )
        if not all(answered):
            return False
        reach("metasched.told_all")
        await self._register.settle(tx, now=self._clock.now())
        reach("metasched.settled")
        return True

    async def _decide(
        self,
        tx: TxRecord,
        specs: Mapping[str, PartSpec],
        cluster: ClusterRecord,
        begin: Callable[[], Awaitable[int]],
        agree: Callable[[ClusterRecord], None],
    ) -> tuple[ClusterRecord, Decision]:
        """Nothing of what the sites do waits for the record: COMMIT compares it, and ABORT needs
        none."""

        async def recorded() -> int:
            revision = await begin()
            reach("metasched.begun")
            return revision

        begun, answers = await asyncio.gather(
            recorded(),
            self._at_all(tx, lambda site: self._prepare(tx, site, specs[site])),
            return_exceptions=True,
        )
        for each in (begun, answers):
            if isinstance(each, BaseException):
                raise each
        read_at, prepared = cast(int, begun), cast(dict[str, Prepared], answers)
        seen = {site: answer.seen for site, answer in prepared.items()}
        cluster = priced(cluster, seen)
        agree(cluster)
        decision = await self._commit(tx, prepared)
        cluster = _scheduled(cluster, now=self._clock.now())
        try:
            await self._register.commit(decision, cluster, read_at=read_at)
        except StaleWrite:
            raise Aborted(tx.tx, _LOST) from None
        self.heard(tx, prepared)
        return cluster, decision

    async def _commit(self, tx: TxRecord, prepared: Mapping[str, Prepared]) -> Decision:
        receipts = {site: each.receipt for site, each in prepared.items()}
        facts = self._verified(tx, receipts)
        reach("metasched.prepared_all")
        await self._pause("after_prepare")
        now = self._clock.now()
        problem = why_not_commit(tx, facts, now=now)
        if problem is not None:
            raise Aborted(tx.tx, problem)
        return commit_of(tx, receipts, now=now)

    async def _at_all(self, tx: TxRecord, ask: Callable[[str], Awaitable[T]]) -> dict[str, T]:
        """Every participant's answer, asked all at once, or Refused."""
        sites = tx.participants
        answers = await asyncio.gather(
            *(self._asked(tx, site, ask) for site in sites), return_exceptions=True
        )
        refusals: dict[str, DomainError] = {}
        good: dict[str, T] = {}
        for site, answer in zip(sites, answers, strict=True):
            if isinstance(answer, DomainError):
                refusals[site] = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                good[site] = answer
        if refusals:
            raise Refused(tx.tx, refusals)
        return good

    async def _asked(self, tx: TxRecord, site: str, ask: Callable[[str], Awaitable[T]]) -> T:
        attempts = 0
        until = min(tx.decide_by, self._clock.now() + ELECTION)
        while True:
            asked_at = self._clock.monotonic()
            try:
                return await ask(site)
            except ClockSkew as error:
                # It was passed from one replica to another, or waited for a connection.
                took = timedelta(seconds=self._clock.monotonic() - asked_at)
                if not was_late(error, took):
                    raise
                if self._clock.now() >= until:
                    raise SiteUnreachable(site, f"it is asked too slowly: {error}") from None
                log.info("commit.asked_late", tx=tx.tx, site=site, problem=str(error))
                await self._clock.sleep(_AGAIN_S)
            except SiteUnreachable as error:
                attempts += 1
                if attempts == _ATTEMPTS or self._clock.now() >= tx.decide_by:
                    raise
                log.info("commit.asking_again", tx=tx.tx, site=site, problem=str(error))
            except (TermsStale, AmendPending, DecisionPending) as error:
                # It has not heard of an earlier decision, or has a hold that came late.
                if tx.replaces is None or self._clock.now() >= until:
                    raise
                log.info("commit.bringing", tx=tx.tx, site=site, problem=str(error))
                await self.bring(tx.cluster)
                await self._clock.sleep(_AGAIN_S)
            except NotLeading as error:
                if self._clock.now() >= until:
                    raise SiteUnreachable(site, str(error)) from None
                log.info("commit.no_leader", tx=tx.tx, site=site, problem=str(error))
                await self._clock.sleep(_AGAIN_S)

    async def _prepare(self, tx: TxRecord, site: str, spec: PartSpec) -> Prepared:
        prepared = await self._sites.prepare(
            HoldOrder(
                part=PartName.parse(tx.parts[site]),
                spec=spec,
                tx=tx.tx,
                digest=tx.digest,
                coordinator=tx.coordinator,
                participants=tx.participants,
                decide_by=tx.decide_by,
                now=self._clock.now(),
                owner=tx.owner,
                replaces=tx.replaces,
            )
        )
        reach("metasched.prepared_one")
        return prepared

    def _verified(self, tx: TxRecord, receipts: Mapping[str, Receipt]) -> dict[str, ReceiptFacts]:
        facts = {}
        for site, receipt in receipts.items():
            try:
                facts[site] = self._receipts.read(receipt, site)
            except DecisionInvalid as error:
                raise Aborted(tx.tx, f"the receipt of {site}: {error.problem}") from None
        return facts

    async def _tell(self, tx: TxRecord, site: str, part: str, decision: Decision) -> bool:
        """Whether the site needs to hear no more of it."""
        terms = None
        if tx.replaces is not None and site in tx.specs:
            terms = Terms(replaces=tx.replaces, spec=tx.specs[site])
        try:
            seen = await self._sites.resolve(PartName.parse(part), decision, terms)
            if decision.outcome is Outcome.COMMIT:
                self._parts.heard(part, seen)
        except NotFound:
            if decision.outcome is Outcome.COMMIT:
                log.warning("commit.part_gone", tx=decision.tx, site=site)
            return True
        except PartOver as error:
            if decision.outcome is Outcome.COMMIT:
                log.error("commit.part_over", tx=decision.tx, site=site, problem=str(error))
            return True
        except DomainError as error:
            log.warning("commit.not_told", tx=decision.tx, site=site, problem=str(error))
            return False
        reach("metasched.told_one")
        return True


def _scheduled(cluster: ClusterRecord, *, now: datetime) -> ClusterRecord:
    """Held is what all sites had it, for the moment between their answers and the decision."""
    return cluster.move(ClusterState.HELD, now=now).move(ClusterState.SCHEDULED, now=now)
