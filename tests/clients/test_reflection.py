"""Reflection is enough: a client without our protos lists and calls everything."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from intertie.common.settings import TlsSettings
from tests.clients.generic_client import GenericClient, Outcome
from tests.clients.programs import TREE
from tests.fakes.site_brokers import Federation
from tests.integration.broker_site import Site
from tests.integration.pki import TestDomain

pytestmark = pytest.mark.etcd

CLUSTERS = "/intertie.api.cluster.v1.Clusters"
EVERYWHERE = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
OF_A_BROKER = {
    "intertie.api.broker.v1.Hosts": {"Get", "List", "Watch"},
    "intertie.api.broker.v1.Parts": {
        "Act", "Attach", "BatchHold", "Get", "Hold", "List", "ListOffers", "Prepare", "Release",
        "Resolve",
    },
    "intertie.api.broker.v1.Sites": {"Get"},
    "intertie.api.broker.v1.Usage": {"List", "ListEntries"},
    "intertie.api.cluster.v1.Clusters": {
        "Act", "Attach", "Create", "Delete", "Get", "List", "Plan", "Update", "Watch",
        "WatchAll",
    },
}  # fmt: skip
OF_A_METASCHED = {
    "intertie.api.cluster.v1.Clusters": OF_A_BROKER["intertie.api.cluster.v1.Clusters"],
    "intertie.api.metasched.v1.Decisions": {"Get", "Resolve"},
    "intertie.api.metasched.v1.KnownSites": {"List", "ListHosts"},
}
UNTYPED = {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


def spec(count: int) -> dict[str, Any]:
    return {
        "groups": [
            {
                "name": "node",
                "count": count,
                "environment": {"image": "guest"},
                "allocation": {"vcpus": 1, "memory_mib": 128, "disk_mib": 128},
            }
        ],
        "networks": [{"name": "lan", "subnet": "10.1.0.0/24"}],
        "lease": {"duration": "600s"},
    }


def client(address: str, domain: TestDomain, service: str, tls: TlsSettings) -> GenericClient:
    return GenericClient(
        address,
        server_name=domain.server_name(service),
        roots=Path(domain.trust.roots),
        certificate=Path(tls.certificate),
        key=Path(tls.key),
    )


def by_service(client: GenericClient) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in client.methods():
        service, _, method = path.lstrip("/").partition("/")
        found.setdefault(service, set()).add(method)
    return found


def untyped(client: GenericClient) -> dict[str, Outcome]:
    """What every method answers to an empty request, as far as a program could not act on it."""
    return {
        path: outcome for path in client.methods() if not is_typed(outcome := client.call(path))
    }


def is_typed(outcome: Outcome) -> bool:
    return outcome.code is grpc.StatusCode.OK or (
        outcome.code not in UNTYPED and outcome.reason != ""
    )


def test_the_generic_client_has_nothing_of_ours() -> None:
    code = (
        "import sys, tests.clients.generic_client\n"
        "print([name for name in sys.modules if name.startswith('intertie')])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=TREE, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize("role", ["user", "operator", "metasched", "broker"])
async def test_every_method_of_a_broker_answers_an_empty_request_in_a_way_to_act_on(
    here: Site, meta: TestDomain, role: str
) -> None:
    tls = {
        "user": lambda: here.domain.user("demo", "alice"),
        "operator": lambda: here.domain.operator("olga"),
        "metasched": lambda: meta.service("metasched"),
        "broker": lambda: here.domain.service("broker"),
    }[role]()
    with client(here.address, here.domain, "broker", tls) as generic:
        found = await asyncio.to_thread(by_service, generic)
        assert found.keys() == OF_A_BROKER.keys() | EVERYWHERE
        assert OF_A_BROKER.items() <= found.items()
        assert await asyncio.to_thread(untyped, generic) == {}


async def test_a_cluster_is_created_found_listed_and_deleted_from_plain_values(here: Site) -> None:
    alice = here.domain.user("demo", "alice")
    with client(f"127.0.0.1:{here.port}", here.domain, "broker", alice) as generic:

        async def call(method: str, **request: Any) -> Outcome:
            return await asyncio.to_thread(generic.call, f"{CLUSTERS}/{method}", request)

        parent = "-/tenants/demo"
        made = await call("Create", parent=parent, cluster_id="a", spec=spec(2), request_id="r1")
        assert made.answer, made
        name = made.answer["name"]
        assert name == "sites/north/tenants/demo/clusters/a"
        assert [part["counts"] for part in made.answer["plan"]["parts"]] == [{"node": 2}]
        found = await call("Get", name=name)
        assert found.answer
        assert found.answer["uid"] == made.answer["uid"]
        listed = await call("List", parent=parent)
        assert listed.answer
        assert [each["name"] for each in listed.answer["clusters"]] == [name]
        watched = await call("Watch", name=name)
        assert watched.answer
        assert watched.answer["uid"] == made.answer["uid"]
        begun = await call("WatchAll", parent=parent)
        assert begun.answer == {"snapshot_begin": {"reason": "NO_TOKEN"}}
        big = {"cluster_id": "b", "spec": spec(20), "request_id": "r2"}
        refused = await call("Create", parent=parent, **big)
        assert (refused.code, refused.reason) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "NO_CAPACITY",
        )
        [short] = refused.details
        assert short["shortfalls"][0]["site"] == "north"
        ending = await call("Delete", name=name)
        assert ending.answer
        assert ending.answer["end_requested_time"]


async def test_every_method_of_a_meta_scheduler_does_so_too(
    two_sites: Federation, north: TestDomain, meta: TestDomain
) -> None:
    [address] = two_sites.settings.listen.addresses
    for tls in (meta.user("demo", "alice"), meta.operator("olga"), north.service("broker")):
        with client(address, meta, "metasched", tls) as generic:
            found = await asyncio.to_thread(by_service, generic)
            assert found.keys() == OF_A_METASCHED.keys() | EVERYWHERE
            assert OF_A_METASCHED.items() <= found.items()
            assert await asyncio.to_thread(untyped, generic) == {}
