"""Workspaces go to other hosts through the broker's API, on real etcd; agents are faked."""

from __future__ import annotations

from typing import Any

import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.api.nodeagent.v1 import records_pb2
from intertie.api.types.v1 import action_pb2
from intertie.common import errors
from tests.integration.broker_site import HOST, Site
from tests.integration.refusals import refusal
from tests.integration.test_broker_act import act
from tests.integration.test_broker_parts import eventually
from tests.integration.test_broker_update import active, free

pytestmark = pytest.mark.etcd

MIGRATE = action_pb2.MIGRATE


async def seen(stub: Any, name: str) -> dict[str, cluster_pb2.Workspace]:
    found = await stub.Get(clusters_pb2.GetClusterRequest(name=name))
    return {each.name.rpartition("/")[2]: each for each in found.workspaces}


async def reserved(here: Site) -> dict[str, int]:
    """vCPUs of each host that are not free."""
    return {host: HOST["vcpus"] - vcpus for host, vcpus in (await free(here)).items()}


async def test_one_is_where_it_was_to_go_and_what_it_left_is_free(here: Site) -> None:
    """On record at both hosts while it is on its way, and at the new one alone after that."""
    stub, operator = here.clusters(), here.clusters(here.domain.operator("olga"))
    made = await active(stub, here, count=1)
    [before] = (await seen(stub, made.name)).values()
    other = {"n1": "n2", "n2": "n1"}[before.host]
    here.agents.obedient = False
    going = await operator.Act(act(made.name, MIGRATE, "go", host=other))
    assert [(each.host, each.migrating_to) for each in going.workspaces] == [(before.host, other)]
    assert await reserved(here) == {"n1": 1, "n2": 1}
    again = await operator.Act(act(made.name, MIGRATE, "go", host=other))
    assert again.etag == going.etag
    pending = await refusal(stub.Act(act(made.name, action_pb2.STOP, "stop")))
    assert isinstance(pending, errors.ActionIllegal)
    assert pending.state == "MIGRATING"
    here.agents.obedient = True

    async def there() -> bool:
        [now] = (await seen(stub, made.name)).values()
        runs = now.state == cluster_pb2.Workspace.RUNNING and now.ready
        return (now.host, now.migrating_to) == (other, "") and runs

    await eventually(there)

    async def given_back() -> bool:
        return await reserved(here) == {before.host: 0, other: 1}

    await eventually(given_back)
    hosts = [
        key.split("/")[1]
        for key in [entry.key for entry in (await here.etcd.range("wanted/")).entries]
        if "/parts/" in key
    ]
    assert hosts == [other]


async def test_one_that_is_suspended_goes_as_it_is(here: Site) -> None:
    stub = here.clusters()
    made = await active(stub, here, count=1)
    [before] = (await seen(stub, made.name)).values()
    await stub.Act(act(made.name, action_pb2.SUSPEND, "aside"))
    early = await refusal(stub.Act(act(made.name, MIGRATE, "early")))
    assert isinstance(early, errors.ActionIllegal)
    assert early.state == "SUSPENDED and RUNNING still"
    here.agents.state = cluster_pb2.Workspace.SUSPENDED

    async def suspended() -> bool:
        [now] = (await seen(stub, made.name)).values()
        return now.state == cluster_pb2.Workspace.SUSPENDED

    await eventually(suspended)
    here.agents.obedient = False
    await stub.Act(act(made.name, MIGRATE, "go"))

    async def told() -> bool:
        wanted = (await here.etcd.range("wanted/")).entries
        parts = [
            records_pb2.WantedPart.FromString(each.value)
            for each in wanted
            if "/parts/" in each.key
        ]
        migrations = [ws.migration for part in parts for ws in part.workspaces]
        return any(each.aside and each.role == records_pb2.Migration.TAKE for each in migrations)

    await eventually(told)
    here.agents.obedient = True

    async def there() -> bool:
        [now] = (await seen(stub, made.name)).values()
        return now.host != before.host and now.state == cluster_pb2.Workspace.SUSPENDED

    await eventually(there)


async def test_one_that_cannot_be_sent_stays_and_says_why(here: Site) -> None:
    stub = here.clusters()
    made = await active(stub, here, count=1)
    [before] = (await seen(stub, made.name)).values()
    here.agents.sends = False
    await stub.Act(act(made.name, MIGRATE, "go", "worker-0"))

    async def stays() -> bool:
        [now] = (await seen(stub, made.name)).values()
        return bool(now.message) and not now.migrating_to

    await eventually(stays)
    [now] = (await seen(stub, made.name)).values()
    assert (now.host, now.state) == (before.host, cluster_pb2.Workspace.RUNNING)
    assert now.message.endswith("and stays: the tunnel broke")

    async def given_back() -> bool:
        return sum((await reserved(here)).values()) == 1

    await eventually(given_back)
    here.agents.sends = True
    await stub.Act(act(made.name, MIGRATE, "again"))

    async def there() -> bool:
        [now] = (await seen(stub, made.name)).values()
        return now.host != before.host and not now.message

    await eventually(there)


async def test_it_ends_on_its_way_and_nothing_is_left(here: Site) -> None:
    stub = here.clusters()
    made = await active(stub, here, count=1)
    here.agents.obedient = False
    await stub.Act(act(made.name, MIGRATE, "go"))
    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=made.name))
    here.agents.obedient = True

    async def nothing() -> bool:
        wanted = (await here.etcd.range("wanted/")).entries
        parts = [each for each in wanted if "/parts/" in each.key]
        return not parts and sum((await reserved(here)).values()) == 0

    await eventually(nothing)


async def test_who_may_ask_for_what(here: Site) -> None:
    stub, operator = here.clusters(), here.clusters(here.domain.operator("olga"))
    made = await active(stub, here, count=1)
    for refused in (
        stub.Act(act(made.name, MIGRATE, "r1", host="n2")),
        operator.Act(act(made.name, action_pb2.STOP, "r2")),
    ):
        assert isinstance(await refusal(refused), errors.RoleDenied)
    [before] = (await seen(stub, made.name)).values()
    for host, request_id in (("n9", "r3"), (before.host, "r4")):
        wrong = await refusal(operator.Act(act(made.name, MIGRATE, request_id, host=host)))
        assert isinstance(wrong, errors.FieldInvalid)
        assert wrong.field == "host"


async def test_what_is_short_is_said(here: Site) -> None:
    stub = here.clusters()
    made = await active(stub, here, count=2, vcpus=3)
    short = await refusal(stub.Act(act(made.name, MIGRATE, "r1", "worker-0")))
    assert isinstance(short, errors.NoCapacity)
    assert {each.resource for each in short.shortfalls} == {"vcpus"}
    wanted = [
        each
        for entry in (await here.etcd.range("wanted/")).entries
        for each in records_pb2.WantedPart.FromString(entry.value).workspaces
    ]
    assert not any(each.HasField("migration") for each in wanted)
