"""What leases that are over cost a leader: before they are put aside, and after."""

from __future__ import annotations

import asyncio
import gc
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from bench.big_site import NOW, BigSite, big_site
from bench.report import Row, median, show
from intertie.broker.adapters import keys
from intertie.broker.adapters.etcd_ledger import EtcdLedger
from intertie.broker.adapters.etcd_reads import EtcdReads
from intertie.broker.domain.account import Account
from intertie.broker.domain.archiving import RESTS
from intertie.broker.domain.book import Book
from intertie.broker.domain.cluster import ClusterRecord, ClusterState
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.records import Record
from intertie.broker.loops.reconcile import Reconcile
from intertie.broker.loops.retention import Retention
from intertie.broker.usecases.forwarding import Forwarding
from intertie.common import logs
from intertie.common.clock import SystemClock
from intertie.common.etcd.client import Compare, Etcd, Put
from intertie.common.etcd.records import encode
from intertie.common.process import collect_gently
from intertie.common.values import replace
from tests.fakes.room import FakeRoom
from tests.integration.etcd_server import EtcdServer

LIVE = 1_000
ROUNDS = 5
TOGETHER = 60
"""Records that are written in one transaction."""
QUESTIONS = {
    "read_ms": "a new leader reads all and makes its book",
    "compare_ms": "all keys are compared with the book",
    "pass_ms": "the first pass over all",
    "hot_kib": "octets in the ledger's keys",
}


class Late(SystemClock):
    """A little after all of them have ended."""

    def now(self) -> datetime:
        return NOW + RESTS + timedelta(seconds=1)


class Leads:
    """By a key that nobody else writes."""

    is_leader = True

    def __init__(self, created: int) -> None:
        self._created = created

    def leader_guard(self) -> Compare:
        return Compare.created("election/broker", self._created)

    async def leader(self) -> str:
        return "this"


def run(quick: bool) -> None:
    """No testbed: one real etcd of one member, and a broker's ledger and passes."""
    collect_gently()
    logs.configure("bench", "warning")
    asyncio.run(_run(2_000 if quick else 10_000))


async def _run(ended: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = EtcdServer(Path(folder))
        await asyncio.to_thread(server.start)
        try:
            etcd = await Etcd.connect(server.settings("/bench"))
            await _measure(etcd, ended)
            await etcd.close()
        finally:
            server.kill()


async def _measure(etcd: Etcd, ended: int) -> None:
    site = big_site(100, LIVE + ended)
    done = await etcd.txn([], [Put("election/broker", b"this")])
    desk = _Desk(etcd, site, Leads(done.revision))
    parts = list(site.view.parts.values())
    records = {each.value.part: each.value for each in site.view.clusters.values()}
    live = parts[:LIVE]
    await _write(etcd, (r for each in live for r in (each.value, records[each.value.name])))
    alone = await desk.costs()
    over = (each.value for each in parts[LIVE:])
    await _write(etcd, (r for each in over for r in _over(each, records[each.name])))
    before = await desk.costs()
    took_s = await desk.put_aside()
    after = await desk.costs()
    show(
        "retention",
        [
            *(
                Row(
                    what=f"{QUESTIONS[name]}, {ended:,} over",
                    value=after[name],
                    unit="KiB" if name == "hot_kib" else "ms",
                    against=f"{before[name]:,.1f} before they were put aside",
                    ratio=after[name] / before[name],
                )
                for name in QUESTIONS
            ),
            Row(what="put aside", value=ended / took_s, unit="leases/s"),
        ],
        {
            "live": LIVE,
            "ended": ended,
            "live_alone": _rounded(alone),
            "before": _rounded(before),
            "after": _rounded(after),
            "ratio": {name: round(after[name] / before[name], 3) for name in QUESTIONS},
            "put_aside_per_s": round(ended / took_s),
        },
    )


def _over(part: Part, cluster: ClusterRecord) -> tuple[Record, ...]:
    """As each is once it has been cancelled, and written down."""
    return (
        replace(
            part, state=PartState.ENDED, end_time=NOW, end_requested_time=NOW, confirm_time=NOW
        ),
        replace(cluster, state=ClusterState.CANCELLED, end_time=NOW, end_requested_time=NOW),
        Account(name=part.name, until=max(NOW, part.window.start), number=1),
    )


async def _write(etcd: Etcd, records: Iterable[Record]) -> None:
    some: list[Put] = []
    for each in records:
        some.append(Put(keys.of_record(each), encode(each)))
        if len(some) == TOGETHER:
            await etcd.txn([], some)
            some = []
    if some:
        await etcd.txn([], some)


def _rounded(costs: dict[str, float]) -> dict[str, float]:
    return {name: round(each, 2) for name, each in costs.items()}


@dataclass(frozen=True, slots=True)
class _Desk:
    etcd: Etcd
    site: BigSite
    leads: Leads

    def _ledger(self) -> EtcdLedger:
        return EtcdLedger(self.etcd, self.leads, self.site.policy, Late())

    async def costs(self) -> dict[str, float]:
        ledger = self._ledger()
        await ledger.view()

        async def read() -> None:
            view, _ = await EtcdReads(self.etcd, self.site.policy).mirrored()
            Book.of(view)

        async def look() -> None:
            await Reconcile(ledger, self.site.policy, Late()).sweep()

        hot = 0
        for prefix in keys.LEDGER:
            entries = (await self.etcd.range(prefix)).entries
            hot += sum(len(each.key) + len(each.value) for each in entries)
        return {
            "read_ms": await _timed(read),
            "compare_ms": await _timed(ledger.read_again),
            "pass_ms": await _timed(look),
            "hot_kib": hot / 1024,
        }

    async def put_aside(self) -> float:
        ledger, clock = self._ledger(), Late()
        await ledger.view()
        began = clock.monotonic()
        await Retention(ledger, Forwarding(ledger, None, clock, FakeRoom()), clock).sweep()
        return clock.monotonic() - began


async def _timed(what: Callable[[], Awaitable[Any]]) -> float:
    """Milliseconds, the median of some rounds."""
    clock, took = SystemClock(), []
    for _ in range(ROUNDS):
        gc.collect()
        began = clock.monotonic()
        await what()
        took.append(1000 * (clock.monotonic() - began))
    return median(took)
