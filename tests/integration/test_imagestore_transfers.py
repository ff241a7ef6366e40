"""One site's image store, as a process, brings from another's over mutual TLS: by a broker's grant,
at its rate, over the death of either."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from intertie.api.imagestore.v1 import images_pb2
from intertie.api.imagestore.v1 import transfers_pb2 as pb
from intertie.api.imagestore.v1.transfers_pb2_grpc import TransfersStub
from intertie.broker.adapters.grants import SignedGrants
from intertie.common import errors
from intertie.common.clock import SystemClock
from intertie.common.rpc.signing import Signer
from intertie.common.rpc.terms_proto import timestamp_to_proto
from intertie.common.transfer import TransferGrant
from intertie.imagestore.domain.pacing import BURST_S, MESSAGE_BYTES
from tests.integration.pki import TestDomain
from tests.integration.refusals import refusal
from tests.integration.test_imagestore import DIGEST, OCTETS, Process, fetched, frames, put

CLOCK = SystemClock()
PARENT = "sites/south/tenants/demo"
HERE = pb.GetTransferRequest(parent=PARENT, digest=DIGEST)
BYTES_OF_A_MBIT = 125_000
OVER = (pb.Transfer.DONE, pb.Transfer.FAILED)


@dataclass
class Sites:
    """The store of `north` has the image, that of `south` brings it."""

    north: TestDomain
    south: TestDomain
    source: Process
    target: Process

    def grant(self, **changes: Any) -> TransferGrant:
        now = CLOCK.now()
        values: dict[str, Any] = {
            "digest": DIGEST,
            "source_site": "north",
            "target_site": "south",
            "mbit_s": 200,
            "begin_time": now - timedelta(seconds=1),
            "end_time": now + timedelta(minutes=5),
            "sign_time": now,
            "tenant": "demo",
            "tx": "t1",
        }
        return TransferGrant(**values | changes)

    def signed(self, grant: TransferGrant, by: TestDomain | None = None) -> pb.TransferGrant:
        signer = Signer.load((by or self.north).service("broker"))
        return pb.TransferGrant.FromString(SignedGrants(signer).sign_transfer(grant))

    def request(
        self, granted: TransferGrant, by: TestDomain | None = None, **changes: Any
    ) -> pb.BringRequest:
        values: dict[str, Any] = {
            "parent": PARENT,
            "image_id": "a",
            "digest": DIGEST,
            "size_bytes": len(OCTETS),
            "source": pb.TransferSource(
                site="north",
                addresses=["unix:/nobody/is/there", self.source.address],
                server_name=self.source.server_name,
            ),
            "grant": self.signed(granted, by),
            "mbit_s": granted.mbit_s,
            "begin_time": timestamp_to_proto(granted.begin_time),
            "end_time": timestamp_to_proto(granted.end_time),
        }
        return pb.BringRequest(**values | changes)

    @asynccontextmanager
    async def broker(self) -> AsyncIterator[Any]:
        async with self.target.calling(self.south.service("broker"), TransfersStub) as stub:
            yield stub

    @asynccontextmanager
    async def peer(self) -> AsyncIterator[Any]:
        async with self.source.calling(self.south.service("imagestore"), TransfersStub) as stub:
            yield stub

    async def until(
        self, request: pb.BringRequest, seen: Callable[[pb.Transfer], bool]
    ) -> pb.Transfer:
        """As a broker does it: asks again and again. What has come never gets less, unless it was
        wrong."""
        async with self.broker() as transfers, asyncio.timeout(60):
            done_bytes = 0
            while True:
                told: pb.Transfer = await transfers.Bring(request)
                if seen(told):
                    return told
                assert told.state in (pb.Transfer.WAITING, pb.Transfer.RUNNING), told.message
                assert told.done_bytes >= done_bytes or "digest" in told.message
                done_bytes = told.done_bytes
                await asyncio.sleep(0.02)

    async def brought(self, request: pb.BringRequest) -> pb.Transfer:
        """As it is when it is over."""
        return await self.until(request, lambda told: told.state in OVER)

    async def arrived(self, request: pb.BringRequest, at_least: int) -> int:
        """What has come by the time that so much has; not all."""
        told = await self.until(request, lambda told: told.done_bytes >= at_least)
        assert told.state == pb.Transfer.RUNNING
        assert told.done_bytes < len(OCTETS)
        return told.done_bytes


@pytest.fixture
async def sites(
    tmp_path: Path, north: TestDomain, south: TestDomain, meta: TestDomain
) -> AsyncIterator[Sites]:
    stores = []
    for domain, other in ((north, south), (south, north)):
        folder = tmp_path / domain.name
        folder.mkdir(exist_ok=True)
        stores.append(Process(folder, domain, [domain, other, meta]))
    try:
        for each in stores:
            await each.start()
        async with stores[0].calling(north.user("demo", "alice")) as images:
            await put(images, frames())
        yield Sites(north, south, *stores)
    finally:
        for each in stores:
            await each.end(signal.SIGKILL)


async def test_it_comes_at_no_more_than_its_rate_and_is_verified(sites: Sites) -> None:
    request = sites.request(sites.grant(mbit_s=20))
    async with sites.broker() as transfers:
        assert isinstance(await refusal(transfers.Get(HERE)), errors.NotFound)
        began_s = CLOCK.monotonic()
        assert (await transfers.Bring(request)).state not in OVER
    await sites.arrived(request, 1)
    async with sites.target.calling(sites.south.user("demo", "bob")) as images:
        name = f"{PARENT}/images/{DIGEST}"
        coming = await images.Stat(images_pb2.StatImageRequest(name=name))
        assert coming.state == images_pb2.Image.UPLOADING
        assert coming.uploaded_bytes > 0
    done = await sites.brought(request)
    assert (done.state, done.done_bytes) == (pb.Transfer.DONE, len(OCTETS)), done.message
    # However slow this machine is: never quicker.
    assert CLOCK.monotonic() - began_s > len(OCTETS) / (20 * BYTES_OF_A_MBIT) - BURST_S
    async with sites.broker() as transfers:
        assert await transfers.Get(HERE) == done
    async with sites.target.calling(sites.south.user("demo", "bob")) as images:
        assert await fetched(images, name=f"{PARENT}/images/a") == OCTETS
        image = await images.Stat(images_pb2.StatImageRequest(name=f"{PARENT}/images/a"))
        assert image.owner == "spiffe://south.site.intertie/broker"
    async with sites.target.calling(sites.south.user("other", "eve")) as images:
        others = images.Stat(
            images_pb2.StatImageRequest(name=f"sites/south/tenants/other/images/{DIGEST}")
        )
        assert isinstance(await refusal(others), errors.NotFound)


@pytest.mark.parametrize("killed", ["source", "target"])
async def test_it_goes_on_from_where_it_stood_when_one_is_killed(sites: Sites, killed: str) -> None:
    request = sites.request(sites.grant(mbit_s=10))
    came = await sites.arrived(request, 500_000)
    store = sites.source if killed == "source" else sites.target
    await store.end(signal.SIGKILL)
    if killed == "source":
        told = await sites.until(request, lambda told: told.state == pb.Transfer.WAITING)
        assert told.done_bytes >= came
        assert "north" in told.message
    await store.start()
    async with sites.broker() as transfers:
        kept = (await transfers.Bring(request)).done_bytes
    assert kept >= came
    done = await sites.brought(request)
    assert done.state == pb.Transfer.DONE, done.message
    async with sites.target.calling(sites.south.user("demo", "bob")) as images:
        assert await fetched(images, name=f"{PARENT}/images/a") == OCTETS


async def test_two_who_ask_for_one_have_one(sites: Sites) -> None:
    first = sites.request(sites.grant(mbit_s=20))
    second = sites.request(sites.grant(mbit_s=20, tx="t2"), image_id="b")
    third = sites.request(sites.grant(mbit_s=20, tx="t3"), image_id="")
    began_s = CLOCK.monotonic()
    async with sites.broker() as transfers:
        await transfers.Bring(first)
    for done in await asyncio.gather(*map(sites.brought, (first, second, third))):
        assert done.state == pb.Transfer.DONE, done.message
    # Each reservation has a rate of its own: had it come by two, it would have been quicker.
    assert CLOCK.monotonic() - began_s > len(OCTETS) / (20 * BYTES_OF_A_MBIT) - BURST_S
    async with sites.target.calling(sites.south.user("demo", "bob")) as images:
        listed = await images.List(images_pb2.ListImagesRequest(parent=PARENT))
        assert [each.name.rpartition("/")[2] for each in listed.images] == ["a", "b"]


async def test_a_grant_for_anything_else_is_refused(sites: Sites) -> None:
    good = sites.grant()
    past: datetime = good.begin_time - timedelta(hours=1)
    changed = sites.signed(good)
    changed.body = sites.signed(sites.grant(mbit_s=999)).body
    async with sites.peer() as north:
        for grant, why in (
            (sites.signed(good, sites.south), "no broker of north"),
            (changed, "signature"),
            (pb.TransferGrant(), "cannot be read"),
            (sites.signed(sites.grant(target_site="west")), "site west"),
            (sites.signed(sites.grant(source_site="west")), "store of west"),
            (sites.signed(sites.grant(begin_time=past, end_time=good.begin_time)), "run out"),
            (sites.signed(sites.grant(begin_time=good.end_time - timedelta(seconds=9))), "begins"),
        ):
            refused = await refusal(_sent(north, grant))
            assert isinstance(refused, errors.RoleDenied), refused
            assert why in refused.problem
        for missing in ({"digest": f"b3:{'0' * 64}"}, {"tenant": "other"}):
            absent = await refusal(_sent(north, sites.signed(sites.grant(**missing))))
            assert isinstance(absent, errors.NotFound)
        behind = await refusal(_sent(north, sites.signed(good), len(OCTETS) + 1))
        assert isinstance(behind, errors.OffsetMismatch)
        assert await _sent(north, sites.signed(good), 17) == OCTETS[17:]
    for caller in (
        sites.south.service("broker"),
        sites.south.user("demo", "bob"),
        sites.north.user("demo", "alice"),
        sites.north.service("agent/n1"),
    ):
        async with sites.source.calling(caller, TransfersStub) as north:
            denied = await refusal(_sent(north, sites.signed(good)))
            assert isinstance(denied, errors.RoleDenied)


async def test_who_trusts_a_peer_for_transfers_lets_it_do_nothing_else(sites: Sites) -> None:
    for caller in ("imagestore", "broker"):
        async with sites.source.calling(sites.south.service(caller)) as images:
            name = f"sites/north/tenants/demo/images/{DIGEST}"
            for call in (
                images.Stat(images_pb2.StatImageRequest(name=name)),
                images.Delete(images_pb2.DeleteImageRequest(name=name)),
                fetched(images, name=name),
            ):
                assert isinstance(await refusal(call), errors.RoleDenied)


async def test_a_bring_that_cannot_be_is_refused(sites: Sites) -> None:
    good = sites.grant()
    source = sites.request(good).source
    elsewhere = pb.TransferSource(
        site="north", addresses=source.addresses, server_name=sites.target.server_name
    )
    unknown = pb.TransferSource(site="north", addresses=source.addresses, server_name="x.example")
    async with sites.broker() as south:
        for request, field in (
            (sites.request(good, mbit_s=good.mbit_s + 1), "grant"),
            (sites.request(good, digest=f"b3:{'0' * 64}"), "grant"),
            (sites.request(good, parent="sites/south/tenants/other"), "grant"),
            (sites.request(good, grant=pb.TransferGrant(body=b"\xff")), "grant.body"),
            (sites.request(sites.grant(digest=""), digest="", image_id=""), "digest"),
            (sites.request(good, image_id="A"), "image_id"),
            (sites.request(good, parent="sites/north/tenants/demo"), "parent"),
            (sites.request(good, parent="sites/south/tenants/-"), "parent"),
            (sites.request(good, size_bytes=0), "size_bytes"),
            (sites.request(good, source=elsewhere), "source.server_name"),
            (sites.request(good, source=unknown), "source.server_name"),
            (sites.request(good, source=pb.TransferSource(site="north")), "source.addresses"),
        ):
            refused = await refusal(south.Bring(request))
            assert isinstance(refused, errors.FieldInvalid), refused
            assert refused.field == field
        unread = await refusal(south.Get(pb.GetTransferRequest(parent=PARENT, digest="b3:x")))
        assert isinstance(unread, errors.FieldInvalid)
    for caller in (
        sites.south.user("demo", "bob"),
        sites.south.service("imagestore"),
        sites.north.service("broker"),
        sites.north.service("imagestore"),
    ):
        async with sites.target.calling(caller, TransfersStub) as south:
            for call in (south.Bring(sites.request(good)), south.Get(HERE)):
                assert isinstance(await refusal(call), errors.RoleDenied)
    forged = await sites.brought(sites.request(good, sites.south))
    assert forged.state == pb.Transfer.FAILED
    assert "no broker of north" in forged.message
    assert (await sites.brought(sites.request(sites.grant(tx="t2")))).state == pb.Transfer.DONE


async def test_a_source_whose_bytes_are_damaged_is_given_up(sites: Sites) -> None:
    [blob] = sites.source.data.glob("blobs/b3/*/*")
    octets = bytearray(blob.read_bytes())
    octets[3_000_000] ^= 1
    blob.write_bytes(octets)
    failed = await sites.brought(sites.request(sites.grant()))
    assert (failed.state, failed.done_bytes) == (pb.Transfer.FAILED, 0)
    assert "digest" in failed.message
    async with sites.target.calling(sites.south.user("demo", "bob")) as images:
        listed = await images.List(images_pb2.ListImagesRequest(parent=PARENT))
        assert not listed.images
    assert not list(sites.target.data.glob("blobs/b3/*/*"))
    async with sites.source.calling(sites.north.user("demo", "alice")) as images:
        await put(images, frames())
    done = await sites.brought(sites.request(sites.grant(tx="t2")))
    assert done.state == pb.Transfer.DONE, done.message


async def _sent(transfers: Any, grant: pb.TransferGrant, offset: int = 0) -> bytes:
    got = b""
    call: grpc.aio.UnaryStreamCall[Any, Any] = transfers.Send(
        pb.SendRequest(grant=grant, offset=offset)
    )
    async for answer in call:
        assert len(answer.data) <= MESSAGE_BYTES
        assert answer.offset == offset + len(got)
        got += answer.data
    return got
