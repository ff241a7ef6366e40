"""The agents of a site, as its records show them to its broker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from intertie.api.broker.v1 import site_pb2
from intertie.api.cluster.v1 import cluster_pb2
from intertie.api.nodeagent.v1 import records_pb2
from intertie.api.types.v1 import snapshot_pb2, used_pb2
from intertie.common.clock import Clock, SystemClock
from intertie.common.etcd.client import DeleteKey, Etcd, Put
from intertie.common.rpc.spec_proto import timestamp_to_proto

READY = cluster_pb2.Workspace.RUNNING
SUSPENDED = cluster_pb2.Workspace.SUSPENDED
MIB = 1 << 20


@dataclass
class FakeAgents:
    """Does at once what is wanted of every host, and says so; `hosts` name those that live."""

    etcd: Etcd
    hosts: Mapping[str, Mapping[str, int]]
    gateway: str = ""
    ready: bool = True
    obedient: bool = True
    deaf: set[str] = field(default_factory=set)
    """Hosts that live, and do nothing of what they are told."""
    silent: set[str] = field(default_factory=set)
    """Hosts that do nothing at all."""
    fenced_epochs: dict[str, int] = field(default_factory=dict)
    """What each has been told of its own fencing, and has obeyed."""
    agent_address: str = "127.0.0.1:1"
    state: Any = READY
    save_ms: int = 500
    """What it takes to save a guest, as they tell it."""
    saves: dict[tuple[str, str], int] = field(default_factory=dict)
    """How often, by host and workspace's uid."""
    kept: set[tuple[str, str]] = field(default_factory=set)
    snapshot: snapshot_pb2.Snapshot = field(default_factory=snapshot_pb2.Snapshot)
    """How far they are with each that they are to make."""
    used: dict[str, used_pb2.Used] = field(default_factory=dict)
    """What they count, by workspace."""
    ways: list[records_pb2.Way] = field(default_factory=list)
    """What the gateway says of them."""
    sends: bool = True
    """False: whoever is to go to another host cannot be sent."""
    wanted: dict[tuple[str, str], records_pb2.WantedPart] = field(default_factory=dict)

    async def report(self, clock: Clock) -> None:
        for position, (host, capacity) in enumerate(self.hosts.items()):
            if host in self.silent:
                continue
            at_gateway = host == self.gateway
            facts = records_pb2.HostFacts(
                schema=1,
                host=host,
                capacity=site_pb2.Capacity(**capacity),
                address=f"10.201.0.{11 + position}",
                agent_address=self.agent_address,
                gateway=at_gateway,
                wide_address="10.250.0.11" if at_gateway else "",
                wide_port=4790 if at_gateway else 0,
                hypervisors=["qemu"],
                architecture="x86_64",
                report_time=timestamp_to_proto(clock.now()),
                mtu=1500,
                wide_mtu=1500 if at_gateway else 0,
                fenced_epoch=self.fenced_epochs.get(host, 0),
                migrates=True,
                migrates_aside=True,
                ways=self.ways if at_gateway else (),
            )
            await self.put(f"seen/{host}/facts", facts)

    async def put(self, key: str, message: Message) -> None:
        await self.etcd.txn([], [Put(key, message.SerializeToString())])

    async def obey(self) -> None:
        """One pass over everything that is wanted."""
        entries = (await self.etcd.range("wanted/")).entries
        self.wanted = {}
        for entry in entries:
            _, host, kind, *rest = entry.key.split("/")
            if host in self.deaf or host in self.silent:
                continue
            if kind == "host":
                self._obey_as_a_whole(host, records_pb2.WantedHost.FromString(entry.value))
                continue
            [uid] = rest
            wanted = records_pb2.WantedPart.FromString(entry.value)
            self.wanted[host, uid] = wanted
            await self.put(f"seen/{host}/parts/{uid}", self._seen(wanted, host))
        for entry in (await self.etcd.range("seen/")).entries:
            pieces = entry.key.split("/")
            if pieces[1] in self.deaf or pieces[1] in self.silent:
                continue
            if len(pieces) == 4 and (pieces[1], pieces[3]) not in self.wanted:
                await self.etcd.txn([], [DeleteKey(entry.key)])

    def _obey_as_a_whole(self, host: str, wanted: records_pb2.WantedHost) -> None:
        if wanted.hold == records_pb2.WantedHost.FENCED:
            self.fenced_epochs[host] = wanted.epoch

    def _workspace(
        self, wanted: records_pb2.WantedPart, each: records_pb2.WantedWorkspace, host: str
    ) -> records_pb2.SeenWorkspace:
        """After a window that says so its memory is kept, and in the next one it goes on."""
        key, now = (host, each.uid), SystemClock().now().timestamp()
        seen = records_pb2.SeenWorkspace(
            name=each.name, uid=each.uid, ready=self.ready, used=self.used.get(each.name)
        )
        if wanted.HasField("keep_until") and wanted.window.end_time.ToSeconds() <= now:
            self.saves[key] = self.saves.get(key, 0) + (key not in self.kept)
            self.kept.add(key)
        else:
            self.kept.discard(key)
        seen.state = SUSPENDED if key in self.kept else self.state
        if each.HasField("snapshot"):
            seen.snapshot.id = each.snapshot.id
            seen.snapshot.snapshot.CopyFrom(self.snapshot)
        if each.HasField("migration"):
            self._migrate(each.migration, seen)
        if key in self.saves:
            seen.saved.bytes = each.allocation.memory_mib * MIB
            seen.saved.duration.FromMilliseconds(self.save_ms)
        return seen

    def _migrate(self, migration: records_pb2.Migration, seen: records_pb2.SeenWorkspace) -> None:
        """The source as it is said to go; the target makes all at once."""
        states, said = records_pb2.SeenMigration, seen.migration
        said.number = migration.number
        match migration.role:
            case records_pb2.Migration.TAKE:
                said.state, seen.ready = states.READY, False
                seen.state = cluster_pb2.Workspace.STAGING
            case records_pb2.Migration.SEND if self.sends:
                said.state = states.GIVEN
            case records_pb2.Migration.SEND:
                said.state, said.message = states.FAILED, "the tunnel broke"
            case records_pb2.Migration.ANSWER:
                said.state = states.KEPT

    def _seen(self, wanted: records_pb2.WantedPart, host: str) -> records_pb2.SeenPart:
        return records_pb2.SeenPart(
            schema=1,
            part=wanted.part,
            part_uid=wanted.part_uid,
            generation=wanted.generation,
            obeyed_generation=wanted.generation,
            cleared_generation=wanted.generation,
            gone=wanted.gone,
            workspaces=self._gone(wanted)
            if wanted.gone
            else [self._workspace(wanted, each, host) for each in wanted.workspaces],
        )

    def _gone(self, wanted: records_pb2.WantedPart) -> list[records_pb2.SeenWorkspace]:
        """What those have used that were here."""
        return [
            records_pb2.SeenWorkspace(name=name, state=cluster_pb2.Workspace.ENDED, used=used)
            for name, used in self.used.items()
        ]

    async def run(self, clock: Clock) -> None:
        for turn in range(1_000_000):
            if turn % 50 == 0:
                await self.report(clock)
            if self.obedient:
                await self.obey()
            await clock.sleep(0.1)
