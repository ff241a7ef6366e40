"""Requests that a broker hands on, in the name of whom it vouches for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from intertie.api.cluster.v1 import clusters_pb2
from intertie.common import errors
from intertie.common.clock import SystemClock
from intertie.common.rpc import delegation
from intertie.common.rpc.identity import identity_of
from intertie.common.rpc.signing import Signer
from intertie.common.settings import TlsSettings
from tests.integration.pki import TestDomain, trust_in
from tests.integration.refusals import refusal
from tests.integration.rpc_service import (
    Clusters,
    calling,
    serving,
)


@pytest.fixture
async def metasched(
    north: TestDomain, south: TestDomain, meta: TestDomain, servicer: Clusters
) -> AsyncIterator[str]:
    async with serving(meta.service("metasched"), [meta, north, south], servicer) as address:
        yield address


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
