"""What a site's control plane carries: reads and durable admissions a second, against a bare echo
of the same sizes and bare etcd transactions.

All loads are made by the same bare callers, of octets that were made before: what is compared is
what is called. What was answered is read when the clock has stopped.
"""

from __future__ import annotations

import asyncio

import grpc

from bench import floors
from bench.images import put_guest_image
from bench.load import Measured, closed_loop
from bench.report import Row, show
from bench.site import FarRequests, bare, channel, endpoint, standing
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from testbed.bed import Testbed

CALLERS = 64
CLUSTERS = 8
"""That reads go round."""


def run(quick: bool) -> None:
    """At the north: gets clusters, then creates them, each admitted by its broker and on its
    etcd's disk."""
    with standing() as bed:
        put_guest_image(bed)
        asyncio.run(_run(bed, reads=4096 if quick else 16384, admissions=512 if quick else 2048))


async def _run(bed: Testbed, *, reads: int, admissions: int) -> None:
    own = endpoint(bed, "north")
    requests = FarRequests(groups=(("a", "north"),))
    async with channel(own) as to:
        clusters = clusters_pb2_grpc.ClustersStub(to)
        made = [await clusters.Create(requests.next(), timeout=60) for _ in range(CLUSTERS)]
        read = await _read(to, made, reads)
        asked = clusters_pb2.GetClusterRequest(name=made[0].name)
        sizes = asked.ByteSize(), made[0].ByteSize()
        read_echo = await floors.echo(bed, own, *sizes, calls=reads, callers=CALLERS)
        admitted = await _admit(to, [requests.next() for _ in range(admissions)])
    sizes = requests.next().ByteSize(), made[0].ByteSize()
    echo = await floors.echo(bed, own, *sizes, calls=4 * admissions, callers=CALLERS)
    etcd = await floors.etcd(
        bed, "north/ctl", "north/broker", calls=4 * admissions, callers=CALLERS
    )
    floor = min(echo.per_second, etcd.per_second)
    read_ratio = read.per_second / read_echo.per_second
    admission_ratio = admitted.per_second / floor
    show(
        "control",
        [
            _rate("clusters read, 64 callers", read, "bare echo of the same sizes", read_ratio),
            _rate("bare echo, mutual TLS", read_echo),
            _rate(
                "clusters admitted, 64 callers",
                admitted,
                "the smaller of the two below",
                admission_ratio,
            ),
            _rate("bare echo, mutual TLS", echo),
            _rate("bare etcd transactions", etcd),
            Row(what="one read, 99th percentile", value=read.p99_ms, unit="ms"),
            Row(what="one admission, median", value=admitted.p50_ms, unit="ms"),
            Row(what="one admission, 99th percentile", value=admitted.p99_ms, unit="ms"),
        ],
        {
            "read_ratio": round(read_ratio, 3),
            "admission_ratio": round(admission_ratio, 3),
            "reads_per_second": round(read.per_second, 1),
            "admissions_per_second": round(admitted.per_second, 1),
        },
    )


async def _read(to: grpc.aio.Channel, made: list[cluster_pb2.Cluster], reads: int) -> Measured:
    names = [each.name for each in made]
    bodies = [clusters_pb2.GetClusterRequest(name=name).SerializeToString() for name in names]
    call = bare(to, clusters_pb2, "Clusters", "Get")
    answers: list[bytes] = []

    async def get(number: int) -> object:
        answers.append(answer := await call(bodies[number % len(bodies)], timeout=60))
        return answer

    await closed_loop(get, calls=CALLERS, callers=CALLERS)
    measured = await closed_loop(get, calls=reads, callers=CALLERS)
    assert {cluster_pb2.Cluster.FromString(each).name for each in answers} == set(names)
    return measured


async def _admit(
    to: grpc.aio.Channel, requests: list[clusters_pb2.CreateClusterRequest]
) -> Measured:
    bodies = [each.SerializeToString() for each in requests]
    call = bare(to, clusters_pb2, "Clusters", "Create")
    answers: list[bytes] = []

    async def create(number: int) -> object:
        answers.append(answer := await call(bodies[number], timeout=60))
        return answer

    measured = await closed_loop(create, calls=len(bodies), callers=CALLERS)
    made = [cluster_pb2.Cluster.FromString(each) for each in answers]
    assert len({each.uid for each in made}) == len(bodies)
    assert {each.state for each in made} == {cluster_pb2.Cluster.SCHEDULED}
    return measured


def _rate(what: str, measured: Measured, against: str = "", ratio: float | None = None) -> Row:
    return Row(what=what, value=measured.per_second, unit="1/s", against=against, ratio=ratio)
