"""Every field of a specification reaches the host that it is for.

Messages are filled by reflection: a field that is added to a proto is tried without a line here,
and whoever forgets it on its way fails. The way is in docs/adding-a-field.md.
"""

from __future__ import annotations

from datetime import UTC
from types import ModuleType
from typing import Any

import pytest
from google.protobuf.message import Message

from intertie.api.broker.v1 import part_pb2
from intertie.api.cluster.v1 import cluster_pb2
from intertie.api.imagestore.v1 import images_pb2, transfers_pb2
from intertie.api.nodeagent.v1 import records_pb2
from intertie.api.types.v1 import resources_pb2
from intertie.broker.adapters.agent_records import wanted_to_bytes
from intertie.broker.domain.fleet import Fleet
from intertie.broker.domain.keeping import Keeping
from intertie.broker.domain.moving import Moving, MovingState
from intertie.broker.domain.networks import Endpoint, NetworkId, RemoteEndpoint
from intertie.broker.domain.part import PartSnapshot
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.planning import part_spec_of
from intertie.broker.domain.wanted import wanted_of
from intertie.common import part_spec, terms
from intertie.common.actions import Power, Switched
from intertie.common.etcd.records import decode, encode
from intertie.common.intervals import Window
from intertie.common.names import ClusterName
from intertie.common.part_spec import HostEntry, PartSpec
from intertie.common.rpc import spec_proto
from intertie.common.rpc.transfer_proto import grant_from_body, grant_to_body
from intertie.common.snapshot import Snapshot
from intertie.common.spec import (
    Allocation,
    ClusterSpec,
    Environment,
    Group,
    GroupPlacement,
    Network,
    layout,
)
from intertie.common.transfer import TransferGrant
from intertie.common.values import Struct, field_names, replace
from intertie.metasched.domain.parts import part_specs
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.site_plan import SitePlan
from intertie.nodeagent.convert import part_from_proto, part_to_proto
from intertie.nodeagent.domain.migrating import Migration, Role
from tests.contract.filled import filled, left_out, most_values
from tests.unit.broker import samples
from tests.unit.nodeagent.parts import DIGEST

NOW, SENDING = samples.NOW, MovingState.SENDING
TURNS = range(most_values(cluster_pb2.ClusterSpec.DESCRIPTOR))

WELL_FORMED: dict[str, Any] = {
    f"intertie.api.nodeagent.v1.{name}": value
    for name, value in {
        "WantedPart.schema": 1,
        "WantedPart.part": "sites/north/tenants/demo/parts/p1",
        "WantedPart.part_uid": "bbbbbbbbbbbb",
        "WantedWorkspace.uid": "aaaaaaaaaaaa",
        "SnapshotOrder.image_id": "before",
        "WantedNic.network_uid": "0123456789ab",
        "WantedNic.mac": "02:00:00:00:00:0a",
        "WantedNic.address": "10.1.0.10/24",
        "WantedNetwork.uid": "0123456789ab",
        "Tunnel.address": "10.201.0.12",
        "Tunnel.macs": "02:00:00:00:00:0b",
        "WideTunnel.address": "10.250.0.12",
        "WideTunnel.macs": "02:00:00:00:00:0c",
        "WantedPair.local_mac": "02:00:00:00:00:0a",
        "WantedPair.remote_mac": "02:00:00:00:00:0b",
    }.items()
} | {"intertie.api.broker.v1.HostEntry.address": "10.1.0.10"}
"""What the agent's record rules ask for."""

A_PAIR = {
    "intertie.api.types.v1.PairTerm.group": "w",
    "intertie.api.types.v1.PairTerm.network": "lan",
}
"""As everywhere behind the API: with a group and a network that there are."""

OF_W = {
    "intertie.api.cluster.v1.Dataset.groups": "w",
    "intertie.api.cluster.v1.Volume.group": "w",
}
A_TERM = terms.DiskTerm(guarantee_iops=1, cap_iops=2, guarantee_mib_s=3, cap_mib_s=4)
DISKS = (
    part_spec.FurtherDisk(name="genomes", image=DIGEST, disk=A_TERM),
    part_spec.FurtherDisk(name="scratch", size_mib=9, disk=A_TERM),
)
OF_EITHER_KIND = tuple(
    f"workspaces[{at}].disks[{name}" for at in range(2) for name in ("0].size_mib", "1].image")
)
"""A data set has no size, and a volume no image."""


def an_environment(turn: int = 0) -> Environment:
    message = filled(resources_pb2.Environment, turn=turn)
    return spec_proto.environment_from_proto(message, "environment")


def an_allocation(turn: int = 0) -> Allocation:
    message = filled(resources_pb2.Allocation, turn=turn, given=A_PAIR)
    return spec_proto.allocation_from_proto(message, "allocation")


def assert_whole(message: Message, *but: str) -> None:
    lost = [path for path in left_out(message) if path not in but]
    assert not lost, f"lost on the way: {', '.join(lost)}"


@pytest.mark.parametrize(
    ("values", "protos"),
    [(terms, (resources_pb2, cluster_pb2)), (part_spec, (part_pb2, part_pb2.PartNetwork))],
)
def test_values_have_the_fields_of_their_messages(
    values: ModuleType, protos: tuple[Any, ...]
) -> None:
    compared = 0
    for name, value in vars(values).items():
        message = next((found for each in protos if (found := getattr(each, name, None))), None)
        if not _is_value(value) or message is None or value is Window:
            continue
        there = {field.name for field in message.DESCRIPTOR.fields}
        assert set(field_names(value)) == there, name
        compared += 1
    assert compared >= 8


def _is_value(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


@pytest.mark.parametrize("turn", TURNS)
def test_through_a_value_and_back_to_the_wire(turn: int) -> None:
    cluster = filled(cluster_pb2.ClusterSpec, turn=turn)
    again = spec_proto.cluster_spec_to_proto(spec_proto.cluster_spec_from_proto(cluster))
    assert_whole(again)
    assert again == cluster
    part = filled(part_pb2.PartSpec, turn=turn)
    part_again = spec_proto.part_spec_to_proto(spec_proto.part_spec_from_proto(part))
    assert_whole(part_again)
    assert part_again == part


@pytest.mark.parametrize("turn", TURNS)
def test_through_the_ledger(turn: int) -> None:
    part = spec_proto.part_spec_from_proto(filled(part_pb2.PartSpec, turn=turn))
    assert decode(PartSpec, encode(part)) == part


@pytest.mark.parametrize("turn", TURNS)
def test_through_the_agent_and_back_to_its_disk(turn: int) -> None:
    record = filled(records_pb2.WantedPart, turn=turn, given=WELL_FORMED)
    for workspace in record.workspaces:
        workspace.disks[0].image, workspace.disks[0].size_mib = DIGEST, 0
        workspace.disks[1].image = ""
    again = part_to_proto(part_from_proto(record))
    assert_whole(again, *OF_EITHER_KIND)
    assert again == record


@pytest.mark.parametrize("turn", TURNS)
def test_from_a_cluster_to_its_parts(turn: int) -> None:
    """Whoever plans, a site alone or a meta-scheduler, makes the same of it."""
    environment, allocation = an_environment(turn), an_allocation(turn)
    group = Group(
        name="w",
        count=2,
        environment=environment,
        allocation=allocation,
        networks=("lan",),
        placement=GroupPlacement(max_per_host=7),
    )
    message = filled(cluster_pb2.ClusterSpec, turn=turn, given={**OF_W, **A_PAIR})
    asked = spec_proto.cluster_spec_from_proto(message)
    cluster = ClusterSpec(
        groups=(group,),
        networks=(Network(name="lan", subnet="10.1.0.0/24"),),
        datasets=asked.datasets,
        volumes=asked.volumes,
    )
    window = Window(samples.NOW, samples.NOW + samples.HOUR)
    plan = Plan(
        window=window,
        sites=(SitePlan(site="north", counts={"w": 2}),),
        images={"w": DIGEST},
        data={"w": (DIGEST,) * len(asked.datasets)},
    )
    placed = layout("uid", cluster, {"w": 2}, plan.site_of(), "c1")
    pinned = replace(environment, image=DIGEST)
    alone = replace(
        cluster,
        groups=(replace(group, environment=pinned),),
        datasets=tuple(replace(each, source=DIGEST) for each in asked.datasets),
    )
    name = ClusterName.parse("sites/north/tenants/demo/clusters/c1")
    part = part_spec_of(name, "uid", alone, {"w": 2}, window, "north")
    assert part == part_specs(str(name), "uid", cluster, plan, placed)["north"]
    assert part.workspaces
    for workspace in part.workspaces:
        assert workspace.environment == pinned
        assert workspace.allocation == allocation
        assert workspace.max_per_host == group.placement.max_per_host
        assert [(each.name, each.disk, each.image) for each in workspace.disks if each.image] == [
            (each.name, each.disk, DIGEST) for each in asked.datasets
        ]
        assert [(each.name, each.disk, each.size_mib) for each in workspace.disks[2:]] == [
            (each.name, each.disk, each.size_mib) for each in asked.volumes
        ]


def test_a_grant_for_a_transfer_says_all_that_its_broker_signs() -> None:
    body = filled(transfers_pb2.TransferGrantBody)
    octets = body.SerializeToString(deterministic=True)
    assert grant_to_body(grant_from_body(octets)) == octets
    assert {field.name for field in body.DESCRIPTOR.fields} == set(field_names(TransferGrant))


@pytest.mark.parametrize("turn", TURNS)
def test_from_a_part_to_the_record_and_to_the_agent(turn: int) -> None:
    environment, allocation = an_environment(turn), an_allocation(turn)
    workspaces = [
        replace(samples.workspace("w", index), environment=environment, allocation=allocation)
        for index in range(2)
    ]
    workspaces = [replace(each, disks=DISKS) for each in workspaces]
    spec = samples.part_spec(
        *workspaces, pairs=(("w-0", "v-0", 30),), remote=("v-0",), link_mbit_s=40
    )
    body, grant = filled(images_pb2.SnapshotGrantBody), filled(images_pb2.SnapshotGrant)
    grant.body = body.SerializeToString()
    part = samples.part(
        spec=replace(spec, host_entries=(HostEntry(address="10.1.0.10", names=("w-0",)),)),
        placed=(Placed(workspace="w-0", host="n1"), Placed(workspace="w-1", host="n2")),
        gateway="n1",
        switched=(("w-0", Switched(power=Power.PAUSED, boots=turn + 1)),),
        snapshots=(
            PartSnapshot(
                workspace="w-0",
                id="s1",
                host="n1",
                grant=grant.SerializeToString(deterministic=True),
                shown=Snapshot(image="sites/north/tenants/demo/images/before"),
            ),
        ),
        network_ids=(NetworkId(network="lan", vni=4096),),
        moving=(
            Moving(
                workspace="w-0", host="n2", number=turn + 1, state=SENDING, since=NOW, aside=True
            ),
        ),
        keeping=Keeping(mib_s=1, save=samples.HOUR, until=samples.NOW + 9 * samples.HOUR),
        remotes=(
            RemoteEndpoint(
                site="south",
                endpoint=Endpoint(network="lan", address="10.250.0.12", port=4790, vni=9),
            ),
        ),
    )
    fleet = Fleet.of([samples.facts("n1"), samples.facts("n2")], samples.POLICY)
    wanted = wanted_of(part, fleet, samples.POLICY, gone=True)["n1"]
    wanted = replace(wanted, generation=3)
    record = records_pb2.WantedPart.FromString(wanted_to_bytes(wanted))
    assert_whole(record, "networks[0].pairs[0].bandwidth.cap_mbit_s", *OF_EITHER_KIND)
    [workspace] = part_from_proto(record).workspaces
    assert workspace.disks == DISKS
    assert workspace.environment == environment
    assert workspace.allocation == allocation
    assert workspace.switched == Switched(power=Power.PAUSED, boots=turn + 1)
    assert workspace.snapshot is not None
    assert (workspace.snapshot.id, workspace.snapshot.image_id) == ("s1", "before")
    assert workspace.snapshot.asked_time == body.sign_time.ToDatetime(UTC)
    record.workspaces[0].snapshot.grant.body = b"\xff"
    [unread] = part_from_proto(record).workspaces
    assert unread.snapshot == replace(
        workspace.snapshot,
        asked_time=None,
        grant=record.workspaces[0].snapshot.grant.SerializeToString(deterministic=True),
    )
    assert workspace.migration == Migration(
        number=turn + 1,
        role=Role.SEND,
        host="n2",
        agent_address=fleet.facts["n2"].agent_address,
        aside=True,
    )
