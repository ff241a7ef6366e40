"""A site as large as is asked for, in memory: hosts, parts on them over time, a leader's book."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from intertie.broker.domain.book import Book
from intertie.broker.domain.cluster import ClusterRecord, ClusterState
from intertie.broker.domain.fleet import Fleet, HostFacts, LinkPolicy, Policy
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import Placed
from intertie.common.intervals import Window
from intertie.common.part_spec import PartNetwork, PartSpec, PartWorkspace
from intertie.common.quantities import Vector
from intertie.common.spec import Allocation, ClusterSpec, DiskTerm, Environment, Group, Network
from intertie.common.values import replace

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DIGEST = "b3:" + "ab" * 32
OF_A_HOST = Vector(
    vcpus=64,
    memory_mib=256 << 10,
    disk_mib=4 << 20,
    iops=8000,
    throughput_mib_s=800,
    uplink_mbit_s=10_000,
)
AT_A_TIME = 45
"""Parts that a host has at any moment: seven tenths of it, whatever the size of the site."""
LASTS = timedelta(days=1)
SMALL = Allocation(
    vcpus=1, memory_mib=2048, disk_mib=10_240, disk=DiskTerm(cap_iops=50, cap_mib_s=5)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BigSite:
    policy: Policy
    fleet: Fleet
    view: LedgerView
    """As it is read from a store."""
    now: datetime
    until: datetime
    """When the last part begins."""

    def book(self) -> Book:
        return Book.of(self.view)


def big_site(hosts: int, parts: int, *, seed: int = 1) -> BigSite:
    """Every host is as busy as any other, all the time: with fewer hosts, parts reach further
    into the future."""
    draw = random.Random(seed)
    names = tuple(f"n{number:04}" for number in range(hosts))
    policy = Policy(
        site="north",
        hosts=names,
        links=(LinkPolicy(peer="south", egress_mbit_s=10_000, ingress_mbit_s=10_000),),
    )
    fleet = Fleet.of((_facts(name) for name in names), policy)
    of_each = -(-parts // hosts)
    gap = LASTS / AT_A_TIME
    found: dict[str, Versioned[Part]] = {}
    clusters: dict[str, Versioned[ClusterRecord]] = {}
    workspace, network = _workspace(), PartNetwork(name="lan", subnet="10.1.0.0/24", members=())
    for number in range(parts):
        host, place = names[number % hosts], number // hosts
        start = NOW - LASTS / 2 + gap * (place + draw.random())
        window = Window(start, start + LASTS * draw.uniform(0.8, 1.2))
        cluster = f"sites/north/tenants/t{number % 50}/clusters/c{number}"
        spec = PartSpec(
            cluster=cluster,
            cluster_uid=f"{number:012x}",
            window=window,
            workspaces=(workspace,),
            networks=(network,),
        )
        part = Part(
            name=f"sites/north/tenants/t{number % 50}/parts/c{number:012x}",
            state=PartState.CONFIRMED,
            spec=spec,
            owner="alice",
            create_time=NOW,
            seed="seed",
            placed=(Placed(workspace="w-0", host=host),),
        )
        found[part.name] = Versioned(value=part, revision=number + 1)
        record = ClusterRecord(
            name=cluster,
            uid=spec.cluster_uid,
            spec=asked(1),
            owner="alice",
            state=ClusterState.SCHEDULED,
            part=part.name,
            window=window,
            counts=(("w", 1),),
            cost=1.0,
            reasons=(),
            shortfalls=(),
            create_time=NOW,
        )
        clusters[cluster] = Versioned(value=record, revision=number + 1)
    view = LedgerView(parts=found, clusters=clusters, fleet=fleet, generation=parts)
    return BigSite(policy=policy, fleet=fleet, view=view, now=NOW, until=NOW + gap * of_each)


def asked(count: int, *, vcpus: int = 1) -> ClusterSpec:
    """A cluster of one group, with what a user need not say."""
    group = Group(
        name="w",
        count=count,
        environment=Environment(image=DIGEST),
        allocation=replace(SMALL, vcpus=vcpus),
        networks=("lan",),
    )
    return ClusterSpec(groups=(group,), networks=(Network(name="lan", subnet="10.1.0.0/24"),))


def _workspace() -> PartWorkspace:
    environment = Environment(image=DIGEST)
    return PartWorkspace(group="w", index=0, environment=environment, allocation=SMALL, nics=())


def _facts(name: str) -> HostFacts:
    number = int(name[1:])
    return HostFacts(
        host=name,
        capacity=OF_A_HOST,
        address=f"10.201.{number // 250}.{1 + number % 250}",
        gateway=number == 0,
        wide_address="10.250.0.11" if number == 0 else "",
        hypervisors=("qemu",),
        architecture="x86_64",
        report_time=NOW,
    )
