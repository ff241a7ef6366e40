"""Default deny, own domain, own tenant."""

from __future__ import annotations

from typing import Any

import pytest

from intertie.api.cluster.v1 import clusters_pb2
from intertie.api.imagestore.v1 import images_pb2
from intertie.api.types.v1 import attach_pb2
from intertie.common.errors import FieldInvalid, RoleDenied
from intertie.common.rpc.access import check_role, check_tenant, tenant_in
from intertie.common.rpc.identity import OnBehalfOf, parse_spiffe
from intertie.common.values import replace

NORTH, SOUTH, META = "north.site.intertie", "south.site.intertie", "meta.meta.intertie"
CLUSTERS, PARTS = "/intertie.api.cluster.v1.Clusters", "/intertie.api.broker.v1.Parts"
IMAGES, AGENT = "/intertie.api.imagestore.v1.Images", "/intertie.api.nodeagent.v1.NodeAgent"


def allowed(method: str, spiffe: str, own: str, *, behalf: str = "") -> bool:
    identity = parse_spiffe(spiffe)
    if behalf:
        identity = replace(identity, on_behalf_of=OnBehalfOf(spiffe=behalf, tenant="demo"))
    try:
        check_role(method, identity, own)
    except RoleDenied:
        return False
    return True


@pytest.mark.parametrize(
    ("method", "spiffe", "own", "expected"),
    [
        (f"{CLUSTERS}/Create", f"spiffe://{NORTH}/tenant/demo/user/a", NORTH, True),
        (f"{CLUSTERS}/Create", f"spiffe://{SOUTH}/tenant/demo/user/a", NORTH, False),
        (f"{CLUSTERS}/Create", f"spiffe://{NORTH}/operator/a", NORTH, False),
        (f"{CLUSTERS}/Delete", f"spiffe://{NORTH}/operator/a", NORTH, True),
        (f"{CLUSTERS}/Delete", f"spiffe://{SOUTH}/operator/a", NORTH, False),
        (f"{CLUSTERS}/Get", f"spiffe://{NORTH}/broker", META, False),
        (f"{CLUSTERS}/Get", f"spiffe://{META}/metasched", NORTH, False),
        (f"{PARTS}/Hold", f"spiffe://{META}/metasched", NORTH, True),
        (f"{PARTS}/Hold", f"spiffe://{NORTH}/operator/a", NORTH, False),
        (f"{PARTS}/Hold", f"spiffe://{NORTH}/tenant/demo/user/a", NORTH, False),
        (f"{PARTS}/Get", f"spiffe://{NORTH}/operator/a", NORTH, True),
        (f"{AGENT}/Attach", f"spiffe://{NORTH}/broker", NORTH, True),
        (f"{AGENT}/Attach", f"spiffe://{SOUTH}/broker", NORTH, False),
        (f"{IMAGES}/Fetch", f"spiffe://{NORTH}/agent/n1", NORTH, True),
        (f"{IMAGES}/Fetch", f"spiffe://{SOUTH}/agent/s1", NORTH, False),
        (f"{IMAGES}/Put", f"spiffe://{NORTH}/agent/n1", NORTH, True),
        (f"{IMAGES}/Put", f"spiffe://{SOUTH}/agent/n1", NORTH, False),
        (f"{IMAGES}/Stat", f"spiffe://{META}/metasched", NORTH, True),
        ("/grpc.health.v1.Health/Check", f"spiffe://{SOUTH}/agent/s1", NORTH, True),
        ("/intertie.api.cluster.v1.Clusters/Unheard", f"spiffe://{NORTH}/operator/a", NORTH, False),
        ("/unheard.Of/It", f"spiffe://{NORTH}/operator/a", NORTH, False),
    ],
)
def test_the_table_is_applied(method: str, spiffe: str, own: str, expected: bool) -> None:
    assert allowed(method, spiffe, own) is expected


def test_a_broker_comes_from_elsewhere_only_on_a_users_behalf() -> None:
    user = f"spiffe://{NORTH}/tenant/demo/user/a"
    assert allowed(f"{CLUSTERS}/Create", f"spiffe://{NORTH}/broker", META, behalf=user)
    assert not allowed(f"{CLUSTERS}/Create", f"spiffe://{NORTH}/broker", META)


ALICE = parse_spiffe(f"spiffe://{NORTH}/tenant/demo/user/alice")
HANDED_ON = replace(
    parse_spiffe(f"spiffe://{NORTH}/broker"),
    on_behalf_of=OnBehalfOf(spiffe=ALICE.spiffe, tenant="demo"),
)


def requests_in(tenant: str) -> list[tuple[str, Any]]:
    parent = f"sites/north/tenants/{tenant}"
    opened = attach_pb2.AttachRequest.Open(workspace=f"{parent}/clusters/a/workspaces/w-0")
    header = images_pb2.PutImageRequest.Header(parent=f"-/tenants/{tenant}")
    return [
        (f"{CLUSTERS}/Get", clusters_pb2.GetClusterRequest(name=f"{parent}/clusters/a")),
        (f"{CLUSTERS}/List", clusters_pb2.ListClustersRequest(parent=f"-/tenants/{tenant}")),
        (f"{CLUSTERS}/Create", clusters_pb2.CreateClusterRequest(parent=parent)),
        (f"{CLUSTERS}/Attach", attach_pb2.AttachRequest(open=opened)),
        (f"{IMAGES}/Put", images_pb2.PutImageRequest(header=header)),
        (f"{IMAGES}/Delete", images_pb2.DeleteImageRequest(name=f"{parent}/images/x")),
    ]


@pytest.mark.parametrize("identity", [ALICE, HANDED_ON], ids=["user", "handed on"])
def test_a_user_names_its_own_tenant(identity: Any) -> None:
    for method, request in requests_in("demo"):
        check_tenant(method, identity, request)
    for tenant in ("other", "-", "demo2", ""):
        for method, request in requests_in(tenant):
            with pytest.raises((RoleDenied, FieldInvalid)):
                check_tenant(method, identity, request)


def test_a_request_without_a_tenant_does_not_pass() -> None:
    for request in (
        clusters_pb2.GetClusterRequest(),
        clusters_pb2.GetClusterRequest(name="sites/north/clusters/a"),
        attach_pb2.AttachRequest(data=b"x"),
        None,
    ):
        with pytest.raises(FieldInvalid):
            check_tenant(f"{CLUSTERS}/Get", ALICE, request)


def test_operators_and_services_are_bound_to_no_tenant() -> None:
    for spiffe in (f"spiffe://{NORTH}/operator/a", f"spiffe://{NORTH}/agent/n1"):
        check_tenant(f"{IMAGES}/Stat", parse_spiffe(spiffe), images_pb2.StatImageRequest(name="x"))


@pytest.mark.parametrize(
    ("name", "tenant"),
    [
        ("sites/north/tenants/demo", "demo"),
        ("-/tenants/demo/clusters/a", "demo"),
        ("metascheds/meta/tenants/demo/clusters/a", "demo"),
        ("sites/tenants/tenants/demo", "demo"),
        ("sites/tenants/demo", None),
        ("-/tenants", None),
        ("x/y/tenants/demo", None),
    ],
)
def test_the_tenant_is_found_where_a_name_has_it(name: str, tenant: str | None) -> None:
    assert tenant_in(name) == tenant
