"""The ledger in etcd and the one in memory, and what others do to their stores."""

from __future__ import annotations

from typing import Protocol

from intertie.api.broker.v1 import site_pb2
from intertie.api.nodeagent.v1 import records_pb2
from intertie.broker.adapters.etcd_ledger import EtcdLedger
from intertie.broker.adapters.etcd_usage import EtcdUsage
from intertie.broker.domain.fleet import HostFacts, SeenPart
from intertie.broker.domain.guarantees import MeasuredDirection, MeasuredPart
from intertie.broker.domain.ports import Ledger, UsageRecords
from intertie.common.clock import SystemClock
from intertie.common.etcd.client import Compare, DeleteKey, Etcd, Put
from intertie.common.guarantees import GuaranteeKind
from intertie.common.rpc.spec_proto import timestamp_to_proto
from tests.fakes.ledger import MemoryLedger
from tests.unit.broker.samples import NOW, POLICY

IOPS = MeasuredDirection(
    kind=GuaranteeKind.DISK_IOPS, source="w-0", value=99.5, backlogged=True, below_since=NOW
)


class Kind(Protocol):
    """A ledger, and what others do to its store."""

    ledger: Ledger
    usage: UsageRecords

    async def report(self, found: HostFacts) -> None: ...
    async def see(self, seen: SeenPart) -> None: ...
    async def measure(self, host: str, *uids: str) -> None: ...
    async def depose(self) -> None: ...


class InMemory:
    def __init__(self) -> None:
        self.memory = MemoryLedger(POLICY)
        self.ledger: Ledger = self.memory
        self.usage: UsageRecords = self.memory.usage

    async def report(self, found: HostFacts) -> None:
        self.memory.report(found)

    async def see(self, seen: SeenPart) -> None:
        self.memory.see(seen)

    async def measure(self, host: str, *uids: str) -> None:
        self.memory.measure(host, dict.fromkeys(uids, MeasuredPart(at=NOW, directions=(IOPS,))))

    async def depose(self) -> None:
        self.memory.leading = False


class Leads:
    """Led by whoever wrote the key."""

    def __init__(self, created: int) -> None:
        self.created = created
        self.is_leader = True

    def leader_guard(self) -> Compare:
        return Compare.created("election/broker", self.created)

    async def leader(self) -> str:
        return "another"


class InEtcd:
    def __init__(self, etcd: Etcd, ledger: EtcdLedger) -> None:
        self.etcd = etcd
        self.ledger: Ledger = ledger
        self.usage: UsageRecords = EtcdUsage(etcd)

    @classmethod
    async def of(cls, etcd: Etcd) -> InEtcd:
        done = await etcd.txn([], [Put("election/broker", b"this")])
        return cls(etcd, EtcdLedger(etcd, Leads(done.revision), POLICY, SystemClock()))

    async def report(self, found: HostFacts) -> None:
        message = records_pb2.HostFacts(
            schema=1,
            host=found.host,
            capacity=site_pb2.Capacity(**dict(found.capacity.items())),
            address=found.address,
            agent_address=found.agent_address,
            gateway=found.gateway,
            wide_address=found.wide_address,
            wide_port=found.wide_port,
            hypervisors=found.hypervisors,
            architecture=found.architecture,
            report_time=timestamp_to_proto(found.report_time),
            mtu=found.mtu,
            wide_mtu=found.wide_mtu,
            migrates=found.migrates,
            cpu=found.cpu,
        )
        await self._put(f"seen/{found.host}/facts", message.SerializeToString())

    async def see(self, seen: SeenPart) -> None:
        message = records_pb2.SeenPart(
            schema=1, part_uid=seen.part_uid, generation=seen.generation, gone=seen.gone
        )
        await self._put(f"seen/{seen.host}/parts/{seen.part_uid}", message.SerializeToString())

    async def measure(self, host: str, *uids: str) -> None:
        message = records_pb2.HostMeasured(
            schema=1, host=host, measured_time=timestamp_to_proto(NOW)
        )
        for uid in uids:
            message.parts.add(part_uid=uid).directions.add(
                kind=IOPS.kind,
                source=IOPS.source,
                value=IOPS.value,
                backlogged=True,
                below_since=timestamp_to_proto(NOW),
            )
        await self._put(f"seen/{host}/measured", message.SerializeToString())

    async def depose(self) -> None:
        await self.etcd.txn([], [DeleteKey("election/broker")])
        await self._put("election/broker", b"another")

    async def _put(self, key: str, value: bytes) -> None:
        await self.etcd.txn([], [Put(key, value)])
