"""Durable admissions a second at one site, against a bare echo and bare etcd transactions."""

from __future__ import annotations

import asyncio

from bench import floors
from bench.images import put_guest_image
from bench.load import closed_loop
from bench.report import Row, show
from bench.site import FarRequests, channel, endpoint, testbed
from intertie.api.cluster.v1 import clusters_pb2_grpc
from testbed.bed import Testbed

CALLERS = 64


def run(quick: bool) -> None:
    """Creates clusters at the north, each admitted by its broker and on its etcd's disk."""
    with testbed() as bed:
        put_guest_image(bed)
        asyncio.run(_run(bed, calls=256 if quick else 2048))


async def _run(bed: Testbed, *, calls: int) -> None:
    own = endpoint(bed, "north")
    requests = FarRequests(groups=(("a", "north"),))
    async with channel(own) as to:
        clusters = clusters_pb2_grpc.ClustersStub(to)

        async def create(number: int) -> object:
            return await clusters.Create(requests.next(), timeout=60)

        await closed_loop(create, calls=8, callers=8)
        ours = await closed_loop(create, calls=calls, callers=CALLERS)
    size = requests.next().ByteSize()
    echo = await floors.echo(bed, own, size, calls=4 * calls, callers=CALLERS)
    etcd = await floors.etcd(bed, "north/ctl", "north/broker", calls=4 * calls, callers=CALLERS)
    floor = min(echo.per_second, etcd.per_second)
    ratio = ours.per_second / floor
    show(
        "admission",
        [
            Row(
                what="clusters admitted, 64 callers",
                value=ours.per_second,
                unit="1/s",
                against="the smaller of the two below",
                ratio=ratio,
            ),
            Row(what=f"bare echo of {size} bytes, mutual TLS", value=echo.per_second, unit="1/s"),
            Row(what="bare etcd transactions", value=etcd.per_second, unit="1/s"),
            Row(what="one admission, median", value=ours.p50_ms, unit="ms"),
            Row(what="one admission, 99th percentile", value=ours.p99_ms, unit="ms"),
        ],
        {"ratio": round(ratio, 3), "p50_ms": ours.p50_ms, "p99_ms": ours.p99_ms},
    )
