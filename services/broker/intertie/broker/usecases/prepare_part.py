"""PREPARE: from here on the site may not let go alone."""

import structlog

from intertie.broker.domain.decision import Receipt
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.ports import Caller, Ledger, Notary
from intertie.broker.domain.preparing import prepared, vnis_of
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.renegotiating import prepared as amend_prepared
from intertie.broker.usecases.admission import contend, known_part
from intertie.broker.usecases.hold_part import amend_receipt_of, receipt_of
from intertie.broker.usecases.sends import SENDS_NOTHING, Sends
from intertie.common.clock import Clock
from intertie.common.errors import HoldExpired, NotFound, PartOver, RoleDenied
from intertie.common.names import PartName

log = structlog.get_logger(__name__)


class PreparePart:
    def __init__(
        self,
        ledger: Ledger,
        notary: Notary,
        policy: Policy,
        clock: Clock,
        sends: Sends = SENDS_NOTHING,
    ) -> None:
        self._ledger = ledger
        self._notary = notary
        self._policy = policy
        self._clock = clock
        self._sends = sends

    async def __call__(self, name: PartName, caller: Caller, tx: str = "") -> tuple[Part, Receipt]:
        """`tx`: of other terms that are held for the part."""
        await self._ledger.check_leading()
        if tx:
            part = await contend(lambda: self._prepare_amend(name, caller, tx))
            now = self._clock.now()
            sends = self._sends.by_amend(part, tx, now=now)
            return part, self._notary.sign(amend_receipt_of(part, tx, now=now, sends=sends))
        part = await contend(lambda: self._prepare(name, caller))
        now = self._clock.now()
        body = receipt_of(part, now=now, state=PartState.PREPARED, sends=self._sends(part, now=now))
        return part, self._notary.sign(body)

    async def _prepare(self, name: PartName, caller: Caller) -> Part:
        """Once PREPARED, or further, the answer is the same receipt again."""
        found = await known_part(self._ledger, name)
        if found is None:
            raise NotFound(str(name))
        part = found.value
        check_coordinator(part, caller, "Prepare")
        now = self._clock.now()
        if part.state is PartState.EXPIRED or part.expired(now=now):
            raise HoldExpired(part.name)
        if part.over:
            raise PartOver(part.name, part.state.name)
        if part.state is not PartState.HELD:
            return part
        after = prepared(part, await self._ledger.view(), self._policy, now=now)
        write = Write(record=after, read_at=found.revision)
        await self._ledger.commit(Change(writes=(write,), vnis=vnis_of(after)))
        log.info("part.prepared", part=part.name, tx=part.tx)
        return after

    async def _prepare_amend(self, name: PartName, caller: Caller, tx: str) -> Part:
        found = await known_part(self._ledger, name)
        if found is None:
            raise NotFound(str(name))
        check_coordinator(found.value, caller, "Prepare")
        after = amend_prepared(found.value, tx, now=self._clock.now())
        if after != found.value:
            write = Write(record=after, read_at=found.revision)
            await self._ledger.commit(Change(writes=(write,)))
            log.info("amend.prepared", part=after.name, tx=tx)
        return after


def check_coordinator(part: Part, caller: Caller, method: str) -> None:
    """Only the meta-scheduler that coordinates a part may act on it."""
    if not part.coordinator or caller.spiffe != part.coordinator:
        raise RoleDenied(caller.spiffe, method, f"{part.name} is not coordinated by it")
