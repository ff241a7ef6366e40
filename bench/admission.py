"""How fast one site admits, durably: beside a bare echo and bare etcd transactions of the same run,
and how many admissions share a transaction.

An admission is what takes capacity and is on the disk of the site's etcd when it is answered: a
user's Create of a cluster that is all here, and a coordinator's Hold of a part, prepared in the
same transaction, which is what a meta-scheduler asks for; one in a call, and 16 in a call of
BatchHold. Of those too admissions are counted, against the same floor of single calls. The loads
take turns with what they are compared with, in short rounds: what a busy machine gives less of,
both get less of, and a median over the rounds stays. All are made by the same bare callers, of
octets that were made before, but for a Hold's, which says when it was sent.
"""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from bench import floors
from bench.images import put_guest_image
from bench.load import Measured, closed_loop
from bench.report import Row, median, show
from bench.site import FarRequests, bare, channel, endpoint, standing
from intertie.api.broker.v1 import part_pb2, parts_pb2
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from testbed.bed import Testbed
from testbed.component import Inside
from testbed.domains import meta_domain, site_domain
from testbed.etcds import endpoints, etcdctl

SITE = "north"
CALLERS = 64
BATCH = 16
DECIDED_WITHIN = timedelta(minutes=9)
"""What is prepared is not asked for meanwhile, and no round comes after it."""


def run(quick: bool) -> None:
    """At the north, in rounds: bare echo, bare transactions, Creates, Holds."""
    with standing() as bed:
        put_guest_image(bed)
        asyncio.run(_run(bed, rounds=3 if quick else 9, calls=512 if quick else 1024))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """One load, and the floor of the same round."""

    load: Measured
    floor: float
    """Calls a second: the smaller of bare echo and bare transactions."""
    per_transaction: float

    @property
    def ratio(self) -> float:
        return self.load.per_second / self.floor


async def _run(bed: Testbed, *, rounds: int, calls: int) -> None:
    own = endpoint(bed, SITE)
    clusters = FarRequests(groups=(("a", SITE),))
    async with channel(own) as user, channel(_coordinator(bed)) as coordinator:
        made = await clusters_pb2_grpc.ClustersStub(user).Create(clusters.next(), timeout=60)
        holds = FarHolds.at(bed, image=made.workspaces[0].image_digest)
        sizes = clusters.next().ByteSize(), made.ByteSize()

        async def creates() -> Measured:
            return await _create(user, [clusters.next() for _ in range(calls)])

        async def held() -> Measured:
            return await _hold(coordinator, [holds.next() for _ in range(calls)])

        async def held_together() -> Measured:
            return await _hold_together(coordinator, [holds.next() for _ in range(calls)])

        loads: dict[str, Callable[[], Awaitable[Measured]]] = {
            "create": creates,
            "hold": held,
            "batch": held_together,
        }
        seen: dict[str, list[_Round]] = {name: [] for name in loads}
        echoes: list[Measured] = []
        etcds: list[Measured] = []
        for number in range(rounds):
            echo = await floors.echo(bed, own, *sizes, calls=2 * calls, callers=CALLERS)
            etcd = await floors.etcd(
                bed, f"{SITE}/ctl", f"{SITE}/broker", calls=2 * calls, callers=CALLERS
            )
            echoes.append(echo)
            etcds.append(etcd)
            # Who comes first has what the floors left in caches; they take turns in that too.
            for name in list(loads)[:: -1 if number % 2 else 1]:
                before = _admitted(bed)
                load = await loads[name]()
                after = _admitted(bed)
                seen[name].append(
                    _Round(
                        load=load,
                        floor=min(echo.per_second, etcd.per_second),
                        per_transaction=after.since(before),
                    )
                )
    _show(seen, echoes, etcds)


def _show(
    seen: dict[str, list[_Round]], echoes: Sequence[Measured], etcds: Sequence[Measured]
) -> None:
    created, held, batch = seen["create"], seen["hold"], seen["batch"]
    rows = [
        *_rows("clusters created, 64 callers", created),
        *_rows("parts held and prepared, 64 callers", held),
        *_rows(f"the same, {BATCH} in a call", batch, of=f"call of {BATCH}"),
        _floor("bare echo of a Create's sizes, mutual TLS", echoes),
        _floor("bare etcd transactions", etcds),
    ]
    figures = _figures(created) | _figures(held, "hold_") | _figures(batch, "batch_")
    show("admission", rows, figures)


def _rows(what: str, rounds: Sequence[_Round], of: str = "call") -> list[Row]:
    rate = Row(
        what=what,
        value=median([each.load.per_second for each in rounds]),
        unit="1/s",
        against="the smaller of echo and etcd",
        ratio=_ratio(rounds),
    )
    return [
        rate,
        Row(what=f"  one {of}, median", value=_p50_ms(rounds), unit="ms"),
        Row(what=f"  one {of}, 99th percentile", value=_p99_ms(rounds), unit="ms"),
        Row(what="  admissions in an etcd transaction", value=_per_transaction(rounds), unit=""),
    ]


def _floor(what: str, measured: Sequence[Measured]) -> Row:
    return Row(what=what, value=median([each.per_second for each in measured]), unit="1/s")


def _figures(rounds: Sequence[_Round], prefix: str = "") -> dict[str, float]:
    return {
        f"{prefix}ratio": round(_ratio(rounds), 3),
        f"{prefix}p50_ms": round(_p50_ms(rounds), 2),
        f"{prefix}p99_ms": round(_p99_ms(rounds), 2),
        f"{prefix}per_transaction": round(_per_transaction(rounds), 2),
    }


def _ratio(rounds: Sequence[_Round]) -> float:
    return median([each.ratio for each in rounds])


def _p50_ms(rounds: Sequence[_Round]) -> float:
    return median([each.load.p50_ms for each in rounds])


def _p99_ms(rounds: Sequence[_Round]) -> float:
    return median([each.load.p99_ms for each in rounds])


def _per_transaction(rounds: Sequence[_Round]) -> float:
    return median([each.per_transaction for each in rounds])


# Loads


async def _create(
    to: grpc.aio.Channel, requests: Sequence[clusters_pb2.CreateClusterRequest]
) -> Measured:
    bodies = [each.SerializeToString() for each in requests]
    call = bare(to, clusters_pb2, "Clusters", "Create")
    measured, answers = await _load(call, bodies.__getitem__, len(bodies))
    made = [cluster_pb2.Cluster.FromString(each) for each in answers]
    assert len({each.uid for each in made}) == len(bodies)
    assert {each.state for each in made} == {cluster_pb2.Cluster.SCHEDULED}
    return measured


async def _hold(to: grpc.aio.Channel, requests: Sequence[parts_pb2.HoldPartRequest]) -> Measured:
    call = bare(to, parts_pb2, "Parts", "Hold")
    measured, answers = await _load(call, lambda each: _sent([requests[each]]), len(requests))
    held = [parts_pb2.HoldPartResponse.FromString(each) for each in answers]
    assert len({each.part.name for each in held}) == len(requests)
    assert {each.part.state for each in held} == {part_pb2.Part.PREPARED}
    return measured


async def _hold_together(
    to: grpc.aio.Channel, requests: Sequence[parts_pb2.HoldPartRequest]
) -> Measured:
    """Admissions a second, and what one call took."""
    batches = [requests[first : first + BATCH] for first in range(0, len(requests), BATCH)]
    call = bare(to, parts_pb2, "Parts", "BatchHold")
    measured, answers = await _load(call, lambda each: _sent(batches[each], True), len(batches))
    results = [
        result
        for each in answers
        for result in parts_pb2.BatchHoldPartsResponse.FromString(each).results
    ]
    refused = [each.refusal.message for each in results if each.HasField("refusal")]
    assert not refused, f"{len(refused)} of {len(requests)} holds were refused, first: {refused[0]}"
    assert len({each.held.part.name for each in results}) == len(requests)
    assert {each.held.part.state for each in results} == {part_pb2.Part.PREPARED}
    return replace(measured, per_second=measured.per_second * len(requests) / len(batches))


def _sent(requests: Sequence[parts_pb2.HoldPartRequest], together: bool = False) -> bytes:
    """With the moment at which they are: a site refuses what was 2 s on its way."""
    for each in requests:
        each.coordinator_time.CopyFrom(_moment(datetime.now(UTC)))
    if together:
        return parts_pb2.BatchHoldPartsRequest(requests=requests).SerializeToString()
    [request] = requests
    return request.SerializeToString()


async def _load(
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes],
    body: Callable[[int], bytes],
    calls: int,
) -> tuple[Measured, list[bytes]]:
    answers: list[bytes] = []

    async def once(number: int) -> object:
        answers.append(answer := await call(body(number), timeout=60))
        return answer

    measured = await closed_loop(once, calls=calls, callers=CALLERS)
    return measured, answers


def _coordinator(bed: Testbed) -> dict[str, Any]:
    """The meta-scheduler's own way to the site."""
    credential = meta_domain(bed.places, bed.topology).service_credential("metasched")
    files = {"certificate": str(credential.certificate), "key": str(credential.key)}
    return endpoint(bed, SITE) | files


@dataclass(slots=True, kw_only=True)
class FarHolds:
    """Holds of one workspace for a minute each, one after another and days ahead."""

    coordinator: str
    image: str
    number: int = 0

    @classmethod
    def at(cls, bed: Testbed, *, image: str) -> FarHolds:
        domain = meta_domain(bed.places, bed.topology).name
        return cls(coordinator=f"spiffe://{domain}/metasched", image=image)

    def next(self) -> parts_pb2.HoldPartRequest:
        self.number += 1
        now, tx = datetime.now(UTC), uuid.uuid4().hex
        start = now + timedelta(days=40, minutes=2 * self.number)
        member = part_pb2.PartNetwork.Member(
            workspace="a-0", site=SITE, mac="02:00:00:00:00:01", address="10.1.0.10/24"
        )
        spec = part_pb2.PartSpec(
            cluster=f"metascheds/meta/tenants/demo/clusters/h{self.number}",
            cluster_uid=tx[:12],
            networks=[
                part_pb2.PartNetwork(name="lan", subnet="10.1.0.0/24", members=[member]),
            ],
        )
        spec.window.start_time.CopyFrom(_moment(start))
        spec.window.end_time.CopyFrom(_moment(start + timedelta(minutes=1)))
        workspace = spec.workspaces.add(group="a")
        workspace.environment.image = self.image
        workspace.allocation.vcpus = 1
        workspace.allocation.memory_mib = 128
        workspace.allocation.disk_mib = 256
        workspace.nics.add(network="lan", mac=member.mac, address=member.address)
        return parts_pb2.HoldPartRequest(
            parent=f"sites/{SITE}/tenants/demo",
            part_id=f"p{tx[:24]}",
            spec=spec,
            tx=tx,
            digest="b3:" + "cd" * 32,
            coordinator=self.coordinator,
            participants=[SITE],
            decide_by=_moment(now + DECIDED_WITHIN),
            coordinator_time=_moment(now),
            request_id=tx,
            prepare=True,
        )


def _moment(at: datetime) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(at)
    return moment


# What etcd says of admissions


@dataclass(frozen=True, slots=True, kw_only=True)
class _Admitted:
    """By the key that every transaction that admits counts up."""

    admissions: int
    transactions: int

    def since(self, before: _Admitted) -> float:
        """Admissions a transaction."""
        return (self.admissions - before.admissions) / (self.transactions - before.transactions)


def _admitted(bed: Testbed) -> _Admitted:
    places, topology = bed.places, bed.topology
    [address] = endpoints(topology.ctl_address(SITE), 1)
    said = etcdctl(
        places,
        Inside(netns=places.ctl_netns(SITE)),
        site_domain(places, SITE),
        address,
        *("get", f"/intertie/{SITE}/ledger/generation", "-w", "json"),
    )
    [found] = json.loads(said.stdout)["kvs"]
    return _Admitted(
        admissions=int(base64.b64decode(found["value"])), transactions=found["version"]
    )
