"""The envelope of every call: errors, deadlines, sizes, health, and how a server ends."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from intertie.api.cluster.v1 import clusters_pb2
from intertie.common import errors, logs
from intertie.common.clock import SystemClock
from intertie.common.rpc import calls
from intertie.common.rpc.client import channel
from intertie.common.rpc.server import ListenFailed, Server
from intertie.common.settings import ListenSettings
from tests.integration.pki import TestDomain, trust_in
from tests.integration.refusals import refusal
from tests.integration.rpc_service import (
    GET,
    NAME,
    Clusters,
    Settings,
    calling,
    server_of,
)


async def test_errors_keep_their_fields_on_the_way(
    broker: str, north: TestDomain, servicer: Clusters
) -> None:
    short = errors.Shortfall(site="north", resource="vcpus", wanted=8, available=3, message="x")

    def full() -> None:
        raise errors.NoCapacity((short,))

    servicer.get = full
    async with calling(broker, north.user("demo", "alice"), north) as clusters:
        error = await refusal(clusters.Get(GET))
        assert isinstance(error, errors.NoCapacity)
        assert error.shortfalls == (short,)
        stream = clusters.Watch(clusters_pb2.WatchClusterRequest(name=NAME))
        assert (await stream.read()).name == NAME
        assert isinstance(await refusal(stream.read()), errors.NoCapacity)


async def test_a_bug_is_internal_and_says_nothing_but_the_request_id(
    broker: str, north: TestDomain, servicer: Clusters
) -> None:
    def bug() -> None:
        raise KeyError("secret")

    servicer.get = bug
    async with calling(broker, north.user("demo", "alice"), north) as clusters:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await clusters.Get(GET, metadata=(("intertie-request-id", "abc-1"),))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "internal error, request abc-1"
    assert dict(caught.value.trailing_metadata() or ())["intertie-request-id"] == "abc-1"


@contextmanager
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Calls are logged as in a service, on stderr; afterwards as before."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure("broker")
    try:
        with monkeypatch.context() as patched:
            # One of its own: a logger keeps what it was first used with.
            patched.setattr(calls, "log", structlog.get_logger())
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()


async def test_what_is_logged_of_a_call_has_its_request_id_its_method_and_its_caller(
    broker: str,
    north: TestDomain,
    servicer: Clusters,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    both = asyncio.Barrier(2)

    async def fail() -> None:
        await both.wait()
        raise KeyError("a bug")

    servicer.get = fail
    with logged(monkeypatch):
        async with (
            calling(broker, north.user("demo", "alice"), north) as alice,
            calling(broker, north.user("demo", "bob"), north) as bob,
        ):
            # At work at the same time, and neither has the other's.
            at_once = [
                stub.Get(GET, metadata=(("intertie-request-id", request_id),))
                for stub, request_id in ((alice, "abc-1"), (bob, "abc-2"))
            ]
            await asyncio.gather(*map(_result, at_once), return_exceptions=True)

            def refuse() -> None:
                raise errors.NotFound(NAME)

            servicer.get = refuse
            refused = alice.Get(GET)
            assert isinstance(await refusal(refused), errors.NotFound)
            drawn = dict(await refused.trailing_metadata())["intertie-request-id"]
    written = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    lines = [each for each in written if each["event"].startswith("call.")]
    assert drawn
    assert sorted((each["event"], each["request_id"], each["caller"]) for each in lines) == [
        ("call.failed", "abc-1", "spiffe://north.site.intertie/tenant/demo/user/alice"),
        ("call.failed", "abc-2", "spiffe://north.site.intertie/tenant/demo/user/bob"),
        ("call.refused", drawn, "spiffe://north.site.intertie/tenant/demo/user/alice"),
    ]
    assert {each["method"] for each in lines} == {"/intertie.api.cluster.v1.Clusters/Get"}
    assert {each["service"] for each in lines} == {"broker"}


async def test_a_unary_call_without_deadline_is_bounded(
    broker: str, north: TestDomain, servicer: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "UNARY_DEADLINE_S", 0.2)
    servicer.get = lambda: asyncio.Event().wait()
    async with calling(broker, north.user("demo", "alice"), north) as clusters:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await clusters.Get(GET)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_health_and_reflection_are_for_anyone_trusted(
    broker: str, north: TestDomain, south: TestDomain
) -> None:
    link = channel(broker, south.service("agent/s1"), trust_in(north), north.server_name("broker"))
    async with link:
        health = health_pb2_grpc.HealthStub(link)
        name = "intertie.api.cluster.v1.Clusters"
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = health.Watch(health_pb2.HealthCheckRequest(service=name))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        reflection = reflection_pb2_grpc.ServerReflectionStub(link)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        found = await reflection.ServerReflectionInfo(iter([request])).read()
        assert name in {each.name for each in found.list_services_response.service}


async def test_a_stopping_server_lets_calls_end_and_takes_no_more(
    north: TestDomain, servicer: Clusters
) -> None:
    server = server_of(north.service("broker"), [north], servicer)
    await server.start()
    release = asyncio.Event()
    servicer.get = lambda: release.wait()
    address = f"127.0.0.1:{server.ports[0]}"
    async with calling(address, north.user("demo", "alice"), north) as clusters:
        at_work = asyncio.ensure_future(_result(clusters.Get(GET)))
        async with asyncio.timeout(5):
            await servicer.called.wait()
        stopping = asyncio.create_task(server.stop(10))
        await asyncio.sleep(0.1)
        with pytest.raises(grpc.aio.AioRpcError):
            await clusters.Get(GET, timeout=2)
        release.set()
        assert (await at_work).name == NAME
        async with asyncio.timeout(5):
            await stopping


async def test_a_port_that_is_taken_is_an_error(north: TestDomain, broker: str) -> None:
    settings = Settings(
        ListenSettings(addresses=(broker,)), north.service("broker"), (north.trust,)
    )
    with pytest.raises(ListenFailed):
        await Server(settings, SystemClock(), []).start()


async def _result(call: Any) -> Any:
    return await call
