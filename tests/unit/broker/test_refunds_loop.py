"""What the loop gives back, and what it does when it is kept from it at one part."""

from __future__ import annotations

import pytest

from intertie.broker.domain.guarantees import MeasuredDirection, MeasuredPart
from intertie.broker.domain.part import Part
from intertie.broker.domain.records import Change, Write
from intertie.broker.loops.refunds import Refunds
from intertie.common.errors import EtcdUnavailable, FieldInvalid, NotLeading
from intertie.common.guarantees import GuaranteeKind
from intertie.common.values import replace
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import MemoryLedger
from tests.unit.broker.samples import HOUR, NOW, POLICY
from tests.unit.broker.test_refunds import lease

NAMES = [f"sites/north/tenants/demo/parts/t{number}" for number in range(3)]


class TooLarge(MemoryLedger):
    """One part is too large to be written again."""

    which = ""

    async def commit(self, change: Change) -> int:
        if any(part.name == self.which for part in change.parts()):
            raise FieldInvalid("spec", "takes too much in a ledger")
        return await super().commit(change)


async def site(*parts: Part) -> TooLarge:
    ledger = TooLarge(POLICY)
    for each in parts:
        await ledger.commit(Change(writes=(Write(record=each),)))
    return ledger


async def given_back(ledger: MemoryLedger) -> list[str]:
    return sorted(each.value.name for each in await ledger.parts() if each.value.refunds)


async def test_an_end_that_cannot_be_written_keeps_nobody_from_what_is_given_back() -> None:
    """A bug: the pass broke off at the first, each time."""
    ended = lease().ending(now=NOW + HOUR / 2, reason="CANCELLED")
    ledger = await site(*(replace(ended, name=name) for name in NAMES))
    ledger.which = NAMES[0]
    await Refunds(ledger, POLICY, FakeClock(NOW)).sweep()
    assert await given_back(ledger) == NAMES[1:]


async def test_a_breach_that_cannot_be_written_keeps_nobody_from_what_is_given_back() -> None:
    """A bug: as above."""
    parts = [replace(lease(), name=name) for name in NAMES]
    ledger = await site(*parts)
    below = MeasuredDirection(
        kind=GuaranteeKind.DISK_IOPS, source="w-0", value=1, backlogged=True, below_since=NOW
    )
    told = MeasuredPart(at=NOW + HOUR / 2, directions=(below,))
    ledger.measure("n1", {each.uid: told for each in parts})
    ledger.which = NAMES[0]
    await Refunds(ledger, POLICY, FakeClock(NOW)).sweep()
    assert await given_back(ledger) == NAMES[1:]


async def test_where_nothing_can_be_written_the_pass_is_over() -> None:
    ended = lease().ending(now=NOW + HOUR / 2, reason="CANCELLED")
    ledger = await site(replace(ended, name=NAMES[0]))
    ledger.leading = False
    with pytest.raises(NotLeading):
        await Refunds(ledger, POLICY, FakeClock(NOW)).sweep()
    ledger.leading, ledger.loses_answer = True, True
    with pytest.raises(EtcdUnavailable):
        await Refunds(ledger, POLICY, FakeClock(NOW)).sweep()
