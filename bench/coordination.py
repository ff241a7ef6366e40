"""One commit over two sites, against the least that any such commit must do."""

from __future__ import annotations

import asyncio

from bench import floors
from bench.images import put_guest_image
from bench.load import closed_loop
from bench.report import Row, show
from bench.site import FarRequests, channel, endpoint, testbed
from intertie.api.cluster.v1 import clusters_pb2_grpc
from testbed.bed import Testbed

TRANSACTIONS = 4
"""Hold, prepare and confirm at the sites (in parallel), and the decision."""
ROUND_TRIPS = 4
"""The caller's, and one to the sites for each of hold, prepare and confirm."""


def run(quick: bool) -> None:
    """Creates clusters over north and south through the meta-scheduler, one at a time."""
    with testbed() as bed:
        put_guest_image(bed)
        asyncio.run(_run(bed, calls=20 if quick else 200))


async def _run(bed: Testbed, *, calls: int) -> None:
    meta, north = endpoint(bed, "meta"), endpoint(bed, "north")
    requests = FarRequests(groups=(("a", "north"), ("b", "south")))
    async with channel(meta) as to:
        clusters = clusters_pb2_grpc.ClustersStub(to)

        async def create(number: int) -> object:
            return await clusters.Create(requests.next(), timeout=60)

        await closed_loop(create, calls=2, callers=1)
        ours = await closed_loop(create, calls=calls, callers=1)
    size = requests.next().ByteSize()
    echo = await floors.echo(bed, north, size, calls=10 * calls, callers=1)
    etcd = await floors.etcd(bed, "north/ctl", "north/broker", calls=10 * calls, callers=1)
    floor = TRANSACTIONS * etcd.p50_ms + ROUND_TRIPS * echo.p50_ms
    ratio = ours.p50_ms / floor
    show(
        "coordination",
        [
            Row(
                what="two-site commit, median",
                value=ours.p50_ms,
                unit="ms",
                against="floor",
                ratio=ratio,
            ),
            Row(what="floor: 4 transactions and 4 round trips", value=floor, unit="ms"),
            Row(what="one bare etcd transaction, median", value=etcd.p50_ms, unit="ms"),
            Row(what="one bare round trip, mutual TLS, median", value=echo.p50_ms, unit="ms"),
        ],
        {"ratio": round(ratio, 2), "p50_ms": ours.p50_ms, "floor_ms": floor},
    )
