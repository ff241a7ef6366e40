"""Several holds in one call through the Parts API, on real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from intertie.api.broker.v1 import part_pb2, parts_pb2, parts_pb2_grpc
from intertie.common import errors
from intertie.common.clock import SystemClock
from intertie.common.rpc.errors import from_status
from intertie.common.rpc.spec_proto import timestamp_to_proto
from tests.integration.broker_meta import COORDINATOR
from tests.integration.broker_site import Site, hold, site
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain
from tests.integration.refusals import refusal

pytestmark = pytest.mark.etcd

CLOCK = SystemClock()


@pytest.fixture
async def here(
    tmp_path: Path,
    etcd_server: EtcdServer,
    etcd_prefix: str,
    north: TestDomain,
    south: TestDomain,
    meta: TestDomain,
) -> AsyncIterator[Site]:
    settings = etcd_server.settings(etcd_prefix)
    async with site(tmp_path, settings, north, (south, meta)) as up:
        yield up


@pytest.fixture
def parts(here: Site, meta: TestDomain) -> parts_pb2_grpc.PartsAsyncStub:
    return here.parts(meta.service("metasched"))


def batch(*requests: parts_pb2.HoldPartRequest) -> parts_pb2.BatchHoldPartsRequest:
    return parts_pb2.BatchHoldPartsRequest(requests=requests)


def far(number: int, *, vcpus: int = 1, prepare: bool = False) -> parts_pb2.HoldPartRequest:
    """In a window of its own."""
    request = hold(f"t{number}", CLOCK, COORDINATOR, vcpus=vcpus, start_in_s=7200.0 * number)
    request.prepare = prepare
    return request


async def _written_at(here: Site) -> list[int]:
    return [each.mod_revision for each in (await here.etcd.range("parts/")).entries]


async def test_holds_of_a_call_share_a_transaction(
    here: Site, parts: parts_pb2_grpc.PartsAsyncStub
) -> None:
    answer = await parts.BatchHold(batch(*(far(number, prepare=True) for number in range(16))))
    held = [each.held for each in answer.results]
    assert [each.part.name.rpartition("/")[2] for each in held] == [f"t{n}" for n in range(16)]
    assert {each.part.state for each in held} == {part_pb2.Part.PREPARED}
    for each in held:
        body = part_pb2.ReceiptBody.FromString(each.receipt.body)
        assert (body.part, body.state) == (each.part.name, part_pb2.Part.PREPARED)
    written = await _written_at(here)
    assert len(written) == 16
    assert len(set(written)) == 1


async def test_each_is_decided_by_itself_and_counts_for_the_next(
    here: Site, parts: parts_pb2_grpc.PartsAsyncStub
) -> None:
    """Two hosts of 4 vCPUs: the third finds none, the fourth is malformed, the fifth is at
    another time, and every one of them has its own answer in its place."""
    malformed = hold("bad", CLOCK, COORDINATOR)
    malformed.spec.workspaces[0].allocation.vcpus = 0
    same_time = [hold(tx, CLOCK, COORDINATOR, vcpus=4) for tx in ("a", "b", "c")]
    answer = await parts.BatchHold(batch(*same_time, malformed, far(1, vcpus=4)))
    assert [each.WhichOneof("result") for each in answer.results] == [
        "held", "held", "refusal", "refusal", "held",
    ]  # fmt: skip
    short, bad = (from_status(answer.results[at].refusal) for at in (2, 3))
    assert isinstance(short, errors.NoCapacity)
    assert "vcpus" in {each.resource for each in short.shortfalls}
    assert isinstance(bad, errors.FieldInvalid)
    assert bad.field == "spec.workspaces[0].allocation.vcpus"
    assert len(await _written_at(here)) == 3


async def test_the_same_call_again_holds_nothing_twice(
    here: Site, parts: parts_pb2_grpc.PartsAsyncStub
) -> None:
    """Part by part: also beside one that was not in the first call, and by Hold alone; and when
    copies of the call are under way at once."""
    asked = batch(far(1), far(2))
    copies = await asyncio.gather(*(parts.BatchHold(asked) for _ in range(4)))
    first = [each.held.part.expire_time for each in copies[0].results]
    assert all([e.held.part.expire_time for e in copy.results] == first for copy in copies)
    asked.requests.append(far(3))
    for each in asked.requests:
        each.coordinator_time.CopyFrom(timestamp_to_proto(CLOCK.now()))
    again = await parts.BatchHold(asked)
    assert [each.held.part.expire_time for each in again.results[:2]] == first
    assert (await parts.Hold(asked.requests[0])).part.expire_time == first[0]
    assert len(await _written_at(here)) == 3


async def test_another_body_under_a_used_request_id_is_refused_in_its_place(
    parts: parts_pb2_grpc.PartsAsyncStub,
) -> None:
    await parts.BatchHold(batch(far(1)))
    other = far(1, vcpus=2)
    answer = await parts.BatchHold(batch(other, far(2)))
    assert isinstance(from_status(answer.results[0].refusal), errors.RequestIdReuse)
    assert answer.results[1].held.part.state == part_pb2.Part.HELD


async def test_what_a_call_does_not_take_is_refused_whole(
    here: Site, parts: parts_pb2_grpc.PartsAsyncStub
) -> None:
    one, other = far(1), far(2)
    for asked, field in (
        (batch(), "requests"),
        (batch(*(far(number) for number in range(65))), "requests"),
        (batch(one, one), "requests[1].request_id"),
        (batch(one, hold("t1", CLOCK, COORDINATOR, request_id="r")), "requests[1].part_id"),
    ):
        error = await refusal(parts.BatchHold(asked))
        assert isinstance(error, errors.FieldInvalid)
        assert error.field == field
    other.spec.workspaces[0].environment.contextualization.user_data = b"x" * (257 << 10)
    error = await refusal(parts.BatchHold(batch(one, other)))
    assert isinstance(error, errors.FieldInvalid)
    assert error.field == "requests"
    assert await _written_at(here) == []


async def test_a_replica_that_does_not_lead_refuses_the_call_and_not_its_holds(
    here: Site, parts: parts_pb2_grpc.PartsAsyncStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers who know every replica then ask another one."""

    def follows() -> None:
        raise errors.NotLeading("another")

    monkeypatch.setattr(here.broker.election, "leader_guard", follows)
    assert isinstance(await refusal(parts.BatchHold(batch(far(1)))), errors.NotLeading)
