"""Who may call what, over real TLS."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
import pytest

from intertie.api.cluster.v1 import clusters_pb2, clusters_pb2_grpc
from intertie.common import errors
from intertie.common.clock import SystemClock
from intertie.common.rpc.client import channel
from tests.integration.pki import TestDomain, trust_in
from tests.integration.refusals import refusal
from tests.integration.rpc_service import (
    GET,
    NAME,
    Clusters,
    attach_requests,
    calling,
    serving,
)


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


async def test_an_expired_certificate_does_not_get_past_tls(
    broker: str, north: TestDomain, servicer: Clusters
) -> None:
    expired = north.issue(
        "spiffe://north.site.intertie/tenant/demo/user/late", lifetime=timedelta(minutes=-1)
    )
    async with calling(broker, expired, north) as clusters:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await clusters.Get(GET, timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert servicer.callers == []


async def test_an_expired_server_is_not_believed(
    tmp_path: Any, servicer: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have ended while the server ran."""
    north = TestDomain.create(tmp_path, "north.site.intertie")
    ended = north.issue(
        "spiffe://north.site.intertie/broker",
        dns=(north.server_name("broker"),),
        lifetime=timedelta(minutes=-1),
    )
    before = SystemClock().now() - timedelta(minutes=3)
    monkeypatch.setattr(SystemClock, "now", lambda _: before)
    async with (
        serving(ended, [north], servicer) as address,
        calling(address, north.user("demo", "alice"), north) as clusters,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await clusters.Get(GET, timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "certificate has expired" in (caught.value.details() or "")


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
        stream = clusters.Attach(attach_requests(f"{NAME}/workspaces/w-0"))
        assert isinstance(await refusal(stream.read()), errors.RoleDenied)


async def test_an_operator_reads_any_tenant_and_creates_nothing(
    broker: str, north: TestDomain
) -> None:
    async with calling(broker, north.operator("root"), north) as clusters:
        assert (await clusters.Get(GET)).name == NAME
        create = clusters_pb2.CreateClusterRequest(parent="-/tenants/demo", cluster_id="a")
        assert isinstance(await refusal(clusters.Create(create)), errors.RoleDenied)
