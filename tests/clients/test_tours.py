"""A cluster from first to last, in every language that `clients/` has a program in."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from intertie.api.cluster.v1 import clusters_pb2, clusters_pb2_grpc
from intertie.api.cluster.v1.cluster_pb2 import Cluster
from intertie.common.errors import (
    EtcdUnavailable,
    FieldInvalid,
    NameTaken,
    NoCapacity,
    NotLeading,
    Shortfall,
)
from intertie.common.settings import TlsSettings
from tests.clients.programs import LANGUAGES, Credential, arguments, build
from tests.fakes.user_api import FakeClusters
from tests.integration.broker_site import Site, cluster_spec, create, serve
from tests.integration.pki import TestDomain

pytestmark = [pytest.mark.etcd, pytest.mark.parametrize("language", LANGUAGES)]

NAME = "sites/north/tenants/demo/clusters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    code: int
    out: list[str]
    err: str


async def run(language: str, address: str, credential: Credential, *, name: str) -> Said:
    program = await asyncio.to_thread(build, language)
    process = await asyncio.create_subprocess_exec(
        str(program), *arguments(address, credential, name=name, image="guest"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return Said(code=process.returncode, out=out.decode().splitlines(), err=err.decode())


def credential(domain: TestDomain, tls: TlsSettings, service: str = "broker") -> Credential:
    return Credential(
        certificate=Path(tls.certificate),
        key=Path(tls.key),
        roots=Path(domain.trust.roots),
        server_name=domain.server_name(service),
    )


async def test_a_cluster_is_refused_created_followed_listed_and_deleted(
    language: str, here: Site
) -> None:
    clusters = here.clusters()
    await clusters.Create(create("another", cluster_spec(count=1), "r1"))
    alice = credential(here.domain, here.domain.user("demo", "alice"))
    said = await run(language, f"127.0.0.1:{here.port}", alice, name="tour")
    assert said.code == 0, said.err
    field, short, created, ready, *listed, deleted = said.out
    assert field == (
        "refused FIELD_INVALID field=spec.groups[0].allocation.vcpus: "
        "is 0; must be from 1 to 256 vCPUs"
    )
    assert short.startswith(
        "refused NO_CAPACITY site=north resource=vcpus wanted=200 available=4: "
    )
    assert created == f"created {NAME}/tour"
    assert re.fullmatch(r"ready after [1-9][0-9]* updates", ready)
    assert listed == [f"listed {NAME}/another", f"listed {NAME}/tour"]
    assert deleted == f"deleted {NAME}/tour CANCELLED"
    found = await clusters.Get(clusters_pb2.GetClusterRequest(name=f"{NAME}/tour"))
    assert found.state == Cluster.CANCELLED
    assert found.owner == "spiffe://north.site.intertie/tenant/demo/user/alice"


class Faltering(FakeClusters):
    """Its watches break off after the first message, each once."""

    def __init__(self) -> None:
        super().__init__()
        self.watches = 0

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Cluster]:
        self.watches += 1
        if self.watches % 2:
            yield self._find(request.name)
            raise EtcdUnavailable("it went away")
        async for cluster in super().Watch(request, context):
            yield cluster


async def test_what_did_not_get_through_is_asked_again_with_the_same_request_id(
    language: str, tmp_path: Path, meta: TestDomain
) -> None:
    clusters = Faltering()
    clusters.clusters["metascheds/meta/tenants/demo/clusters/a"] = Cluster(
        name="metascheds/meta/tenants/demo/clusters/a"
    )
    short = Shortfall(site="south", resource="memory", wanted=8, available=4, unit="MiB")
    other = Shortfall(site="north", resource="vcpus", wanted=9, available=2, unit="vCPU")
    clusters.refusals = [
        FieldInvalid("spec.groups[0].name", "is odd; say another"),
        NotLeading("other"),
        NoCapacity((short, other)),
        NotLeading("other"),
        EtcdUnavailable("it went away"),
    ]
    server, address = await serve(
        tmp_path,
        "meta",
        meta.service("metasched"),
        (meta,),
        [
            (
                clusters_pb2_grpc.add_ClustersServicer_to_server,
                clusters,
                clusters_pb2.DESCRIPTOR.services_by_name["Clusters"],
            )
        ],
    )
    try:
        alice = credential(meta, meta.user("demo", "alice"), "metasched")
        said = await run(language, address, alice, name="b")
    finally:
        await server.stop(0)
    assert said.code == 0, said.err
    name = "metascheds/meta/tenants/demo/clusters"
    assert said.out == [
        "refused FIELD_INVALID field=spec.groups[0].name: is odd; say another",
        "refused NO_CAPACITY site=south resource=memory wanted=8 available=4: "
        "south: memory 8 MiB wanted, 4 available",
        "refused NO_CAPACITY site=north resource=vcpus wanted=9 available=2: "
        "north: vcpus 9 vCPU wanted, 2 available",
        f"created {name}/b",
        "ready after 3 updates",
        f"listed {name}/a",
        f"listed {name}/b",
        f"deleted {name}/b CANCELLED",
    ]
    ids = [request.request_id for request in clusters.requests]
    assert ids[1] == ids[2]
    assert ids[3] == ids[4] == ids[5]
    assert len(set(ids)) == 3


async def test_a_refusal_in_the_middle_is_said_with_its_fields(language: str, here: Site) -> None:
    await here.clusters().Create(create("tour", cluster_spec(count=1), "r1"))
    alice = credential(here.domain, here.domain.user("demo", "alice"))
    said = await run(language, f"127.0.0.1:{here.port}", alice, name="tour")
    assert said.code == 1
    taken = NameTaken(f"{NAME}/tour")
    assert said.err.splitlines() == [f"refused NAME_TAKEN name={taken.name}: {taken}"]


async def test_a_service_of_another_name_or_authority_is_not_spoken_to(
    language: str, here: Site, meta: TestDomain
) -> None:
    tls = here.domain.user("demo", "alice")
    right = credential(here.domain, tls)
    named = credential(here.domain, tls, "imagestore")
    rooted = Credential(
        certificate=right.certificate,
        key=right.key,
        roots=Path(meta.trust.roots),
        server_name=right.server_name,
    )
    for wrong in (named, rooted):
        said = await run(language, f"127.0.0.1:{here.port}", wrong, name="tour")
        assert said.code == 1
        assert said.out == []
        assert said.err.splitlines()[-1].startswith("failed")
    assert not (await here.etcd.range("parts/")).entries


async def test_what_is_missing_on_the_command_line_is_named(language: str) -> None:
    program = await asyncio.to_thread(build, language)
    process = await asyncio.create_subprocess_exec(
        str(program), "--name", "tour", stderr=asyncio.subprocess.PIPE
    )
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2
    assert "--address" in err.decode().splitlines()[0]
