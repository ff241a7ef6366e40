"""Sending to another site's store: only by a grant, never faster than it says."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from intertie.api.imagestore.v1 import transfers_pb2 as pb
from intertie.broker.adapters import grants as signing
from intertie.common.errors import (
    FieldInvalid,
    IdentityUnknown,
    NotFound,
    OffsetMismatch,
    RoleDenied,
)
from intertie.common.rpc.identity import parse_spiffe
from intertie.common.rpc.transfer_proto import grant_from_body, grant_to_body
from intertie.common.transfer import TransferGrant
from intertie.common.values import replace
from intertie.imagestore.adapters.grants import SignedGrants
from intertie.imagestore.domain.pacing import BURST_S
from intertie.imagestore.usecases.send_image import SendImage
from tests.fakes.clock import START, FakeClock
from tests.fakes.image_files import MemoryImageFiles
from tests.unit.common_rpc.authority import NOW, MemoryAuthority, trust_in
from tests.unit.imagestore.test_put_image import OCTETS, SIZE, Store, blocks, digest_of, saying

NORTH, SOUTH = MemoryAuthority("north.site.intertie"), MemoryAuthority("south.site.intertie")
CALLER = parse_spiffe("spiffe://south.site.intertie/imagestore")
SECOND = timedelta(seconds=1)
GRANT = TransferGrant(
    digest=digest_of(OCTETS),
    source_site="north",
    target_site="south",
    mbit_s=1,
    begin_time=START,
    end_time=START + timedelta(minutes=10),
    sign_time=START,
    tenant="demo",
    tx="t1",
)


class Sender(Store):
    def __init__(self) -> None:
        super().__init__(MemoryImageFiles(), FakeClock())
        self.send = SendImage(self.fetch, self.clock, site="north")
        self.sent: list[tuple[float, int]] = []

    async def sending(self, grant: TransferGrant = GRANT, offset: int = 0) -> bytes:
        got = b""
        async for at, data in self.send(grant, offset, caller=CALLER):
            assert at == offset + len(got)
            got += data
            self.sent.append((self.clock.monotonic(), len(data)))
        return got

    async def outcome(self, grant: TransferGrant, offset: int = 0) -> bytes:
        """After a minute, in which all is sent that is."""
        sending = asyncio.create_task(self.sending(grant, offset))
        await self.clock.advance(60)
        return await sending

    def check_pace(self, mbit_s: int) -> None:
        for first, (begin_s, _) in enumerate(self.sent):
            total = 0
            for at_s, size in self.sent[first:]:
                total += size
                assert total <= mbit_s * 125_000 * (at_s - begin_s + BURST_S) + 1


@pytest.fixture
async def sender() -> Sender:
    sender = Sender()
    await sender.put(saying(), 0, blocks(OCTETS))
    return sender


async def test_it_sends_no_faster_than_granted_and_no_slower(sender: Sender) -> None:
    sending = asyncio.create_task(sender.sending())
    await sender.clock.advance(1)
    assert await sending == OCTETS
    sender.check_pace(1)
    assert sender.sent[-1][0] == pytest.approx(SIZE / 125_000 - BURST_S)


async def test_two_streams_of_one_grant_share_its_rate(sender: Sender) -> None:
    signed_anew = replace(GRANT, sign_time=START + SECOND)
    both = [asyncio.create_task(sender.sending(each)) for each in (GRANT, signed_anew)]
    await sender.clock.advance(1)
    assert await asyncio.gather(*both) == [OCTETS, OCTETS]
    sender.check_pace(1)
    assert sender.sent[-1][0] == pytest.approx(2 * SIZE / 125_000 - BURST_S)


async def test_it_goes_on_at_an_offset(sender: Sender) -> None:
    assert await sender.outcome(GRANT, 12_345) == OCTETS[12_345:]
    with pytest.raises(OffsetMismatch):
        await sender.outcome(GRANT, SIZE + 1)


async def test_it_ends_when_the_grant_runs_out(sender: Sender) -> None:
    short = replace(GRANT, end_time=START + timedelta(milliseconds=20))
    with pytest.raises(RoleDenied, match="has run out"):
        await sender.outcome(short)
    assert 0 < sum(size for _, size in sender.sent) < SIZE


async def test_it_waits_for_one_that_is_about_to_begin(sender: Sender) -> None:
    sending = asyncio.create_task(sender.sending(replace(GRANT, begin_time=START + 2 * SECOND)))
    await sender.clock.advance(1.9)
    assert sender.sent == []
    await sender.clock.advance(1)
    assert await sending == OCTETS


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"begin_time": START + 3 * SECOND}, "begins at"),
        ({"begin_time": START - 3 * SECOND, "end_time": START}, "has run out"),
        ({"sign_time": START + 3 * SECOND}, "yet to come"),
        ({"source_site": "west"}, "store of west"),
        ({"target_site": "west"}, "site west"),
    ],
)
async def test_a_grant_for_something_else_is_refused(
    sender: Sender, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(RoleDenied, match=why):
        await sender.outcome(replace(GRANT, **changes))


async def test_one_that_has_run_out_is_refused_even_for_nothing(sender: Sender) -> None:
    with pytest.raises(RoleDenied, match="has run out"):
        await sender.outcome(replace(GRANT, begin_time=START - SECOND, end_time=START), SIZE)


@pytest.mark.parametrize("changes", [{"tenant": "other"}, {"digest": digest_of(b"x")}])
async def test_only_what_its_tenant_has_is_sent(sender: Sender, changes: dict[str, Any]) -> None:
    with pytest.raises(NotFound):
        await sender.outcome(replace(GRANT, **changes))


SIGNED_NOW = replace(GRANT, sign_time=NOW)


def test_what_a_broker_signs_is_what_a_store_opens() -> None:
    for authority, site in ((NORTH, "north"), (SOUTH, "south")):
        signer = authority.issue(f"spiffe://{site}.site.intertie/broker")
        octets = signing.SignedGrants(signer).sign_transfer(SIGNED_NOW)
        message = pb.TransferGrant.FromString(octets)
        opened = SignedGrants(trust_in(NORTH, SOUTH), site).open_transfer(message)
        assert opened == SIGNED_NOW


@pytest.mark.parametrize(
    "signer",
    [
        SOUTH.issue("spiffe://south.site.intertie/broker"),
        SOUTH.issue("spiffe://north.site.intertie/broker"),
        NORTH.issue("spiffe://north.site.intertie/imagestore"),
        NORTH.issue("spiffe://north.site.intertie/broker", ends=NOW - SECOND),
    ],
    ids=["another site", "forged", "no broker", "too old"],
)
def test_what_somebody_else_has_signed_is_not_believed(signer: Any) -> None:
    octets = signing.SignedGrants(signer).sign_transfer(SIGNED_NOW)
    with pytest.raises(IdentityUnknown):
        SignedGrants(trust_in(NORTH, SOUTH), "north").open_transfer(
            pb.TransferGrant.FromString(octets)
        )


def test_a_grant_that_was_changed_is_not_believed() -> None:
    broker = signing.SignedGrants(NORTH.issue("spiffe://north.site.intertie/broker"))
    message = pb.TransferGrant.FromString(broker.sign_transfer(SIGNED_NOW))
    message.body = grant_to_body(replace(SIGNED_NOW, mbit_s=1000))
    with pytest.raises(IdentityUnknown):
        SignedGrants(trust_in(NORTH, SOUTH), "north").open_transfer(message)


@pytest.mark.parametrize(
    "octets",
    [
        b"\xff",
        grant_to_body(replace(GRANT, mbit_s=0)),
        grant_to_body(replace(GRANT, end_time=START)),
    ],
    ids=["no grant", "no rate", "no time"],
)
def test_what_grants_nothing_is_no_grant(octets: bytes) -> None:
    with pytest.raises(FieldInvalid):
        grant_from_body(octets)
    with pytest.raises(IdentityUnknown):
        SignedGrants(trust_in(NORTH), "north").open_transfer(pb.TransferGrant(body=octets))
