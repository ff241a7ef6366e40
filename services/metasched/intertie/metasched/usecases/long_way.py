"""Other terms for a cluster that stands, for which all of its sites are asked: all take them, or
none does."""

from collections.abc import Callable, Mapping

from intertie.common.clock import Clock
from intertie.common.errors import Aborted, DomainError, NotFound, StaleWrite
from intertie.common.part_spec import PartSpec
from intertie.common.points import reach
from intertie.metasched.domain.cluster import Amend, ClusterRecord
from intertie.metasched.domain.commit import Decision, Outcome, TxRecord, left_by
from intertie.metasched.domain.ports import Clusters, Register
from intertie.metasched.usecases.coallocate import Coallocate, Refused

_LOST = "it was decided otherwise, its end was asked for, or another replica took over"

Apply = Callable[[ClusterRecord, Amend], ClusterRecord]
"""The record with the terms of its amend in force."""


def in_force() -> None:
    """Other terms are on record, the short way or the long one."""
    reach("metasched.amend_decided")


class LongWay:
    def __init__(
        self, clusters: Clusters, register: Register, coallocate: Coallocate, clock: Clock
    ) -> None:
        self._clusters = clusters
        self._register = register
        self._coallocate = coallocate
        self._clock = clock

    async def __call__(
        self, tx: TxRecord, specs: Mapping[str, PartSpec], apply: Apply
    ) -> tuple[ClusterRecord, Decision]:
        """The cluster with the terms that are asked for on its record, in force: COMMIT is on
        record, and the sites are to be told. Refused, Aborted: ABORT is, the sites that could be
        reached were told, and of the amend nothing stays."""
        reach("metasched.amend_begun")
        try:
            decision, prepared = await self._coallocate.agreed(tx, specs)
            after = await self._commit(tx, decision, apply)
            self._coallocate.heard(tx, prepared)
        except (Refused, DomainError) as error:
            decision = await self._coallocate.abort(tx, error)
            if decision.outcome is Outcome.ABORT:
                await self.clear(tx.cluster, tx.tx)
                raise
            # The answer to our COMMIT was lost, the COMMIT was not.
            found = await self._clusters.get(tx.cluster)
            if found is None:
                raise NotFound(tx.cluster) from None
            after = found.record
        in_force()
        return after, decision

    async def clear(self, name: str, tx: str) -> None:
        """Of an amend that was aborted nothing stays."""
        while True:
            stored = await self._clusters.get(name)
            if stored is None or stored.record.amend is None or stored.record.amend.tx != tx:
                return
            try:
                await self._clusters.clear(stored)
            except StaleWrite:
                continue
            return

    async def _commit(self, tx: TxRecord, decision: Decision, apply: Apply) -> ClusterRecord:
        """Written again where the record was, by a loop that has seen it become ACTIVE say."""
        while True:
            stored = await self._clusters.get(tx.cluster)
            record = stored.record if stored else None
            if (
                stored is None
                or record is None
                or record.amend is None
                or record.amend.tx != tx.tx
                or record.end_requested_time is not None
                or record.over
                or self._clock.now() >= tx.decide_by
            ):
                raise Aborted(tx.tx, _LOST)
            after = apply(record, record.amend)
            try:
                await self._register.commit(
                    decision, after, read_at=stored.read_at, left=left_by(record, after)
                )
            except StaleWrite:
                if await self._register.decision(tx.tx) is not None:
                    raise Aborted(tx.tx, _LOST) from None
                continue
            return after
