"""A leader is killed at any write as it puts leases aside: each stays in one place."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from intertie.broker.adapters import keys
from intertie.broker.adapters.archive import unpacked
from intertie.broker.adapters.etcd_ledger import EtcdLedger
from intertie.broker.domain.account import Account
from intertie.broker.domain.archiving import KEPT, RESTS
from intertie.broker.domain.cluster import ClusterState
from intertie.broker.domain.part import Part, PartState
from intertie.broker.loops.retention import Retention
from intertie.broker.usecases.forwarding import Forwarding
from intertie.common.errors import EtcdUnavailable
from intertie.common.etcd.client import Compare, DeleteKey, Op, Put, TxnResult
from intertie.common.etcd.records import encode
from intertie.common.values import replace
from tests.contract.test_ledger import a_cluster
from tests.fakes.clock import FakeClock
from tests.fakes.etcd import MemoryEtcd
from tests.fakes.room import FakeRoom
from tests.unit.broker.samples import HOUR, NOW, POLICY, part
from tests.unit.broker.test_line import Leads

LEASES = 60
"""More than one transaction has room for."""
STEPS = 3
"""Transactions of a pass over so many."""


class Mortal(MemoryEtcd):
    """One process's way to a store that outlives it."""

    def __init__(self, store: MemoryEtcd, *, at: int, after: bool) -> None:
        self.__dict__ = store.__dict__
        self.left, self.after = [at], after

    async def txn(self, compare: Sequence[Compare], then: Sequence[Op]) -> TxnResult:
        self.left[0] -= 1
        if self.left[0] < 0 or (self.left[0] == 0 and not self.after):
            raise EtcdUnavailable("the process is gone")
        done = await super().txn(compare, then)
        if self.left[0] == 0:
            raise EtcdUnavailable("the process is gone")
        return done


def ended(number: int) -> Part:
    return part(f"c{number}", state=PartState.ENDED, end_time=NOW + HOUR, confirm_time=NOW)


async def written(store: MemoryEtcd) -> None:
    for number in range(LEASES):
        each = ended(number)
        cluster = replace(
            a_cluster(),
            name=f"sites/north/tenants/demo/clusters/k{number}",
            part=each.name,
            state=ClusterState.ENDED,
            end_time=NOW + HOUR,
        )
        spec = replace(each.spec, cluster=cluster.name)
        records = (
            replace(each, spec=spec),
            cluster,
            Account(name=each.name, until=NOW + HOUR, number=number + 1),
        )
        await store.txn([], [Put(keys.of_record(record), encode(record)) for record in records])


async def leads(store: MemoryEtcd, etcd: MemoryEtcd, clock: FakeClock) -> Retention:
    key = "election/broker"
    await store.txn([], [DeleteKey(key)])
    done = await store.txn([], [Put(key, b"this")])
    ledger = EtcdLedger(etcd, Leads(done.revision), POLICY, clock)
    return Retention(ledger, Forwarding(ledger, None, clock, FakeRoom()), clock)


async def swept(clock: FakeClock, retention: Retention) -> None:
    sweep = asyncio.create_task(retention.sweep())
    while not sweep.done():
        await clock.advance(0.001)
    await sweep


async def places(store: MemoryEtcd) -> list[tuple[bool, bool, bool]]:
    """Of each lease: whether it is among what lives, has a tombstone, and is in the archive."""
    there = {each.key: each.value for each in (await store.range("")).entries}
    found = []
    for number in range(LEASES):
        names = f"parts/demo/c{number}", f"clusters/demo/k{number}", f"accounts/demo/c{number}"
        hot = {name in there for name in names}
        cold = {
            f"archive/parts/demo/c{number}" in there,
            f"archive/clusters/demo/k{number}/u" in there,
        }
        assert len(hot) == len(cold) == 1, "some of it went alone"
        if octets := there.get(f"archive/parts/demo/c{number}"):
            assert unpacked(Part, octets).end_time == NOW + HOUR
        found.append((hot.pop(), f"tombs/parts/demo/c{number}" in there, cold.pop()))
    return found


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
async def test_each_lease_is_at_one_place_whenever_a_leader_is_killed(
    step: int, after: bool
) -> None:
    store, clock = MemoryEtcd(), FakeClock(NOW + HOUR + RESTS)
    await written(store)
    first = await leads(store, Mortal(store, at=step, after=after), clock)
    with pytest.raises(EtcdUnavailable, match="gone"):
        await swept(clock, first)
    for each in await places(store):
        assert each in ((True, False, False), (False, True, True))
    second = await leads(store, store, clock)
    await swept(clock, second)
    assert set(await places(store)) == {(False, True, True)}

    # A day after, nothing is left; not a moment earlier.
    await clock.advance((NOW + HOUR + KEPT - clock.now()).total_seconds() - 1)
    await swept(clock, second)
    assert set(await places(store)) == {(False, True, True)}
    await clock.advance(1)
    await swept(clock, second)
    assert set(await places(store)) == {(False, False, False)}
