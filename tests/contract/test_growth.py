"""How far guests grow while they run: what an agent says of it is what its site says."""

from __future__ import annotations

import pytest

from intertie.api.nodeagent.v1 import records_pb2 as pb
from intertie.broker.adapters.agent_records import facts_from_bytes
from intertie.broker.domain.offers import HostView
from intertie.broker.site_proto import host_to_proto
from intertie.common.quantities import Vector
from intertie.nodeagent.convert import facts_to_proto
from intertie.nodeagent.domain.machine import MachineFacts, growth_of
from intertie.nodeagent.domain.report import Capacity, HostFacts
from tests.fakes.clock import START

NOTHING = Capacity(
    vcpus=0, memory_mib=0, disk_mib=0, iops=0, throughput_mib_s=0, uplink_mbit_s=0
)  # fmt: skip


def said(octets: bytes) -> tuple[int, int] | None:
    facts = facts_from_bytes(octets, "n1")
    assert facts is not None
    view = HostView(
        site="north", facts=facts, capacity=Vector(), free=Vector(), alive=True, workspaces=0
    )
    host = host_to_proto(view)
    return (host.growth.memory, host.growth.vcpus) if host.HasField("growth") else None


@pytest.mark.parametrize(
    ("hypervisors", "memory", "vcpus", "told"),
    [
        (("kvm", "qemu"), 2, None, (2, 4)),
        (("kvm", "qemu"), 1, 1, (1, 1)),
        (("qemu",), 1, 3, (1, 3)),
        (("qemu",), 1, None, (1, 2)),
        ((), 1, 16, (1, 16)),
    ],
)
def test_it_is_told_of_guests_of_the_preferred_hypervisor(
    hypervisors: tuple[str, ...], memory: int, vcpus: int | None, told: tuple[int, int]
) -> None:
    machine = MachineFacts(
        hypervisors=hypervisors,
        architecture="x86_64",
        disk_cache="none",
        cgroups=True,
        memory_growth=memory,
        vcpu_growth=vcpus,
    )
    facts = HostFacts(
        host="n1", capacity=NOTHING, address="", agent_address="", growth=growth_of(machine)
    )
    assert said(facts_to_proto(facts, now=START).SerializeToString()) == told


def test_an_agent_that_does_not_say_is_not_made_to_say() -> None:
    message = pb.HostFacts(schema=1, host="n1")
    message.report_time.FromDatetime(START)
    assert said(message.SerializeToString()) is None
