"""What is asked for and carried to a host changes something there, or in what its site counts.

Fields are found by reflection: one that is added to an environment or an allocation and that
nothing asks for fails here. Carried and then not asked for is as bad as lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message

from intertie.api.cluster.v1 import cluster_pb2
from intertie.api.types.v1 import resources_pb2
from intertie.broker.domain.fleet import Fleet
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.planning import part_spec_of
from intertie.broker.domain.wanted import wanted_of
from intertie.common.intervals import Window
from intertie.common.names import ClusterName
from intertie.common.rpc.spec_proto import allocation_from_proto, environment_from_proto
from intertie.common.spec import Allocation, ClusterSpec, Environment, Group, Network, demand_of
from intertie.common.values import replace
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.machine import MachineFacts, hypervisor_for, machine_of
from intertie.nodeagent.domain.seed import seed_files
from tests.contract.filled import filled, leaves, most_values
from tests.unit.broker import samples
from tests.unit.nodeagent.parts import DIGEST, PART, WORKSPACE

M = TypeVar("M", bound=Message)

TURNS = range(most_values(cluster_pb2.ClusterSpec.DESCRIPTOR))

ELSEWHERE = {
    "image": "the loop stages it, and makes the root disk of it",
    "ready_within": "the loop reports a guest as failed that is not ready by then",
    "pairs.group": "whom a promise is to: another is one of another machine",
    "pairs.network": "likewise, of another network",
    "availability.on_isolation": "the loop stops a guest whose host is cut off",
    "availability.stop_after": "likewise, so long after",
    "availability.on_host_loss": "its broker starts it elsewhere once its host is fenced",
    "availability.on_site_loss": "its meta-scheduler has it begin at another site",
    "availability.on_link_loss": "likewise",
}
"""What a field does that changes nothing of what is compared here."""

GIVEN = {"intertie.api.types.v1.Environment.hypervisor": "kvm"}
FILES = WorkspaceFiles(Path("/data"))
FACTS = MachineFacts(
    hypervisors=("qemu", "kvm"), architecture="x86_64", disk_cache="none", cgroups=True
)


def an_environment() -> resources_pb2.Environment:
    return resources_pb2.Environment(image=DIGEST)


def an_allocation() -> resources_pb2.Allocation:
    """Of a group `w` that promises something to another."""
    pair = resources_pb2.PairTerm(
        group="v", network="lan", bandwidth=resources_pb2.BandwidthTerm(guarantee_mbit_s=1)
    )
    return resources_pb2.Allocation(vcpus=1, memory_mib=64, disk_mib=64, pairs=[pair])


def cases(message: Message) -> list[Any]:
    found = [(".".join(each.name for each in path), path) for path in leaves(message.DESCRIPTOR)]
    return [pytest.param(path, id=name) for name, path in found if name not in ELSEWHERE]


@pytest.mark.parametrize("path", cases(an_environment()))
def test_a_field_of_an_environment_does_something(path: tuple[Any, ...]) -> None:
    plain = told_to_a_guest(an_environment())
    assert any(
        told_to_a_guest(with_field(an_environment(), path, turn)) != plain for turn in TURNS
    ), "it arrives at the agent and changes neither seed nor machine: say in ELSEWHERE what it does"


@pytest.mark.parametrize("path", cases(an_allocation()))
def test_a_field_of_an_allocation_does_something(path: tuple[Any, ...]) -> None:
    plain = taken_and_told(an_allocation())
    assert any(
        taken_and_told(with_field(an_allocation(), path, turn)) != plain for turn in TURNS
    ), "neither is it counted, nor is a host told of it: say in ELSEWHERE what it does"


def test_there_is_every_field_that_does_something_elsewhere() -> None:
    there = {
        ".".join(field.name for field in path)
        for message in (an_environment(), an_allocation())
        for path in leaves(message.DESCRIPTOR)
    }
    assert there >= ELSEWHERE.keys()


def with_field(message: M, path: tuple[Any, ...], turn: int) -> M:
    """The message with one field more, or another value of it."""
    source: Any = filled(type(message), turn=turn, given=GIVEN)
    target: Any = message
    for field in path[:-1]:
        source, target = getattr(source, field.name), getattr(target, field.name)
        if field.is_repeated:
            source, target = source[0], target[0]
    value = getattr(source, path[-1].name)
    if path[-1].is_repeated:
        getattr(target, path[-1].name).extend(value)
    elif path[-1].message_type is not None:
        getattr(target, path[-1].name).CopyFrom(value)
    else:
        setattr(target, path[-1].name, value)
    return message


def told_to_a_guest(message: resources_pb2.Environment) -> tuple[Any, ...]:
    """Its seed, the document that libvirt gets, and of which kind the machine is."""
    workspace = replace(WORKSPACE, environment=environment_from_proto(message, "environment"))
    return (
        seed_files(PART, workspace),
        machine_of(PART, workspace, FILES, FACTS),
        hypervisor_for(workspace, FACTS.hypervisors),
    )


def taken_and_told(message: resources_pb2.Allocation) -> tuple[Any, ...]:
    """What a workspace takes from its host, the document that libvirt gets, and what both hosts are
    told of it beside its allocation."""
    allocation = allocation_from_proto(message, "allocation")
    workspace = replace(WORKSPACE, allocation=allocation)
    return (
        demand_of(allocation, nics=1),
        machine_of(PART, workspace, FILES, FACTS),
        told_to_hosts(allocation),
    )


def told_to_hosts(allocation: Allocation) -> list[Any]:
    least = Allocation(vcpus=1, memory_mib=64, disk_mib=64)
    groups = tuple(
        Group(
            name=name,
            count=1,
            environment=Environment(image=DIGEST),
            allocation=its,
            networks=("lan",),
        )
        for name, its in (("w", allocation), ("v", least))
    )
    cluster = ClusterSpec(groups=groups, networks=(Network(name="lan", subnet="10.1.0.0/24"),))
    name = ClusterName.parse("sites/north/tenants/demo/clusters/c1")
    window = Window(samples.NOW, samples.NOW + samples.HOUR)
    part = samples.part(
        spec=part_spec_of(name, "uid", cluster, {"w": 1, "v": 1}, window, "north"),
        placed=(Placed(workspace="w-0", host="n1"), Placed(workspace="v-0", host="n2")),
    )
    fleet = Fleet.of([samples.facts("n1"), samples.facts("n2")], samples.POLICY)
    return [
        replace(
            told,
            workspaces=tuple(replace(each, allocation=least) for each in told.workspaces),
        )
        for told in wanted_of(part, fleet, samples.POLICY, gone=False).values()
    ]
