"""One commit over three sites, against the least that any such commit must do."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path

from bench import floors
from bench.images import put_guest_image
from bench.load import closed_loop
from bench.report import Row, median, show
from bench.site import FarRequests, channel, endpoint, standing
from intertie.api.cluster.v1 import clusters_pb2_grpc
from testbed.bed import Testbed
from testbed.topology import HostSpec, SiteSpec, Topology, WanLink

SITES = ("north", "south", "west")
TRANSACTIONS = 3
"""Hold, prepare and confirm, at the sites in parallel; the decision comes on top."""
ROUND_TRIPS = 4
"""The caller's, and one to the sites, in parallel, for each of hold, prepare and confirm."""


def run(quick: bool) -> None:
    """Creates clusters over three sites through the meta-scheduler, one at a time."""
    with standing(_topology()) as bed:
        put_guest_image(bed)
        asyncio.run(_run(bed, calls=20 if quick else 200))


def _topology() -> Topology:
    sites = tuple(
        SiteSpec(name=name, hosts=(HostSpec(name=f"{name[0]}1", gateway=True),)) for name in SITES
    )
    pairs = [(a, b) for number, a in enumerate(SITES) for b in SITES[number + 1 :]]
    return Topology(sites=sites, links=tuple(WanLink(a=a, b=b, mbps=200) for a, b in pairs))


async def _run(bed: Testbed, *, calls: int) -> None:
    requests = FarRequests(groups=tuple((name, name) for name in SITES))
    async with channel(endpoint(bed, "meta")) as to:
        clusters = clusters_pb2_grpc.ClustersStub(to)

        async def create(number: int) -> object:
            return await clusters.Create(requests.next(), timeout=60)

        await closed_loop(create, calls=3, callers=1)
        ours = await closed_loop(create, calls=calls, callers=1)
    size = requests.next().ByteSize()
    echo_ms = await _slowest_echo(bed, size, calls=10 * calls)
    etcd_ms = await _slowest_etcd(bed, calls=10 * calls)
    register = await floors.etcd(bed, "meta", "meta/metasched", calls=10 * calls, callers=1)
    floor = TRANSACTIONS * etcd_ms + register.p50_ms + ROUND_TRIPS * echo_ms
    ratio = ours.p50_ms / floor
    # Planning is of the Create, not of the commit; and so is the caller's own round trip.
    commit_ms = median(_plan_to_decision_ms(bed.places.log_file("meta/metasched"))[-calls:])
    commit_ratio = commit_ms / (floor - echo_ms)
    show(
        "coordination",
        [
            Row(
                what="Create over three sites, planned and committed, median",
                value=ours.p50_ms,
                unit="ms",
                against="floor",
                ratio=ratio,
            ),
            Row(what="the same, 99th percentile", value=ours.p99_ms, unit="ms"),
            Row(
                what="of it the commit, from plan to decision, median",
                value=commit_ms,
                unit="ms",
                against="floor without the caller's round trip",
                ratio=commit_ratio,
            ),
            Row(what="floor: 3 transactions, 1 register, 4 round trips", value=floor, unit="ms"),
            Row(what="bare transaction at three etcds at once", value=etcd_ms, unit="ms"),
            Row(what="bare transaction at the register's etcd", value=register.p50_ms, unit="ms"),
            Row(what="bare round trip to three servers at once", value=echo_ms, unit="ms"),
        ],
        {
            "ratio": round(commit_ratio, 2),
            "commit_ms": round(commit_ms, 2),
            "floor_ms": round(floor - echo_ms, 2),
            "create_ratio": round(ratio, 2),
            "create_ms": round(ours.p50_ms, 2),
            "create_floor_ms": round(floor, 2),
        },
    )


def _plan_to_decision_ms(log: Path) -> list[float]:
    """As the meta-scheduler's own log has it, of each cluster that it committed."""
    planned: dict[str, datetime] = {}
    took: list[float] = []
    for line in log.read_text().splitlines():
        if "create.planned" in line or "commit.committed" in line:
            entry = json.loads(line)
            at = datetime.fromisoformat(entry["timestamp"])
            if entry["event"] == "create.planned":
                planned[entry["cluster"]] = at
            else:
                took.append(1000 * (at - planned[entry["cluster"]]).total_seconds())
    return took


async def _slowest_echo(bed: Testbed, size: int, *, calls: int) -> float:
    """Median of one round trip while the other sites have theirs, at the slowest."""
    found = await asyncio.gather(
        *(
            floors.echo(bed, endpoint(bed, site), size, size, calls=calls, callers=1, site=site)
            for site in SITES
        )
    )
    return max(each.p50_ms for each in found)


async def _slowest_etcd(bed: Testbed, *, calls: int) -> float:
    found = await asyncio.gather(
        *(
            floors.etcd(bed, f"{site}/ctl", f"{site}/broker", calls=calls, callers=1)
            for site in SITES
        )
    )
    return max(each.p50_ms for each in found)
