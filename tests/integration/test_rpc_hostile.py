"""Callers that vanish, crowd, send bombs or rubbish: the server keeps its memory and its pace."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from intertie.api.cluster.v1 import clusters_pb2, clusters_pb2_grpc
from intertie.common import errors
from intertie.common.rpc import server
from intertie.common.rpc.client import channel
from intertie.common.settings import TlsSettings
from tests.integration.pki import TestDomain, trust_in
from tests.integration.refusals import refusal
from tests.integration.rpc_process import ServerProcess, server_process
from tests.integration.rpc_service import (
    GET,
    NAME,
    Clusters,
    calling,
    opening_of,
    serving,
)
from tests.integration.wire import Wire, wire_to

MIB = 2**20
BOMB_MIB = 128
"""What a message of about 128 KiB on the wire unfolds to."""
CROWD = 200


@pytest.fixture
async def process(north: TestDomain) -> AsyncIterator[ServerProcess]:
    async with server_process(north) as up:
        yield up


@pytest.fixture
def alice(north: TestDomain) -> TlsSettings:
    return north.user("demo", "alice")


def options(monkeypatch: pytest.MonkeyPatch, **changed: int) -> None:
    """The server's own, but for these."""
    names = {f"grpc.{name}": value for name, value in changed.items()}
    http2 = {f"grpc.http2.{name}": value for name, value in changed.items()}
    found = dict(server._OPTIONS)
    found |= {name: value for name, value in {**names, **http2}.items() if name in found}
    assert found != dict(server._OPTIONS)
    monkeypatch.setattr(server, "_OPTIONS", list(found.items()))


def unbounded(address: str, domain: TestDomain, tls: TlsSettings) -> grpc.aio.Channel:
    """A channel that sends whatever it is given."""
    credentials = grpc.ssl_channel_credentials(
        domain.trust.roots.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes()
    )
    return grpc.aio.secure_channel(
        address,
        credentials,
        options=[
            ("grpc.ssl_target_name_override", domain.server_name("broker")),
            ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
        ],
    )


@pytest.mark.parametrize(
    ("size_mib", "compression"),
    [(5, grpc.Compression.NoCompression), (BOMB_MIB, grpc.Compression.Gzip)],
    ids=["5 MiB", "a gzip bomb"],
)
async def test_a_message_too_large_is_refused_and_takes_no_memory(
    process: ServerProcess,
    north: TestDomain,
    alice: TlsSettings,
    size_mib: int,
    compression: grpc.Compression,
) -> None:
    bomb = clusters_pb2.CreateClusterRequest(
        parent="-/tenants/demo", cluster_id="x" * (size_mib * MIB)
    )
    async with unbounded(process.address, north, alice) as link:
        stub = clusters_pb2_grpc.ClustersStub(link)
        small = clusters_pb2.CreateClusterRequest(parent="-/tenants/demo", cluster_id="x" * 1000)
        assert (await stub.Create(small, compression=compression)).name == "x" * 1000
        before = process.memory_mib()
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Create(bomb, compression=compression, timeout=60)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "larger than max" in (caught.value.details() or "")
        assert process.most_memory_mib() - before < 24
        assert (await stub.Get(GET)).name == NAME


def of_size(octets: int) -> clusters_pb2.CreateClusterRequest:
    """A request of so many bytes, to the byte."""
    request = clusters_pb2.CreateClusterRequest(parent="-/tenants/demo", cluster_id="x" * octets)
    request.cluster_id = "x" * (2 * octets - request.ByteSize())
    assert request.ByteSize() == octets
    return request


async def too_large(call: Any, side: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"{side} message larger than max" in (caught.value.details() or "")


LIST = clusters_pb2.ListClustersRequest(parent="-/tenants/demo")
"""Answered with 2 MB: less than what gRPC itself would take."""


async def test_a_server_takes_one_mebibyte_and_no_byte_more_and_answers_with_no_more(
    north: TestDomain, alice: TlsSettings
) -> None:
    async with (
        serving(north.service("broker"), [north], Clusters()) as address,
        unbounded(address, north, alice) as link,
    ):
        stub = clusters_pb2_grpc.ClustersStub(link)
        assert len((await stub.Create(of_size(MIB))).name) > MIB - 100
        await too_large(stub.Create(of_size(MIB + 1)), "Received")
        await too_large(stub.List(LIST), "Sent")


async def test_a_caller_sends_one_mebibyte_and_no_byte_more_and_takes_no_more(
    north: TestDomain, alice: TlsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    options(monkeypatch, max_receive_message_length=-1, max_send_message_length=-1)
    async with (
        serving(north.service("broker"), [north], Clusters()) as address,
        calling(address, alice, north) as clusters,
    ):
        assert len((await clusters.Create(of_size(MIB))).name) > MIB - 100
        await too_large(clusters.Create(of_size(MIB + 1)), "Sent")
        await too_large(clusters.List(LIST), "Received")


async def test_bytes_that_are_no_message_are_refused_as_such(
    north: TestDomain, alice: TlsSettings
) -> None:
    """The bug: gRPC answered UNKNOWN with the name of an exception, and to callers of any role."""
    service = "/intertie.api.cluster.v1.Clusters"
    async with serving(north.service("broker"), [north], Clusters()) as address:
        link: Any = channel(address, alice, trust_in(north), north.server_name("broker"))
        async with link:
            refused = await refusal(link.unary_unary(f"{service}/Create")(b"\xff\xff\xff"))
            assert isinstance(refused, errors.FieldInvalid)
            assert "send what the proto" in refused.problem
            stream: Any = link.unary_stream(f"{service}/Watch")(b"\xff")
            assert isinstance(await refusal(stream.read()), errors.FieldInvalid)
            attach: Any = link.stream_stream(f"{service}/Attach")()
            opened = opening_of(f"{NAME}/workspaces/w-0")
            await attach.write(opened.SerializeToString())
            assert await attach.read()
            await attach.write(b"\xff")
            assert isinstance(await refusal(attach.read()), errors.FieldInvalid)
            assert (await clusters_pb2_grpc.ClustersStub(link).Get(GET)).name == NAME
        nobody: Any = channel(
            address, north.service("agent/n1"), trust_in(north), north.server_name("broker")
        )
        async with nobody:
            denied = await refusal(nobody.unary_unary(f"{service}/Create")(b"\xff"))
            assert isinstance(denied, errors.RoleDenied)


async def test_two_hundred_idle_connections_cost_little_and_slow_nobody(
    process: ServerProcess, north: TestDomain, alice: TlsSettings
) -> None:
    trust, name = trust_in(north), north.server_name("broker")
    async with channel(process.address, alice, trust, name) as link:
        stub = clusters_pb2_grpc.ClustersStub(link)
        await _median_s(stub)
        before_s, memory, files = await _median_s(stub), process.memory_mib(), process.files()
        crowd = [channel(process.address, alice, trust, name) for _ in range(CROWD)]
        async with asyncio.timeout(60):
            await asyncio.gather(*(each.channel_ready() for each in crowd))
        assert process.files() - files == CROWD
        assert await _median_s(stub) < 3 * before_s
        assert (process.memory_mib() - memory) / CROWD < 0.25
        await asyncio.gather(*(each.close() for each in crowd))
        async with asyncio.timeout(10):
            await _until_files(process, files)


async def _median_s(stub: Any) -> float:
    """Of a hundred calls, in the quietest of three times: others use the machine too."""
    medians = []
    for _ in range(3):
        spans = []
        for _ in range(100):
            begin = time.perf_counter()
            await stub.Get(GET)
            spans.append(time.perf_counter() - begin)
        medians.append(statistics.median(spans))
    return min(medians)


async def _until_files(process: ServerProcess, files: int) -> None:
    while process.files() > files:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def test_who_connects_and_says_nothing_is_not_waited_for(
    north: TestDomain, alice: TlsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    options(monkeypatch, server_handshake_timeout_ms=300)
    async with serving(north.service("broker"), [north], Clusters()) as address:
        host, _, port = address.rpartition(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
        async with calling(address, alice, north) as clusters:
            assert (await clusters.Get(GET)).name == NAME
        async with asyncio.timeout(10):
            for reader, writer in silent:
                assert await reader.read() == b""
                writer.close()


async def test_an_idle_connection_is_closed_and_the_next_call_makes_another(
    north: TestDomain, alice: TlsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    options(monkeypatch, max_connection_idle_ms=1000)
    async with (
        serving(north.service("broker"), [north], Clusters()) as address,
        wire_to(address) as wire,
        calling(wire.address, alice, north) as clusters,
    ):
        await clusters.Get(GET)
        async with asyncio.timeout(10):
            await wire.ended.wait()
        assert (await clusters.Get(GET)).name == NAME


async def _streams(clusters: Any) -> tuple[Any, Any]:
    watch = clusters.Watch(clusters_pb2.WatchClusterRequest(name=NAME))
    assert (await watch.read()).name == NAME
    attach = clusters.Attach()
    await attach.write(opening_of(f"{NAME}/workspaces/w-0"))
    assert (await attach.read()).opened
    return watch, attach


class Ending(Clusters):
    """Knows how many streams' handlers are at work."""

    at_work = 0

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.at_work += 1
        try:
            async for each in super().Watch(request, context):
                yield each
        finally:
            self.at_work -= 1

    async def Attach(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        self.at_work += 1
        try:
            async for each in super().Attach(requests, context):
                yield each
        finally:
            self.at_work -= 1


@pytest.mark.parametrize("vanish", [Wire.cut, Wire.hold], ids=["reset", "silent"])
async def test_a_client_that_vanishes_in_a_stream_leaves_no_handler(
    north: TestDomain, alice: TlsSettings, monkeypatch: pytest.MonkeyPatch, vanish: Any
) -> None:
    """The bug: a silent peer was noticed after a minute, not 30 s, when a ping that measures
    bandwidth was the last thing it was sent."""
    options(monkeypatch, keepalive_time_ms=1000, keepalive_timeout_ms=500, ping_timeout_ms=500)
    servicer = Ending()
    async with (
        serving(north.service("broker"), [north], servicer) as address,
        wire_to(address) as wire,
        calling(wire.address, alice, north) as clusters,
        calling(address, alice, north) as other,
    ):
        streams = await _streams(clusters)
        assert servicer.at_work == 2
        vanish(wire)
        async with asyncio.timeout(20):
            while servicer.at_work:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert (await other.Get(GET)).name == NAME
        for each in streams:
            each.cancel()
