"""What may be asked of several replicas, one after the other: every method of a service that has
some is either a read, or the leader's own and idempotent by what its request says."""

from __future__ import annotations

from google.protobuf.descriptor import ServiceDescriptor

from intertie.api.broker.v1 import parts_pb2, site_pb2, usage_pb2
from intertie.api.cluster.v1 import clusters_pb2
from intertie.api.metasched.v1 import decisions_pb2, sites_pb2
from intertie.common.rpc.replicas import LEADERS_OWN

REPLICATED: tuple[ServiceDescriptor, ...] = tuple(
    service
    for file in (parts_pb2, site_pb2, usage_pb2, clusters_pb2, decisions_pb2, sites_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)
READS = {"Get", "List", "ListEntries", "ListHosts", "ListOffers", "Watch", "WatchAll", "Attach"}
ANY_REPLICAS = {
    "/intertie.api.metasched.v1.Decisions/Resolve",
    "/intertie.api.cluster.v1.Clusters/Plan",
}
"""They write, and every replica may: of a decision, whoever is first, it stands; and plans to
choose from take nothing, however often they are told."""
BY_REQUEST_ID = {"Create", "Update", "Act", "Hold"}
OF_THOSE = {"BatchHold": "requests"}
"""Of several, each with an id of its own, and the field that they are in."""
BY_NAME = {"Delete", "Prepare", "Resolve", "Release"}
"""They move what they name to where it may be already."""


def _methods() -> dict[str, set[str]]:
    """By full name: the fields of its request."""
    return {
        f"/{service.full_name}/{method.name}": set(method.input_type.fields_by_name)
        for service in REPLICATED
        for method in service.methods
    }


def _of_each(name: str, field: str) -> set[str]:
    """The fields of what a request has several of."""
    [request] = (
        method.input_type
        for service in REPLICATED
        for method in service.methods
        if f"/{service.full_name}/{method.name}" == name
    )
    each = request.fields_by_name[field].message_type
    assert each is not None
    return set(each.fields_by_name)


def test_every_method_is_a_read_or_the_leaders_own() -> None:
    found = _methods()
    assert found.keys() >= LEADERS_OWN | ANY_REPLICAS
    for name in found.keys() - LEADERS_OWN - ANY_REPLICAS:
        assert name.rpartition("/")[2] in READS, f"{name}: add it to LEADERS_OWN, or here"
    for name in LEADERS_OWN:
        assert name.rpartition("/")[2] not in READS


def test_what_is_the_leaders_own_may_be_asked_twice() -> None:
    found = _methods()
    for name in LEADERS_OWN:
        method = name.rpartition("/")[2]
        if method in OF_THOSE:
            assert "request_id" in _of_each(name, OF_THOSE[method]), name
            continue
        assert method in BY_REQUEST_ID | BY_NAME, f"{name}: what makes it idempotent?"
        assert ("request_id" if method in BY_REQUEST_ID else "name") in found[name], name
