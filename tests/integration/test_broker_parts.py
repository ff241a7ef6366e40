"""A site's side of co-allocation through the Parts API, on real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from intertie.api.broker.v1 import part_pb2, parts_pb2, parts_pb2_grpc
from intertie.api.imagestore.v1 import transfers_pb2
from intertie.api.types.v1 import attach_pb2, resources_pb2
from intertie.common import errors
from intertie.common.clock import SystemClock
from intertie.common.rpc.spec_proto import timestamp_to_proto
from tests.integration.broker_meta import COORDINATOR, Meta, abort, commit, metasched, signed
from tests.integration.broker_site import DIGEST, Site, cluster_spec, create, hold, site
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain
from tests.integration.refusals import refusal

pytestmark = pytest.mark.etcd

CLOCK = SystemClock()
DIGEST_OF_ALL = "b3:" + "cd" * 32
OTHER = "b3:" + "77" * 32


@pytest.fixture
async def register(
    tmp_path: Path, meta: TestDomain, north: TestDomain, south: TestDomain
) -> AsyncIterator[Meta]:
    async with metasched(tmp_path, meta, (north, south)) as up:
        yield up


@pytest.fixture(scope="session")
def rival(tmp_path_factory: pytest.TempPathFactory) -> TestDomain:
    """Another meta-scheduler that the site trusts."""
    return TestDomain.create(tmp_path_factory.mktemp("pki"), "rival.meta.intertie")


@pytest.fixture
async def here(
    tmp_path: Path,
    etcd_server: EtcdServer,
    etcd_prefix: str,
    north: TestDomain,
    south: TestDomain,
    meta: TestDomain,
    rival: TestDomain,
    register: Meta,
) -> AsyncIterator[Site]:
    settings = etcd_server.settings(etcd_prefix)
    trusted = (south, meta, rival)
    async with site(tmp_path, settings, north, trusted, metascheds=(register.peer,)) as up:
        yield up


@pytest.fixture
def parts(here: Site, meta: TestDomain) -> parts_pb2_grpc.PartsAsyncStub:
    return here.parts(meta.service("metasched"))


def named(tx: str) -> str:
    return f"sites/north/tenants/demo/parts/{tx}"


async def prepared(parts: parts_pb2_grpc.PartsAsyncStub, tx: str) -> part_pb2.Receipt:
    await parts.Hold(hold(tx, CLOCK, COORDINATOR))
    answer = await parts.Prepare(parts_pb2.PreparePartRequest(name=named(tx)))
    assert answer.part.state == part_pb2.Part.PREPARED
    return answer.receipt


def of_south(tx: str, south: TestDomain, **changes: object) -> part_pb2.Receipt:
    body = part_pb2.ReceiptBody(
        tx=tx,
        digest=DIGEST_OF_ALL,
        site="south",
        part=f"sites/south/tenants/demo/parts/{tx}",
        state=part_pb2.Part.PREPARED,
        sign_time=timestamp_to_proto(CLOCK.now()),
        endpoints=[part_pb2.Endpoint(network="lan", address="10.250.0.12", port=4790, vni=7777)],
    )
    body.MergeFrom(part_pb2.ReceiptBody(**changes))  # type: ignore[arg-type]
    return signed(body, south)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        for _ in range(1000):
            if await condition():
                return
            await asyncio.sleep(0.05)


async def until(
    parts: parts_pb2_grpc.PartsAsyncStub, tx: str, state: part_pb2.Part.State.ValueType
) -> part_pb2.Part:
    async def reached() -> bool:
        found = await parts.Get(parts_pb2.GetPartRequest(name=named(tx)))
        return found.state == state

    await eventually(reached)
    return await parts.Get(parts_pb2.GetPartRequest(name=named(tx)))


async def test_hold_prepare_commit_and_release(
    here: Site, parts: parts_pb2_grpc.PartsAsyncStub, south: TestDomain
) -> None:
    asked = hold("t1", CLOCK, COORDINATOR)
    held = await parts.Hold(asked)
    assert held.part.state == part_pb2.Part.HELD
    assert held.part.workspaces[0].host in ("n1", "n2")
    asked.coordinator_time.CopyFrom(timestamp_to_proto(CLOCK.now()))
    again = await parts.Hold(asked)
    assert again.part.state == part_pb2.Part.HELD
    assert again.part.expire_time == held.part.expire_time

    answer = await parts.Prepare(parts_pb2.PreparePartRequest(name=named("t1")))
    [endpoint] = answer.part.endpoints
    assert (endpoint.network, endpoint.address, endpoint.port) == ("lan", "10.250.0.11", 4790)
    body = part_pb2.ReceiptBody.FromString(answer.receipt.body)
    assert (body.site, body.state, list(body.endpoints)) == (
        "north",
        part_pb2.Part.PREPARED,
        [endpoint],
    )
    pending = parts.Release(parts_pb2.ReleasePartRequest(name=named("t1")))
    assert isinstance(await refusal(pending), errors.DecisionPending)

    decision = commit("t1", DIGEST_OF_ALL, [answer.receipt, of_south("t1", south)])
    request = parts_pb2.ResolvePartRequest(name=named("t1"), decision=decision)
    assert (await parts.Resolve(request)).state == part_pb2.Part.CONFIRMED
    assert (await parts.Resolve(request)).state == part_pb2.Part.CONFIRMED

    async def ready() -> bool:
        found = await parts.Get(parts_pb2.GetPartRequest(name=named("t1")))
        return found.workspaces[0].ready

    await eventually(ready)
    at_gateway = next(each for (host, _), each in here.agents.wanted.items() if host == "n1")
    [network] = at_gateway.networks
    [wide] = network.wide_tunnels
    assert (wide.site, wide.address, wide.port, wide.vni) == ("south", "10.250.0.12", 4790, 7777)
    assert list(wide.macs) == ["02:00:00:00:00:02"]
    assert (wide.guarantee_mbit_s, wide.cap_mbit_s) == (10, 200)
    assert network.vni == endpoint.vni

    ending = await parts.Release(parts_pb2.ReleasePartRequest(name=named("t1"), reason="CANCELLED"))
    assert ending.HasField("end_requested_time")
    over = await until(parts, "t1", part_pb2.Part.ENDED)
    assert over.end_reason == "CANCELLED"
    assert not (await here.etcd.range("wanted/")).entries
    assert not (await here.etcd.range("vni/")).entries
    late = await refusal(parts.Hold(hold("t1", CLOCK, COORDINATOR, request_id="another")))
    assert isinstance(late, errors.NameTaken)


async def test_every_network_that_leaves_has_a_bridge_at_the_gateway(
    here: Site, parts: parts_pb2_grpc.PartsAsyncStub, south: TestDomain
) -> None:
    """Also where no workspace of the part is at the gateway's host."""
    receipt = await prepared(parts, "t1")
    [placed] = (await parts.Get(parts_pb2.GetPartRequest(name=named("t1")))).workspaces
    decision = commit("t1", DIGEST_OF_ALL, [receipt, of_south("t1", south)])
    await parts.Resolve(parts_pb2.ResolvePartRequest(name=named("t1"), decision=decision))

    async def both_told() -> bool:
        return {host for host, _ in here.agents.wanted} == {"n1", placed.host}

    await eventually(both_told)


async def test_an_abort_lets_go_at_once(here: Site, parts: parts_pb2_grpc.PartsAsyncStub) -> None:
    await prepared(parts, "t1")
    request = parts_pb2.ResolvePartRequest(name=named("t1"), decision=abort("t1"))
    assert (await parts.Resolve(request)).state == part_pb2.Part.RELEASED
    assert (await parts.Resolve(request)).state == part_pb2.Part.RELEASED
    assert not (await here.etcd.range("vni/")).entries
    again = parts.Prepare(parts_pb2.PreparePartRequest(name=named("t1")))
    assert isinstance(await refusal(again), errors.PartOver)


async def test_a_hold_expires_and_its_capacity_is_free_again(
    here: Site, parts: parts_pb2_grpc.PartsAsyncStub
) -> None:
    await parts.Hold(hold("t1", CLOCK, COORDINATOR, vcpus=4, ttl_s=1))
    await parts.Hold(hold("t2", CLOCK, COORDINATOR, vcpus=4, ttl_s=60))
    full = await refusal(parts.Hold(hold("t3", CLOCK, COORDINATOR, vcpus=4)))
    assert isinstance(full, errors.NoCapacity)
    await until(parts, "t1", part_pb2.Part.EXPIRED)
    late = parts.Prepare(parts_pb2.PreparePartRequest(name=named("t1")))
    assert isinstance(await refusal(late), errors.HoldExpired)
    await parts.Hold(hold("t3", CLOCK, COORDINATOR, vcpus=4, request_id="later"))
    released = await parts.Release(parts_pb2.ReleasePartRequest(name=named("t2")))
    assert released.state == part_pb2.Part.RELEASED


async def test_a_link_is_promised_only_once(parts: parts_pb2_grpc.PartsAsyncStub) -> None:
    await parts.Hold(hold("t1", CLOCK, COORDINATOR, link_mbit_s=150))
    refused = await refusal(parts.Hold(hold("t2", CLOCK, COORDINATOR, link_mbit_s=60)))
    assert isinstance(refused, errors.NoCapacity)
    assert {
        (each.resource, each.peer, each.wanted, each.available) for each in refused.shortfalls
    } == {
        ("link_egress", "south", 60, 50),
        ("link_ingress", "south", 60, 50),
    }
    later = hold("t3", CLOCK, COORDINATOR, link_mbit_s=60, start_in_s=3601)
    assert (await parts.Hold(later)).part.state == part_pb2.Part.HELD


async def test_a_link_is_promised_only_once_to_transfers_too(
    parts: parts_pb2_grpc.PartsAsyncStub,
) -> None:
    def brought(tx: str, mbit_s: int, after_s: int, **changes: str) -> parts_pb2.HoldPartRequest:
        request = hold(tx, CLOCK, COORDINATOR, start_in_s=600)
        begin = request.spec.window.start_time.ToDatetime() - timedelta(seconds=500 - after_s)
        item = request.spec.transfers.add(
            digest="b3:" + "77" * 32, size_bytes=1000, to_site="north", from_site="south"
        )
        item.mbit_s = mbit_s
        item.window.start_time.FromDatetime(begin)
        item.window.end_time.FromDatetime(begin + timedelta(seconds=100))
        for name, value in changes.items():
            setattr(item, name, value)
        return request

    await parts.Hold(brought("t1", 150, 0))
    refused = await refusal(parts.Hold(brought("t2", 60, 99)))
    assert isinstance(refused, errors.NoCapacity)
    assert [(each.resource, each.wanted, each.available) for each in refused.shortfalls] == [
        ("link_ingress", 60, 50)
    ]
    after = await parts.Hold(brought("t3", 60, 100))
    assert [each.mbit_s for each in after.part.spec.transfers] == [60]
    lost = await refusal(parts.Hold(brought("t4", 1, 0, from_site="north", to_site="south")))
    assert isinstance(lost, errors.ImageNotReady)
    late = brought("t6", 1, -200)
    assert isinstance(await refusal(parts.Hold(late)), errors.NoCapacity)
    strange = await refusal(parts.Hold(brought("t5", 1, 0, to_site="west")))
    assert isinstance(strange, errors.FieldInvalid)
    assert strange.field == "spec.transfers[0]"


async def test_other_terms_send_and_bring_while_the_window_lasts(
    parts: parts_pb2_grpc.PartsAsyncStub, south: TestDomain
) -> None:
    first = hold("t1", CLOCK, COORDINATOR)
    await parts.Hold(first)
    receipt = (await parts.Prepare(parts_pb2.PreparePartRequest(name=named("t1")))).receipt
    decision = commit("t1", DIGEST_OF_ALL, [receipt, of_south("t1", south)])
    await parts.Resolve(parts_pb2.ResolvePartRequest(name=named("t1"), decision=decision))

    asked = parts_pb2.HoldPartRequest()
    asked.CopyFrom(first)
    asked.tx = asked.request_id = "a1"
    asked.prepare = True
    asked.amend.replaces = 0
    asked.amend.SetInParent()
    begin = CLOCK.now() + timedelta(seconds=60)
    for digest, source, target in ((DIGEST, "north", "south"), (OTHER, "south", "north")):
        item = asked.spec.transfers.add(
            digest=digest, size_bytes=1000, from_site=source, to_site=target, mbit_s=40
        )
        item.window.start_time.FromDatetime(begin)
        item.window.end_time.FromDatetime(begin + timedelta(seconds=90))
    asked.coordinator_time.CopyFrom(timestamp_to_proto(CLOCK.now()))
    held = await parts.Hold(asked)
    assert held.part.amendment.state == part_pb2.Part.PREPARED
    assert not held.part.spec.transfers
    body = part_pb2.ReceiptBody.FromString(held.receipt.body)
    (sends,) = body.sends
    grant = transfers_pb2.TransferGrantBody.FromString(sends.grant.body)
    assert (grant.digest, grant.target_site, grant.tx) == (DIGEST, "south", "a1")

    theirs = of_south("a1", south, terms=1, part="sites/south/tenants/demo/parts/t1")
    decision = commit("a1", DIGEST_OF_ALL, [held.receipt, theirs])
    part = await parts.Resolve(parts_pb2.ResolvePartRequest(name=named("t1"), decision=decision))
    assert (part.terms, len(part.spec.transfers)) == (1, 2)
    sent = [each for each in part.price.terms if each.window == item.window]
    assert len(sent) == 2


async def test_a_part_in_doubt_asks_the_register_and_obeys(
    register: Meta, parts: parts_pb2_grpc.PartsAsyncStub, south: TestDomain
) -> None:
    request = hold("t1", CLOCK, COORDINATOR, decide_within_s=1)
    await parts.Hold(request)
    await parts.Prepare(parts_pb2.PreparePartRequest(name=named("t1")))
    second = hold("t2", CLOCK, COORDINATOR, decide_within_s=1)
    await parts.Hold(second)
    receipt = (await parts.Prepare(parts_pb2.PreparePartRequest(name=named("t2")))).receipt
    register.register.standing["t2"] = commit("t2", DIGEST_OF_ALL, [receipt, of_south("t2", south)])
    await until(parts, "t1", part_pb2.Part.RELEASED)
    await until(parts, "t2", part_pb2.Part.CONFIRMED)
    assert set(register.register.asked) == {"spiffe://north.site.intertie/broker"}


async def test_a_commit_must_carry_every_participants_own_receipt(
    parts: parts_pb2_grpc.PartsAsyncStub, south: TestDomain, north: TestDomain, meta: TestDomain
) -> None:
    ours = await prepared(parts, "t1")
    theirs = of_south("t1", south)
    forged = signed(part_pb2.ReceiptBody.FromString(theirs.body), north)
    by_another = signed(part_pb2.ReceiptBody.FromString(theirs.body), south, "imagestore")
    broken = part_pb2.Receipt(
        body=theirs.body, signature=ours.signature, certificate=theirs.certificate
    )
    bad = {
        "missing": commit("t1", DIGEST_OF_ALL, [ours]),
        "forged": commit("t1", DIGEST_OF_ALL, [ours, forged]),
        "no broker's": commit("t1", DIGEST_OF_ALL, [ours, by_another]),
        "broken": commit("t1", DIGEST_OF_ALL, [ours, broken]),
        "held only": commit(
            "t1", DIGEST_OF_ALL, [ours, of_south("t1", south, state=part_pb2.Part.HELD)]
        ),
        "other digest": commit(
            "t1", DIGEST_OF_ALL, [ours, of_south("t1", south, digest="b3:" + "00" * 32)]
        ),
        "other tx": commit("t2", DIGEST_OF_ALL, [ours, theirs]),
        "not the coordinator's": commit(
            "t1", DIGEST_OF_ALL, [ours, theirs], by="spiffe://north.site.intertie/broker"
        ),
    }
    for what, decision in bad.items():
        call = parts.Resolve(parts_pb2.ResolvePartRequest(name=named("t1"), decision=decision))
        assert isinstance(await refusal(call), errors.DecisionInvalid), what
    found = await parts.Get(parts_pb2.GetPartRequest(name=named("t1")))
    assert found.state == part_pb2.Part.PREPARED


async def test_what_a_hold_may_not_say(parts: parts_pb2_grpc.PartsAsyncStub) -> None:
    skewed = hold("t1", CLOCK, COORDINATOR)
    skewed.coordinator_time.FromDatetime(CLOCK.now() - timedelta(seconds=5))
    assert isinstance(await refusal(parts.Hold(skewed)), errors.ClockSkew)
    long = await refusal(parts.Hold(hold("t1", CLOCK, COORDINATOR, ttl_s=601)))
    assert isinstance(long, errors.FieldInvalid)
    assert long.field == "ttl"
    other = await refusal(parts.Hold(hold("t1", CLOCK, "spiffe://x.meta.intertie/metasched")))
    assert isinstance(other, errors.RoleDenied)
    absent = hold("t1", CLOCK, COORDINATOR)
    absent.spec.workspaces[0].environment.image = "b3:" + "00" * 32
    assert isinstance(await refusal(parts.Hold(absent)), errors.ImageNotReady)
    apart = await refusal(parts.Hold(hold("t1", CLOCK, COORDINATOR, participants=("south",))))
    assert isinstance(apart, errors.FieldInvalid)


async def test_users_may_not_touch_parts(here: Site, parts: parts_pb2_grpc.PartsAsyncStub) -> None:
    await parts.Hold(hold("t1", CLOCK, COORDINATOR))
    user = here.parts(here.domain.user("demo", "alice"))
    refused = await refusal(user.Release(parts_pb2.ReleasePartRequest(name=named("t1"))))
    assert isinstance(refused, errors.RoleDenied)


async def test_a_meta_scheduler_sees_only_the_parts_that_it_coordinates(
    here: Site, parts: parts_pb2_grpc.PartsAsyncStub, rival: TestDomain, north: TestDomain
) -> None:
    """A bug: any of them could read every part of every tenant, and open its consoles."""
    await parts.Hold(hold("t1", CLOCK, COORDINATOR))
    theirs = here.parts(rival.service("metasched"))
    await theirs.Hold(hold("t2", CLOCK, "spiffe://rival.meta.intertie/metasched"))
    local = await here.clusters().Create(create("one", cluster_spec(count=1), "r1"))
    operator = here.parts(north.operator("op"))

    async def listed(stub: parts_pb2_grpc.PartsAsyncStub, tenant: str) -> list[str]:
        request = parts_pb2.ListPartsRequest(parent=f"sites/north/tenants/{tenant}")
        return [each.name for each in (await stub.List(request)).parts]

    for tenant in ("-", "demo"):
        assert await listed(parts, tenant) == [named("t1")]
        assert await listed(theirs, tenant) == [named("t2")]
        assert await listed(operator, tenant) == [named(f"c{local.uid}"), named("t1"), named("t2")]
    for part_id in ("t1", f"c{local.uid}"):
        unseen = theirs.Get(parts_pb2.GetPartRequest(name=named(part_id)))
        assert isinstance(await refusal(unseen), errors.NotFound)
        seen = await operator.Get(parts_pb2.GetPartRequest(name=named(part_id)))
        assert seen.name == named(part_id)
        opened = attach_pb2.AttachRequest.Open(workspace=f"{named(part_id)}/workspaces/a-0")
        stream = theirs.Attach(iter([attach_pb2.AttachRequest(open=opened)]))
        refused = await refusal(anext(aiter(stream)))
        assert isinstance(refused, errors.NotFound)
        assert refused.name == named(part_id)
    for call in (
        theirs.Prepare(parts_pb2.PreparePartRequest(name=named("t1"))),
        theirs.Release(parts_pb2.ReleasePartRequest(name=named("t1"))),
        theirs.Resolve(parts_pb2.ResolvePartRequest(name=named("t1"), decision=abort("t1"))),
    ):
        assert isinstance(await refusal(call), errors.RoleDenied)


async def test_offers_say_what_is_free_over_each_window(
    parts: parts_pb2_grpc.PartsAsyncStub,
) -> None:
    held = await parts.Hold(hold("t1", CLOCK, COORDINATOR, vcpus=3, link_mbit_s=30))
    during = held.part.spec.window
    after = resources_pb2.Window(start_time=during.end_time)
    after.end_time.FromDatetime(during.end_time.ToDatetime() + timedelta(hours=1))
    request = parts_pb2.ListOffersRequest(
        parent="sites/north/tenants/demo", windows=[during, after], images=["guest", "nothing"]
    )
    first, second = (await parts.ListOffers(request)).offers
    assert sorted(each.vcpus for each in first.hosts) == [1, 4]
    assert sorted(each.vcpus for each in second.hosts) == [4, 4]
    assert (first.links[0].egress_mbit_s, second.links[0].egress_mbit_s) == (170, 200)
    assert first.links[0].latency.ToTimedelta() == timedelta(milliseconds=5)
    assert [each.digest for each in first.images] == [DIGEST, ""]
    assert first.tariff.vcpu_hour == 0.04
    listed = await parts.List(parts_pb2.ListPartsRequest(parent="sites/north/tenants/-"))
    assert [each.name for each in listed.parts] == [named("t1")]
