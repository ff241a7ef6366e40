"""The envelope of every call, over real TLS: who may call what, and what failures look like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.api.types.v1 import attach_pb2
from intertie.common import errors
from intertie.common.clock import SystemClock
from intertie.common.rpc import attach, calls, delegation
from intertie.common.rpc.client import channel, to_domain_error
from intertie.common.rpc.identity import Identity, current_identity, identity_of
from intertie.common.rpc.server import ListenFailed, Server
from intertie.common.rpc.signing import Signer
from intertie.common.settings import ListenSettings, TlsSettings, TrustSettings
from tests.integration.pki import TestDomain, trust_in

Behaviour = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Settings:
    listen: ListenSettings
    tls: TlsSettings
    trust: tuple[TrustSettings, ...]


class Clusters(clusters_pb2_grpc.ClustersServicer):
    """Answers with what the test put into `get` and so on; remembers who called."""

    def __init__(self) -> None:
        self.callers: list[Identity] = []
        self.get: Callable[[], Any] = lambda: None
        self.cancelled = asyncio.Event()
        self.called = asyncio.Event()

    async def Create(self, request: Any, context: Any) -> cluster_pb2.Cluster:
        self.callers.append(current_identity())
        return cluster_pb2.Cluster(name=request.cluster_id)

    async def Get(self, request: Any, context: Any) -> cluster_pb2.Cluster:
        self.callers.append(current_identity())
        self.called.set()
        result = self.get()
        if asyncio.iscoroutine(result):
            await result
        return cluster_pb2.Cluster(name=request.name)

    async def List(self, request: Any, context: Any) -> clusters_pb2.ListClustersResponse:
        return clusters_pb2.ListClustersResponse(next_page_token="x" * 2_000_000)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[cluster_pb2.Cluster]:
        yield cluster_pb2.Cluster(name=request.name)
        try:
            self.get()
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def Delete(self, request: Any, context: Any) -> cluster_pb2.Cluster:
        return cluster_pb2.Cluster(name=request.name)

    async def Attach(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        """Echoes; the caller's end is answered by an end."""
        try:
            opened = await attach.opening(requests)
            if opened.port == 1:
                raise errors.ConnectionRefused(opened.workspace, 1)
            yield attach_pb2.AttachResponse(opened=True)
            async for request in requests:
                yield attach_pb2.AttachResponse(data=request.data)
            yield attach_pb2.AttachResponse(end=True)
        finally:
            self.cancelled.set()


@asynccontextmanager
async def serving(
    tls: TlsSettings, trusted: list[TestDomain], servicer: Any, address: str = "127.0.0.1:0"
) -> AsyncIterator[str]:
    settings = Settings(
        ListenSettings(addresses=(address,)), tls, tuple(domain.trust for domain in trusted)
    )
    registration: Any = (
        clusters_pb2_grpc.add_ClustersServicer_to_server,
        servicer,
        clusters_pb2.DESCRIPTOR.services_by_name["Clusters"],
    )
    server = Server(settings, SystemClock(), [registration])
    await server.start()
    try:
        yield address if address.startswith("unix:") else f"127.0.0.1:{server.ports[0]}"
    finally:
        await server.stop(0)


@pytest.fixture
def servicer() -> Clusters:
    return Clusters()


@pytest.fixture
async def broker(
    north: TestDomain, south: TestDomain, meta: TestDomain, servicer: Clusters
) -> AsyncIterator[str]:
    async with serving(north.service("broker"), [north, south, meta], servicer) as address:
        yield address


@pytest.fixture
async def metasched(
    north: TestDomain, south: TestDomain, meta: TestDomain, servicer: Clusters
) -> AsyncIterator[str]:
    async with serving(meta.service("metasched"), [meta, north, south], servicer) as address:
        yield address


@asynccontextmanager
async def calling(
    address: str, tls: TlsSettings, domain: TestDomain, service: str = "broker"
) -> AsyncIterator[Any]:
    link = channel(address, tls, trust_in(domain), domain.server_name(service))
    async with link:
        yield clusters_pb2_grpc.ClustersStub(link)


NAME = "sites/north/tenants/demo/clusters/a"
GET = clusters_pb2.GetClusterRequest(name=NAME)


async def refusal(call: Any) -> errors.DomainError | None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return to_domain_error(caught.value)


async def test_a_user_of_the_site_is_known_by_its_certificate(
    broker: str, north: TestDomain, servicer: Clusters
) -> None:
    async with calling(broker, north.user("demo", "alice"), north) as clusters:
        answer = await clusters.Get(GET)
    assert answer.name == NAME
    [caller] = servicer.callers
    assert caller.spiffe == "spiffe://north.site.intertie/tenant/demo/user/alice"
    assert (caller.tenant, caller.name) == ("demo", "alice")


async def test_works_over_a_unix_socket(
    north: TestDomain, servicer: Clusters, tmp_path: Any
) -> None:
    address = f"unix:{tmp_path}/broker.sock"
    async with (
        serving(north.service("broker"), [north], servicer, address) as where,
        calling(where, north.user("demo", "alice"), north) as clusters,
    ):
        assert (await clusters.Get(GET)).name == NAME


async def test_a_foreign_authority_does_not_get_past_tls(
    broker: str, north: TestDomain, tmp_path: Any
) -> None:
    stranger = TestDomain.create(tmp_path, "evil.site.intertie")
    tls = stranger.issue("spiffe://north.site.intertie/tenant/demo/user/alice")
    async with calling(broker, tls, north) as clusters:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await clusters.Get(GET, timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_trusted_root_does_not_speak_for_another_domain(
    broker: str, north: TestDomain, south: TestDomain, servicer: Clusters
) -> None:
    forged = south.issue("spiffe://north.site.intertie/tenant/demo/user/alice")
    async with calling(broker, forged, north) as clusters:
        assert isinstance(await refusal(clusters.Get(GET)), errors.IdentityUnknown)
    assert servicer.callers == []


async def test_a_peers_user_is_nobody_here(
    broker: str, north: TestDomain, south: TestDomain
) -> None:
    async with calling(broker, south.user("demo", "alice"), north) as clusters:
        assert isinstance(await refusal(clusters.Get(GET)), errors.RoleDenied)


async def test_a_server_of_another_domain_is_not_taken_for_ours(
    north: TestDomain, south: TestDomain, servicer: Clusters
) -> None:
    pretender = south.issue(
        "spiffe://south.site.intertie/broker", dns=("broker.north.site.intertie",)
    )
    async with serving(pretender, [south, north], servicer) as address:
        link = channel(
            address, north.user("demo", "a"), trust_in(north, south), "broker.north.site.intertie"
        )
        async with link:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await clusters_pb2_grpc.ClustersStub(link).Get(GET, timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("path", ["agent/n1", "imagestore", "broker"])
async def test_the_wrong_role_is_refused(broker: str, north: TestDomain, path: str) -> None:
    async with calling(broker, north.service(path), north) as clusters:
        assert isinstance(await refusal(clusters.Get(GET)), errors.RoleDenied)


async def test_another_tenant_is_refused(broker: str, north: TestDomain) -> None:
    async with calling(broker, north.user("other", "eve"), north) as clusters:
        assert isinstance(await refusal(clusters.Get(GET)), errors.RoleDenied)
        listing = clusters_pb2.ListClustersRequest(parent="sites/north/tenants/-")
        assert isinstance(await refusal(clusters.List(listing)), errors.RoleDenied)
        stream = clusters.Attach(_attach_requests(f"{NAME}/workspaces/w-0"))
        assert isinstance(await refusal(stream.read()), errors.RoleDenied)


async def test_an_operator_reads_any_tenant_and_creates_nothing(
    broker: str, north: TestDomain
) -> None:
    async with calling(broker, north.operator("root"), north) as clusters:
        assert (await clusters.Get(GET)).name == NAME
        create = clusters_pb2.CreateClusterRequest(parent="-/tenants/demo", cluster_id="a")
        assert isinstance(await refusal(clusters.Create(create)), errors.RoleDenied)


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


async def test_a_unary_call_without_deadline_is_bounded(
    broker: str, north: TestDomain, servicer: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "UNARY_DEADLINE_S", 0.2)
    servicer.get = lambda: asyncio.Event().wait()
    async with calling(broker, north.user("demo", "alice"), north) as clusters:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await clusters.Get(GET)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_cancelled_stream_ends_its_handler(
    broker: str, north: TestDomain, servicer: Clusters
) -> None:
    async with calling(broker, north.user("demo", "alice"), north) as clusters:
        stream = clusters.Watch(clusters_pb2.WatchClusterRequest(name=NAME))
        await stream.read()
        stream.cancel()
        async with asyncio.timeout(5):
            await servicer.cancelled.wait()


async def test_messages_above_one_mebibyte_are_refused_both_ways(
    broker: str, north: TestDomain
) -> None:
    async with calling(broker, north.user("demo", "alice"), north) as clusters:
        parent = "-/tenants/demo"
        big = clusters_pb2.CreateClusterRequest(parent=parent, cluster_id="x" * 5 * 1024 * 1024)
        for call in (
            clusters.Create(big),
            clusters.List(clusters_pb2.ListClustersRequest(parent=parent)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


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
    settings = Settings(
        ListenSettings(addresses=("127.0.0.1:0",)), north.service("broker"), (north.trust,)
    )
    registration: Any = (
        clusters_pb2_grpc.add_ClustersServicer_to_server,
        servicer,
        clusters_pb2.DESCRIPTOR.services_by_name["Clusters"],
    )
    server = Server(settings, SystemClock(), [registration])
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


async def test_a_broker_hands_on_a_users_request(
    metasched: str, meta: TestDomain, north: TestDomain, servicer: Clusters
) -> None:
    request, metadata, tls = _handed_on(north, "demo")
    async with calling(metasched, tls, meta, "metasched") as clusters:
        await clusters.Create(request, metadata=metadata)
    [caller] = servicer.callers
    assert caller.spiffe == "spiffe://north.site.intertie/broker"
    assert caller.caller == "spiffe://north.site.intertie/tenant/demo/user/alice"
    assert caller.own_tenant == "demo"


async def test_a_broker_may_not_speak_for_itself_nor_change_the_request(
    metasched: str, meta: TestDomain, north: TestDomain, south: TestDomain
) -> None:
    request, metadata, tls = _handed_on(north, "demo")
    changed = clusters_pb2.CreateClusterRequest(parent=request.parent, cluster_id="b")
    other = clusters_pb2.CreateClusterRequest(parent="-/tenants/other", cluster_id="a")
    async with calling(metasched, tls, meta, "metasched") as clusters:
        assert isinstance(await refusal(clusters.Create(request)), errors.RoleDenied)
        assert isinstance(
            await refusal(clusters.Create(changed, metadata=metadata)), errors.IdentityUnknown
        )
        _, for_other, _ = _handed_on(north, "demo", other)
        assert isinstance(
            await refusal(clusters.Create(other, metadata=for_other)), errors.RoleDenied
        )
    async with calling(metasched, south.service("broker"), meta, "metasched") as clusters:
        assert isinstance(
            await refusal(clusters.Create(request, metadata=metadata)), errors.IdentityUnknown
        )


async def test_a_sites_operator_reaches_nothing_beyond_the_site(
    metasched: str, meta: TestDomain, north: TestDomain, servicer: Clusters
) -> None:
    """The bug: a request that was handed on for an operator was bound to no tenant, so that any
    site's operator could read and end every tenant's clusters."""
    tls, operator = north.service("broker"), north.operator("root")
    now = SystemClock().now()
    root = identity_of(operator.certificate.read_bytes(), trust_in(north), now=now)
    name = "metascheds/meta/tenants/demo/clusters/a"
    async with calling(metasched, tls, meta, "metasched") as clusters:
        for method, request in (
            (clusters.Get, clusters_pb2.GetClusterRequest(name=name)),
            (clusters.List, clusters_pb2.ListClustersRequest(parent="-/tenants/-")),
            (clusters.Watch, clusters_pb2.WatchClusterRequest(name=name)),
            (clusters.Delete, clusters_pb2.DeleteClusterRequest(name=name)),
        ):
            metadata = delegation.vouch(
                Signer.load(tls), root, request, audience="meta.meta.intertie", now=now
            )
            call = method(request, metadata=metadata)
            denied = await refusal(call.read() if method is clusters.Watch else call)
            assert isinstance(denied, errors.RoleDenied)
            assert denied.identity == root.spiffe
            assert "its own operator" in denied.problem
    assert servicer.callers == []
    async with calling(metasched, meta.operator("root"), meta, "metasched") as clusters:
        assert (await clusters.Get(clusters_pb2.GetClusterRequest(name=name))).name == name


async def test_a_broker_takes_nothing_that_is_handed_on(
    broker: str, north: TestDomain, south: TestDomain
) -> None:
    request, metadata, tls = _handed_on(south, "demo")
    async with calling(broker, tls, north) as clusters:
        call = clusters.Create(request, metadata=metadata)
        assert isinstance(await refusal(call), errors.IdentityUnknown)


class Relaying(Clusters):
    """Relays every Attach to another server."""

    def __init__(self, onward: Any) -> None:
        super().__init__()
        self._onward = onward

    async def Attach(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        opened = await attach.opening(requests)
        async for response in attach.relay(opened, requests, self._onward.Attach):
            yield response


async def test_a_relayed_stream_carries_bytes_half_closes_and_is_cancelled(
    broker: str, north: TestDomain, servicer: Clusters
) -> None:
    alice = north.user("demo", "alice")
    name = f"{NAME}/workspaces/w-0"
    async with (
        calling(broker, alice, north) as onward,
        serving(north.service("broker"), [north], Relaying(onward)) as relay,
        calling(relay, alice, north) as clusters,
    ):
        blocks = [bytes([k % 251]) * 65536 for k in range(64)]
        stream = clusters.Attach(_attach_requests(name, blocks))
        answers = [answer async for answer in stream]
        assert answers[0].opened
        assert b"".join(answer.data for answer in answers) == b"".join(blocks)
        assert answers[-1].end

        refused = clusters.Attach(_attach_requests(name, port=1))
        assert isinstance(await refusal(refused.read()), errors.ConnectionRefused)

        servicer.cancelled.clear()
        held = clusters.Attach()
        await held.write(_open(name))
        assert (await held.read()).opened
        held.cancel()
        async with asyncio.timeout(5):
            await servicer.cancelled.wait()


async def test_a_relay_holds_back_a_sender_whose_receiver_does_not_read(
    north: TestDomain,
) -> None:
    """Memory stays bounded: far fewer bytes are taken than are offered."""

    class Deaf(Clusters):
        async def Attach(self, requests: Any, context: Any) -> AsyncIterator[Any]:
            await attach.opening(requests)
            yield attach_pb2.AttachResponse(opened=True)
            await asyncio.Event().wait()

    alice = north.user("demo", "alice")
    async with (
        serving(north.service("broker"), [north], Deaf()) as deaf,
        calling(deaf, alice, north) as onward,
        serving(north.service("broker"), [north], Relaying(onward)) as relay,
        calling(relay, alice, north) as clusters,
    ):
        stream = clusters.Attach()
        opened = _open(f"{NAME}/workspaces/w-0")
        await stream.write(opened)
        assert (await stream.read()).opened
        taken = 0

        async def flood() -> None:
            nonlocal taken
            while taken < 256:
                await stream.write(attach_pb2.AttachRequest(data=b"x" * 65536))
                taken += 1

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flood(), 2)
        assert taken < 256


async def _result(call: Any) -> Any:
    return await call


def _open(workspace: str, port: int = 0) -> attach_pb2.AttachRequest:
    opened = attach_pb2.AttachRequest.Open(workspace=workspace, port=port)
    return attach_pb2.AttachRequest(open=opened)


async def _attach_requests(
    workspace: str, blocks: list[bytes] | None = None, port: int = 0
) -> AsyncIterator[attach_pb2.AttachRequest]:
    yield _open(workspace, port)
    for block in blocks or ():
        yield attach_pb2.AttachRequest(data=block)


def _handed_on(
    site: TestDomain, tenant: str, request: Any = None
) -> tuple[clusters_pb2.CreateClusterRequest, Any, TlsSettings]:
    """A request of that site's alice, the broker's token for it, and the broker's certificate."""
    tls, user = site.service("broker"), site.user(tenant, "alice")
    now = SystemClock().now()
    alice = identity_of(user.certificate.read_bytes(), trust_in(site), now=now)
    request = request or clusters_pb2.CreateClusterRequest(
        parent=f"-/tenants/{tenant}", cluster_id="a"
    )
    metadata = delegation.vouch(
        Signer.load(tls), alice, request, audience="meta.meta.intertie", now=now
    )
    return request, metadata, tls
