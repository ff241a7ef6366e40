"""Images of workspaces' disks are asked for through the broker's API, on real etcd."""

from __future__ import annotations

from typing import Any

import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.api.imagestore.v1 import images_pb2
from intertie.api.nodeagent.v1 import records_pb2
from intertie.api.types.v1 import action_pb2
from intertie.api.types.v1.snapshot_pb2 import Snapshot
from intertie.common import errors
from intertie.common.clock import SystemClock
from intertie.common.rpc.identity import Identities
from intertie.common.rpc.signing import verify
from tests.fakes.site_brokers import Federation
from tests.fakes.site_brokers import create as create_over_sites
from tests.integration.broker_site import DIGEST, Site
from tests.integration.pki import TestDomain, trust_in
from tests.integration.refusals import refusal
from tests.integration.test_broker_act import act
from tests.integration.test_broker_clusters import until
from tests.integration.test_broker_parts import eventually
from tests.integration.test_broker_update import active
from tests.integration.test_metasched import two_groups

pytestmark = pytest.mark.etcd

SNAPSHOT = action_pb2.SNAPSHOT


async def orders(etcd: Any) -> dict[str, records_pb2.SnapshotOrder]:
    """As agents read them, by workspace."""
    return {
        each.name: each.snapshot
        for entry in (await etcd.range("wanted/")).entries
        for each in records_pb2.WantedPart.FromString(entry.value).workspaces
        if each.HasField("snapshot")
    }


async def snapshots(stub: Any, name: str) -> dict[str, Snapshot]:
    shown = await stub.Get(clusters_pb2.GetClusterRequest(name=name))
    return {
        each.name.rpartition("/")[2]: each.snapshot
        for each in shown.workspaces
        if each.HasField("snapshot")
    }


def checked(grant: images_pb2.SnapshotGrant, domain: TestDomain) -> images_pb2.SnapshotGrantBody:
    known = Identities(trust_in(domain))
    now = SystemClock().now()
    by = verify(grant.body, grant.signature, grant.certificate, known, now=now)
    assert by.name == "broker"
    return images_pb2.SnapshotGrantBody.FromString(grant.body)


async def test_one_host_is_told_and_what_became_of_it_stays_on_record(here: Site) -> None:
    stub = here.clusters()
    made = await active(stub, here)
    here.agents.snapshot = Snapshot(state=Snapshot.UPLOADING, done_bytes=3, total_bytes=9)
    asked = act(made.name, SNAPSHOT, "s1", "worker-1", image="before")
    answer = await stub.Act(asked)
    [found] = [each for each in answer.workspaces if each.HasField("snapshot")]
    image = made.name.rpartition("/clusters/")[0] + "/images/before"
    assert (found.snapshot.image, found.snapshot.state) == (image, Snapshot.WAITING)

    async def told() -> bool:
        return set(await orders(here.etcd)) == {"worker-1"}

    await eventually(told)
    order = (await orders(here.etcd))["worker-1"]
    assert order.image_id == "before"
    body = checked(order.grant, here.domain)
    assert (body.image, body.host, body.workspace) == (image, found.host, "worker-1")
    assert (body.cluster, body.owner) == (made.name, made.owner)

    async def at_work() -> bool:
        return (await snapshots(stub, made.name))["worker-1"].done_bytes == 3

    await eventually(at_work)
    under_way = await refusal(stub.Act(act(made.name, SNAPSHOT, "s2", "worker-1", image="other")))
    assert isinstance(under_way, errors.ActionIllegal)
    assert under_way.state == "RUNNING with a SNAPSHOT under way"
    await stub.Act(asked)
    assert (await orders(here.etcd))["worker-1"].id == order.id, "a retry asks for no other"

    here.agents.snapshot = Snapshot(state=Snapshot.READY, digest=DIGEST, quiesced=True)

    async def settled() -> bool:
        return not await orders(here.etcd)

    await eventually(settled)
    done = (await snapshots(stub, made.name))["worker-1"]
    assert (done.image, done.state, done.digest) == (image, Snapshot.READY, DIGEST)
    assert done.quiesced
    await stub.Act(act(made.name, SNAPSHOT, "s3", "worker-1", image="other"))
    await eventually(told)
    assert (await orders(here.etcd))["worker-1"].id != order.id


async def test_what_is_not_to_be_had_is_refused_with_the_field(here: Site) -> None:
    stub = here.clusters()
    made = await active(stub, here)
    for field, request in (
        ("workspaces", act(made.name, SNAPSHOT, "r1", image="before")),
        ("workspaces", act(made.name, SNAPSHOT, "r2", "worker-0", "worker-1", image="before")),
        ("workspaces[0]", act(made.name, SNAPSHOT, "r3", "worker-9", image="before")),
        ("image", act(made.name, SNAPSHOT, "r4", "worker-0")),
        ("image", act(made.name, SNAPSHOT, "r5", "worker-0", image="Not A Label")),
        ("image", act(made.name, action_pb2.STOP, "r6", "worker-0", image="before")),
    ):
        refused = await refusal(stub.Act(request))
        assert isinstance(refused, errors.FieldInvalid)
        assert refused.field == field
    here.agents.state = cluster_pb2.Workspace.FAILED

    async def failed() -> bool:
        shown = await stub.Get(clusters_pb2.GetClusterRequest(name=made.name))
        return all(each.state == cluster_pb2.Workspace.FAILED for each in shown.workspaces)

    await eventually(failed)
    illegal = await refusal(stub.Act(act(made.name, SNAPSHOT, "r7", "worker-0", image="b")))
    assert isinstance(illegal, errors.ActionIllegal)
    assert illegal.legal == ""
    assert await orders(here.etcd) == {}


async def test_over_two_sites_the_site_of_the_workspace_has_the_image(
    two_sites: Federation,
) -> None:
    stub: clusters_pb2_grpc.ClustersAsyncStub = two_sites.clusters()
    made = await stub.Create(create_over_sites("c1", two_groups(1)))
    await until(stub, made.name, cluster_pb2.Cluster.ACTIVE)
    here, there = two_sites.sites.values()
    there.agents.snapshot = Snapshot(state=Snapshot.READY, digest=DIGEST)
    answer = await stub.Act(act(made.name, SNAPSHOT, "s1", "worker-0", image="before"))
    [site] = {each.site for each in answer.workspaces if each.HasField("snapshot")}

    async def ready() -> bool:
        found = await snapshots(stub, made.name)
        return "worker-0" in found and found["worker-0"].state == Snapshot.READY

    await eventually(ready)
    image = (await snapshots(stub, made.name))["worker-0"].image
    assert image == f"sites/{site}/tenants/demo/images/before"
    assert await orders(here.agents.etcd) == {}
    both = await refusal(
        stub.Act(act(made.name, SNAPSHOT, "s2", "worker-0", "head-0", image="before"))
    )
    assert isinstance(both, errors.FieldInvalid)
