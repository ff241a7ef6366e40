"""The loop around it: what is asked of the host, and how often the site is told."""

from __future__ import annotations

import pytest

from intertie.common.guarantees import GuaranteeKind
from intertie.common.names import DeviceNames
from intertie.common.terms import DiskTerm
from intertie.common.values import replace
from intertie.nodeagent.domain.failures import RecordsUnreadable
from intertie.nodeagent.domain.measured import QueueCounters
from intertie.nodeagent.domain.meters import (
    Queue,
    meters_of,
)
from intertie.nodeagent.domain.ports import DomainCounters
from intertie.nodeagent.domain.wanted import WantedPart
from intertie.nodeagent.loops.measure import PERIOD_S, TOLD_S, Measurer
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.parts import A_UID, PART, PLACE, WORKSPACE

DISK = replace(WORKSPACE.allocation, disk=DiskTerm(guarantee_iops=100, cap_iops=200))
BUSY = replace(PART, workspaces=(replace(WORKSPACE, allocation=DISK),))


class Measuring:
    def __init__(self) -> None:
        self.host = Host()
        self.parts: tuple[WantedPart, ...] = (BUSY,)
        self.loop = Measurer(
            lambda: self.parts,
            self.host.hypervisor,
            self.host.traffic,
            self.host.records,
            self.host.clock,
            PLACE,
        )
        self.operations = 0

    async def period(self, *, operations: int = 0) -> None:
        """A period passes, with so many operations of the guest's disk; then a reading."""
        await self.host.clock.advance(PERIOD_S)
        self.operations += operations
        self.host.hypervisor.counted = {
            DeviceNames.domain(A_UID): DomainCounters(
                read_operations=self.operations, read_bytes=4096 * self.operations
            )
        }
        await self.loop.sweep()

    @property
    def told(self) -> list[dict[GuaranteeKind, float]]:
        return [
            {promise.kind: each.value for promise, each in found.items()}
            for _, found in self.host.records.measured
        ]


async def test_it_writes_what_changes_and_else_now_and_then() -> None:
    measuring = Measuring()
    await measuring.period()
    assert measuring.told == [{}]
    await measuring.period(operations=400)
    await measuring.period(operations=410)
    assert measuring.told == [{}, {GuaranteeKind.DISK_IOPS: 100.0}]
    await measuring.period(operations=0)
    assert measuring.told[2:] == [{GuaranteeKind.DISK_IOPS: 0.0}]
    for _ in range(int(TOLD_S / PERIOD_S)):
        await measuring.period()
    assert len(measuring.told) == 3
    await measuring.period()
    assert measuring.told[3:] == [{GuaranteeKind.DISK_IOPS: 0.0}]
    measuring.parts = ()
    await measuring.period()
    assert measuring.told[4:] == [{}]
    for _ in range(20):
        await measuring.period()
    assert len(measuring.told) == 5


async def test_a_write_that_failed_is_made_good_at_the_next_reading() -> None:
    measuring = Measuring()
    await measuring.period()
    measuring.host.records.readable = False
    with pytest.raises(RecordsUnreadable):
        await measuring.period(operations=400)
    measuring.host.records.readable = True
    await measuring.period(operations=400)
    assert measuring.told == [{}, {GuaranteeKind.DISK_IOPS: 100.0}]


async def test_what_is_sent_is_measured_also_while_libvirt_is_silent() -> None:
    measuring = Measuring()
    queues = {queue for each in meters_of([BUSY], PLACE).flows for queue in each.counted}

    def count(octets: int) -> dict[Queue, QueueCounters]:
        return {queue: QueueCounters(made="1:", bytes=octets, backlog=0) for queue in queues}

    measuring.host.traffic.counted = count(0)
    await measuring.period(operations=400)
    measuring.host.hypervisor.silent = True
    measuring.host.traffic.counted = count(1000)
    await measuring.period(operations=400)
    assert set(measuring.told[-1]) == {GuaranteeKind.PAIR_BANDWIDTH, GuaranteeKind.NIC_BANDWIDTH}
