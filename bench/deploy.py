"""From Create until all guests are ready, against the same guests started by bare `virsh`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from bench.bare_guests import BareGuest, copies, seconds_to_ready
from bench.images import put_guest_image
from bench.report import Row, median, show
from bench.site import channel, endpoint, small_guests, standing
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.common.values import replace
from testbed.bed import Testbed
from testbed.topology import HostSpec, SiteSpec, Topology

HOSTS = ("north/n1", "north/n2")
ROOMY = HostSpec(name="n1", gateway=True, vcpus=8, pool_mib_s=1000)
"""Twelve guests go on two of them."""
RUNNING = cluster_pb2.Workspace.RUNNING


@dataclass(slots=True, kw_only=True)
class Deployment:
    """Moments of one cluster, in seconds since Create was called."""

    admitted: float = 0.0
    first_running: float = 0.0
    all_running: float = 0.0
    ready: float = 0.0


def run(quick: bool) -> None:
    """At the north: 1, 4 and 12 guests (quick: 1 and 4), images on the hosts already."""
    site = SiteSpec(name="north", hosts=(ROOMY, replace(ROOMY, name="n2", gateway=False)))
    with standing(Topology(sites=(site,))) as bed:
        put_guest_image(bed)
        asyncio.run(_deploy(bed, 2))  # brings the image to both hosts
        sizes, rounds = ((1, 4), 1) if quick else ((1, 4, 12), 3)
        rows: list[Row] = []
        ratios: dict[str, float] = {}
        for count in sizes:
            found = [_both(bed, count) for _ in range(rounds)]
            ratio = median([ours.ready / bare for ours, bare in found])
            ratios[str(count)] = round(ratio, 3)
            rows += _rows(count, found[0][0], [bare for _, bare in found], ratio, found)
        worst = max(ratios.values())
        show("deploy", rows, {"ratio": worst, "ratios": ratios})


def _both(bed: Testbed, count: int) -> tuple[Deployment, float]:
    ours, guests = asyncio.run(_deploy(bed, count))
    return ours, seconds_to_ready(bed, guests)


def _rows(
    count: int,
    one: Deployment,
    bare: list[float],
    ratio: float,
    found: list[tuple[Deployment, float]],
) -> list[Row]:
    ready = median([ours.ready for ours, _ in found])
    peer = median(bare)
    many = f"{count} guest{'s' if count > 1 else ''}"
    return [
        Row(
            what=f"{many}: Create to all ready", value=ready, unit="s", against="bare", ratio=ratio
        ),
        Row(what=f"{many}: bare virsh to all ready", value=peer, unit="s"),
        Row(what="  of ours: until admitted", value=one.admitted, unit="s"),
        Row(what="  until the first is RUNNING", value=one.first_running - one.admitted, unit="s"),
        Row(what="  until all are", value=one.all_running - one.first_running, unit="s"),
        Row(what="  until all are ready", value=one.ready - one.all_running, unit="s"),
    ]


async def _deploy(bed: Testbed, count: int) -> tuple[Deployment, list[BareGuest]]:
    moments, began = Deployment(), time.monotonic()
    async with channel(endpoint(bed, "north")) as to:
        clusters = clusters_pb2_grpc.ClustersStub(to)
        made = await clusters.Create(small_guests(count), timeout=60)
        moments.admitted = time.monotonic() - began
        async for seen in clusters.Watch(clusters_pb2.WatchClusterRequest(name=made.name)):
            now = time.monotonic() - began
            running = sum(each.state == RUNNING for each in seen.workspaces)
            if running and not moments.first_running:
                moments.first_running = now
            if running == count and not moments.all_running:
                moments.all_running = now
            if seen.state == cluster_pb2.Cluster.ACTIVE:
                moments.ready = now
                break
            if seen.state == cluster_pb2.Cluster.FAILED:
                raise RuntimeError(f"{made.name}: {seen.failure.message}")
        guests = await asyncio.to_thread(copies, bed, HOSTS)
        if len(guests) != count:
            raise RuntimeError(f"{count} guests were made, {len(guests)} are on {HOSTS}")
        await clusters.Delete(clusters_pb2.DeleteClusterRequest(name=made.name), timeout=60)
        async for seen in clusters.Watch(clusters_pb2.WatchClusterRequest(name=made.name)):
            if seen.state == cluster_pb2.Cluster.CANCELLED:
                break
    return moments, guests
