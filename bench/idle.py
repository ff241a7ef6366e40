"""What the services and the agents cost while guests run and nothing is asked of them."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from bench.images import put_guest_image
from bench.report import Row, show
from bench.site import channel, endpoint, small_guests, standing
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.nodeagent.settings import Settings
from testbed.bed import Testbed
from testbed.topology import HostSpec, SiteSpec, Topology

KINDS = ("broker", "imagestore", "nodeagent", "metasched", "etcd", "libvirtd")
HOST = HostSpec(
    name="n1",
    vcpus=80,
    memory_mib=8192,
    disk_gib=40,
    pool_iops=60_000,
    pool_mib_s=20_000,
    gateway=True,
)
AGENT = "north/n1/nodeagent"
OFTEN_S = 0.25
MORE_OFTEN = 1 / OFTEN_S - 1 / float(Settings.model_fields["period_s"].default)
"""Passes a second."""
SETTLES_S = 6
"""After a start: it finds its guests, and looks at all."""
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one process over a while."""

    cpu: float
    """Share of one core."""
    memory_mib: float


def run(quick: bool) -> None:
    """At one site of one host, with 0, 20 and 60 guests (quick: 0 and 4) that do nothing. CPU is
    what each process was given, so that guests beside it take nothing from the figure."""
    topology = Topology(sites=(SiteSpec(name="north", hosts=(HOST,)),), cpu_overcommit=40)
    with standing(topology) as bed:
        put_guest_image(bed)
        rows: list[Row] = []
        agents: dict[str, float] = {}
        passes: dict[str, float] = {}
        name = ""
        for guests in (0, 4) if quick else (0, 20, 60):
            name = asyncio.run(_grown(bed, name, guests))
            costs = _watch(bed, seconds=10 if quick else 30)
            agents[str(guests)] = round(costs["nodeagent"].cpu, 4)
            rows += [
                Row(
                    what=f"{guests} guests: {kind}, {cost.memory_mib:.0f} MiB",
                    value=100 * cost.cpu,
                    unit="%",
                    against="one core",
                    ratio=cost.cpu,
                )
                for kind, cost in costs.items()
            ]
            often = _agent_often(bed, seconds=10 if quick else 30)
            passes[str(guests)] = round(1000 * (often - costs["nodeagent"].cpu) / MORE_OFTEN, 1)
            rows.append(
                Row(
                    what=f"{guests} guests: one reconcile pass of the agent",
                    value=passes[str(guests)],
                    unit="ms CPU",
                )
            )
        show("idle", rows, {"agent_cpu": agents, "pass_ms": passes})


async def _grown(bed: Testbed, before: str, guests: int) -> str:
    """A cluster of so many guests, all of them ready, in the place of the one before."""
    async with channel(endpoint(bed, "north")) as to:
        clusters = clusters_pb2_grpc.ClustersStub(to)
        if before:
            await clusters.Delete(clusters_pb2.DeleteClusterRequest(name=before), timeout=60)
            async for seen in clusters.Watch(clusters_pb2.WatchClusterRequest(name=before)):
                if seen.state == cluster_pb2.Cluster.CANCELLED:
                    break
        if not guests:
            return ""
        made = await clusters.Create(small_guests(guests), timeout=60)
        async for seen in clusters.Watch(clusters_pb2.WatchClusterRequest(name=made.name)):
            if seen.state == cluster_pb2.Cluster.FAILED:
                raise RuntimeError(f"{made.name}: {seen.failure.message}")
            if seen.state == cluster_pb2.Cluster.ACTIVE:
                break
        return made.name


def _agent_often(bed: Testbed, *, seconds: int) -> float:
    """The share of a core that the agent takes when it makes a pass each OFTEN_S: what that is
    more, is what the passes cost that there are more of."""
    agent = bed.component(AGENT)
    config = bed.places.configs / f"{AGENT.replace('/', '.')}.toml"
    text = config.read_text()
    config.write_text(f"period_s = {OFTEN_S}\n{text}")
    agent.restart()
    time.sleep(SETTLES_S)
    try:
        return _watch(bed, seconds=seconds)["nodeagent"].cpu
    finally:
        config.write_text(text)
        agent.restart()
        time.sleep(SETTLES_S)


def _watch(bed: Testbed, *, seconds: int) -> dict[str, Cost]:
    pids = _pids(bed)
    time.sleep(3)
    before = {kind: _ticks(pid) for kind, pid in pids.items()}
    began = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    return {
        kind: Cost(
            cpu=(_ticks(pid) - before[kind]) / TICKS / passed,
            memory_mib=int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / (1 << 20),
        )
        for kind, pid in pids.items()
    }


def _pids(bed: Testbed) -> dict[str, int]:
    """One process of each kind, the site's where there are several."""
    found: dict[str, int] = {}
    for path in bed.places.pids.glob("*.json"):
        kind = next((each for each in KINDS if each in path.stem), "")
        if kind and (kind not in found or "north" in path.stem):
            found[kind] = json.loads(path.read_text())["pid"]
    return {kind: found[kind] for kind in KINDS if kind in found}


def _ticks(pid: int) -> int:
    """Of user and system time, its own and that of the programs that it ran and has seen end."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(each) for each in fields[11:15])
