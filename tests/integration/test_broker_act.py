"""Workspaces of a cluster are switched through the broker's API, on real etcd."""

from __future__ import annotations

from typing import Any

import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.api.nodeagent.v1 import records_pb2
from intertie.api.types.v1 import action_pb2
from intertie.common import errors
from tests.fakes.site_brokers import Federation
from tests.fakes.site_brokers import create as create_over_sites
from tests.integration.broker_site import Site
from tests.integration.refusals import refusal
from tests.integration.test_broker_clusters import until
from tests.integration.test_broker_parts import eventually
from tests.integration.test_broker_update import active
from tests.integration.test_metasched import two_groups

pytestmark = pytest.mark.etcd

Wanted = records_pb2.WantedWorkspace
STOP, START, PAUSE = action_pb2.STOP, action_pb2.START, action_pb2.PAUSE


def act(name: str, action: Any, request_id: str, *workspaces: str, **more: Any) -> Any:
    return clusters_pb2.ActOnClusterRequest(
        name=name, action=action, request_id=request_id, workspaces=workspaces, **more
    )


async def wanted(here: Any) -> dict[str, tuple[int, int]]:
    """Power and boots of each workspace, as agents read it."""
    found: dict[str, tuple[int, int]] = {}
    for entry in (await here.range("wanted/")).entries:
        for each in records_pb2.WantedPart.FromString(entry.value).workspaces:
            found[each.name] = each.power, each.boots
    return found


async def becomes(here: Any, expected: dict[str, tuple[int, int]]) -> None:
    async def so() -> bool:
        return await wanted(here) == expected

    await eventually(so)


async def test_hosts_are_told_what_is_switched_and_a_retry_switches_nothing(here: Site) -> None:
    stub = here.clusters()
    made = await active(stub, here)
    await stub.Act(act(made.name, STOP, "stop", "worker-1"))
    await becomes(here.etcd, {"worker-0": (Wanted.ON, 0), "worker-1": (Wanted.OFF, 0)})
    await stub.Act(act(made.name, START, "start", "worker-1"))
    await becomes(here.etcd, {"worker-0": (Wanted.ON, 0), "worker-1": (Wanted.ON, 1)})
    again = await stub.Act(act(made.name, STOP, "stop", "worker-1"))
    assert again.uid == made.uid
    await stub.Act(act(made.name, action_pb2.REBOOT, "reboot"))
    await stub.Act(act(made.name, action_pb2.REBOOT, "reboot"))
    await becomes(here.etcd, {"worker-0": (Wanted.ON, 1), "worker-1": (Wanted.ON, 2)})


async def test_what_changed_nothing_changes_nothing_later(here: Site) -> None:
    """A bug: it was not on record, and its retry let go on what had been held meanwhile."""
    stub = here.clusters()
    made = await active(stub, here)
    await stub.Act(act(made.name, action_pb2.RESUME, "in-vain"))
    await stub.Act(act(made.name, PAUSE, "pause"))
    await stub.Act(act(made.name, action_pb2.RESUME, "in-vain"))
    await becomes(here.etcd, {"worker-0": (Wanted.PAUSED, 0), "worker-1": (Wanted.PAUSED, 0)})


async def test_an_etag_is_of_what_was_asked_for_too(here: Site) -> None:
    stub = here.clusters()
    made = await active(stub, here)
    here.agents.obedient = False
    seen = await stub.Get(clusters_pb2.GetClusterRequest(name=made.name))
    await stub.Act(act(made.name, PAUSE, "one", etag=seen.etag))
    other = await refusal(stub.Act(act(made.name, STOP, "two", etag=seen.etag)))
    assert isinstance(other, errors.EtagStale)


async def test_what_may_not_be_done_is_said_with_what_may(here: Site) -> None:
    stub = here.clusters()
    made = await active(stub, here)
    illegal = await refusal(stub.Act(act(made.name, START, "r1")))
    assert isinstance(illegal, errors.ActionIllegal)
    assert (illegal.workspace, illegal.state) == ("worker-0", "RUNNING")
    assert illegal.legal == "STOP, REBOOT, PAUSE, SUSPEND, SNAPSHOT, MIGRATE"
    unknown = await refusal(stub.Act(act(made.name, STOP, "r2", "worker-0", "worker-7")))
    assert isinstance(unknown, errors.FieldInvalid)
    assert unknown.field == "workspaces[1]"
    none = await refusal(stub.Act(act(made.name, action_pb2.ACTION_UNSPECIFIED, "r3")))
    assert isinstance(none, errors.FieldInvalid)
    assert none.field == "action"
    assert isinstance(await refusal(stub.Act(act(made.name, STOP, ""))), errors.FieldInvalid)
    stale = await refusal(stub.Act(act(made.name, STOP, "r4", etag="old")))
    assert isinstance(stale, errors.EtagStale)
    await stub.Act(act(made.name, PAUSE, "r6"))
    other = await refusal(stub.Act(act(made.name, STOP, "r6")))
    assert isinstance(other, errors.RequestIdReuse)
    await becomes(here.etcd, {"worker-0": (Wanted.PAUSED, 0), "worker-1": (Wanted.PAUSED, 0)})
    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=made.name))
    over = await refusal(stub.Act(act(made.name, STOP, "r7")))
    assert isinstance(over, errors.ClusterOver)
    assert isinstance(await refusal(stub.Act(act(made.name + "x", STOP, "r8"))), errors.NotFound)


async def test_a_cluster_over_two_sites_is_switched_at_both(two_sites: Federation) -> None:
    stub: clusters_pb2_grpc.ClustersAsyncStub = two_sites.clusters()
    made = await stub.Create(create_over_sites("c1", two_groups(1)))
    await until(stub, made.name, cluster_pb2.Cluster.ACTIVE)
    etcds = [site.agents.etcd for site in two_sites.sites.values()]
    await stub.Act(act(made.name, STOP, "stop"))
    await becomes(etcds[0], {"head-0": (Wanted.OFF, 0)})
    await becomes(etcds[1], {"worker-0": (Wanted.OFF, 0)})
    await stub.Act(act(made.name, START, "start", "worker-0"))
    await becomes(etcds[1], {"worker-0": (Wanted.ON, 1)})
    assert await wanted(etcds[0]) == {"head-0": (Wanted.OFF, 0)}
    illegal = await refusal(stub.Act(act(made.name, PAUSE, "pause", "head-0")))
    assert isinstance(illegal, errors.ActionIllegal)
    assert illegal.legal == "START, SNAPSHOT"
