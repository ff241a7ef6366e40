"""Whose receipts are believed, and when."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from intertie.api.broker.v1 import part_pb2
from intertie.broker.adapters.receipts import SigningNotary
from intertie.broker.domain.decision import Receipt, ReceiptBody
from intertie.broker.domain.part import PartState
from intertie.common.errors import DecisionInvalid
from intertie.common.rpc.signing import Signer
from intertie.common.values import replace
from tests.fakes.clock import FakeClock
from tests.unit.common_rpc.authority import NOW, MemoryAuthority, trust_in

SOUTH = MemoryAuthority("south.site.intertie")
BROKER = "spiffe://south.site.intertie/broker"
BODY = ReceiptBody(
    tx="t1",
    digest="d",
    site="south",
    part="sites/south/tenants/demo/parts/t1",
    state=PartState.PREPARED,
    sign_time=NOW,
)


def notary(signer: Signer, now: datetime) -> SigningNotary:
    return SigningNotary(signer, trust_in(SOUTH), FakeClock(now))


def signed(signer: Signer, sign_time: datetime = NOW) -> Receipt:
    return notary(signer, NOW).sign(replace(BODY, sign_time=sign_time))


def opened(receipt: Receipt, *, now: datetime) -> str:
    return notary(SOUTH.issue(BROKER), now).open(receipt).signer


def test_a_receipt_outlives_the_certificate_that_signed_it() -> None:
    """A bug: a site's certificate that ended between COMMIT and APPLY left the part prepared
    for ever. Here the leaf ends after an hour, its root after a day."""
    receipt = signed(SOUTH.issue(BROKER))
    for later in (timedelta(0), timedelta(hours=2), timedelta(days=30)):
        assert opened(receipt, now=NOW + later) == "south"


@pytest.mark.parametrize("aside", [timedelta(hours=-2), timedelta(hours=2)])
def test_a_certificate_that_was_not_valid_when_it_signed_is_not_believed(aside: timedelta) -> None:
    receipt = signed(SOUTH.issue(BROKER), sign_time=NOW + aside)
    with pytest.raises(DecisionInvalid, match="not valid at"):
        opened(receipt, now=NOW + timedelta(hours=3))


def test_a_receipt_from_the_future_is_not_believed() -> None:
    """But for what clocks may differ by."""
    ahead = signed(SOUTH.issue(BROKER), sign_time=NOW + timedelta(seconds=2))
    assert opened(ahead, now=NOW) == "south"
    with pytest.raises(DecisionInvalid, match="yet to come"):
        opened(ahead, now=NOW - timedelta(milliseconds=1))


def test_a_receipt_that_cannot_be_read_is_not_believed() -> None:
    """Its time is read before its signature is checked."""
    signer = SOUTH.issue(BROKER)
    wild = part_pb2.ReceiptBody(state=part_pb2.Part.PREPARED)
    wild.sign_time.seconds = 1 << 60
    for body in (b"\xff", wild.SerializeToString(), part_pb2.ReceiptBody().SerializeToString()):
        receipt = Receipt(
            body=body, signature=signer.sign(body).signature, certificate=signer.certificate
        )
        with pytest.raises(DecisionInvalid):
            opened(receipt, now=NOW)
