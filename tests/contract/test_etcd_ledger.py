"""What the ledger in etcd does about a store that breaks off, and about what it was not told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from intertie.broker.adapters.etcd_ledger import EtcdLedger
from intertie.broker.domain.fleet import Fleet, SeenPart
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.reconcile import Tell, step_of
from intertie.broker.domain.records import Change, Write
from intertie.common.clock import SystemClock
from intertie.common.errors import EtcdUnavailable
from intertie.common.etcd.client import Change as Seen
from intertie.common.etcd.client import Compare, DeleteKey, Etcd, Op, Put, TxnResult
from intertie.common.etcd.records import encode
from tests.contract.ledgers import InEtcd, Leads
from tests.integration.etcd_server import EtcdServer
from tests.unit.broker.samples import NOW, POLICY, facts, part, part_spec, workspace


class Deaf(Etcd):
    """Watches tell nothing."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.listens = asyncio.Event()

    async def watch(self, prefix: str, start_revision: int = 0) -> AsyncGenerator[Seen, None]:
        self.listens.set()
        await asyncio.Event().wait()
        yield Seen(revision=0)


class BreaksOff(Etcd):
    """Takes one transaction more, and no other."""

    left = 1

    async def txn(self, compare: Sequence[Compare], then: Sequence[Op]) -> TxnResult:
        if self.left == 0:
            raise EtcdUnavailable("for a test")
        self.left -= 1
        return await super().txn(compare, then)


@pytest.mark.etcd
async def test_hosts_that_a_leader_did_not_get_to_are_told_of_the_generation_before(
    etcd_server: EtcdServer, etcd_prefix: str
) -> None:
    hosts = [f"n{number}" for number in range(1, 201)]
    wide = part(
        spec=part_spec(*(workspace("w", number) for number in range(200))),
        placed=tuple(Placed(workspace=f"w-{at}", host=host) for at, host in enumerate(hosts)),
    )
    fleet = Fleet(facts={host: facts(host) for host in hosts})
    first = step_of(wide, {}, {}, fleet, POLICY, now=NOW)
    assert isinstance(first, Tell)
    etcd = await Etcd.connect(etcd_server.settings(etcd_prefix))
    breaks = await BreaksOff.connect(etcd_server.settings(etcd_prefix))
    try:
        done = await etcd.txn([], [Put("election/broker", b"this")])
        ledger = EtcdLedger(etcd, Leads(done.revision), POLICY, SystemClock())
        broken = EtcdLedger(breaks, Leads(done.revision), POLICY, SystemClock())
        write = Write(record=first.part)
        revision = await ledger.commit(Change(writes=(write,), wanted=first.wanted))
        ending = step_of(
            first.part.ending(now=NOW, reason="CANCELLED"),
            (await ledger.view()).told[wide.uid],
            {},
            fleet,
            POLICY,
            now=NOW,
        )
        assert isinstance(ending, Tell)
        write = Write(record=ending.part, read_at=revision)
        with pytest.raises(EtcdUnavailable):
            await broken.commit(Change(writes=(write,), wanted=ending.wanted))
        await ledger.read_again()  # as whoever leads next does
        found_told = (await ledger.view()).told[wide.uid]
        assert set(found_told) == set(hosts)
        assert set(found_told.values()) == {1, 2}
        again = step_of(ending.part, found_told, {}, fleet, POLICY, now=NOW)
        assert isinstance(again, Tell)
        found = await ledger.part(wide.path)
        assert found is not None
        write = Write(record=again.part, read_at=found.revision)
        await ledger.commit(Change(writes=(write,), wanted=again.wanted))
        assert (await ledger.view()).told[wide.uid] == dict.fromkeys(hosts, 3)
    finally:
        await etcd.close()
        await breaks.close()


@pytest.mark.etcd
async def test_what_is_changed_behind_the_leaders_back_is_found_by_the_next_look(
    etcd_server: EtcdServer, etcd_prefix: str
) -> None:
    """Straight in etcd: a record put, one written over, one taken away; each is as it is there
    after one look, and a look that finds nothing fails nothing that stands in line."""
    etcd = await Etcd.connect(etcd_server.settings(etcd_prefix))
    try:
        ledger = (await InEtcd.of(etcd)).ledger
        assert isinstance(ledger, EtcdLedger)
        first, second = part("t1", PartState.HELD), part("t2", PartState.HELD)
        for each in (first, second):
            await ledger.commit(Change(writes=(Write(record=each),)))
        over = first.move(PartState.EXPIRED, now=NOW)
        foreign: list[tuple[Op, dict[str, Part]]] = [
            (Put("parts/demo/t1", encode(over)), {over.name: over, second.name: second}),
            (DeleteKey("parts/demo/t2"), {over.name: over}),
            (
                Put("parts/demo/t3", encode(part("t3"))),
                {over.name: over, part("t3").name: part("t3")},
            ),
        ]
        for op, expected in foreign:
            before = (await ledger.view()).parts
            await etcd.txn([], [op])
            assert (await ledger.view()).parts == before, "nothing tells a leader of it"
            await ledger.read_again()
            assert {
                name: each.value for name, each in (await ledger.view()).parts.items()
            } == expected
        view = await ledger.view()
        waiting = [
            ledger.submit(Change(writes=(Write(record=part(f"m{number}")),)))
            for number in range(300)
        ]
        await asyncio.gather(ledger.read_again(), *waiting)
        await ledger.read_again()
        assert (await ledger.view()).parts is view.parts
        assert len(view.parts) == 302
    finally:
        await etcd.close()


@pytest.mark.etcd
async def test_what_agents_say_is_found_though_no_watch_told_it(
    etcd_server: EtcdServer, etcd_prefix: str
) -> None:
    etcd = await Deaf.connect(etcd_server.settings(etcd_prefix))
    kind = await InEtcd.of(etcd)
    ledger = kind.ledger
    assert isinstance(ledger, EtcdLedger)
    await kind.report(facts("n1"))
    await kind.see(SeenPart(host="n1", part_uid="u1", generation=1))
    following = asyncio.create_task(ledger.follow())
    try:
        await asyncio.wait_for(etcd.listens.wait(), 30)
        assert set((await ledger.view()).fleet.facts) == {"n1"}
        await kind.report(facts("n2"))
        await etcd.txn([], [DeleteKey("seen/n1/parts/u1")])
        assert set((await ledger.view()).fleet.facts) == {"n1"}
        assert set(await ledger.seen()) == {"u1"}
        await ledger.read_again()
        assert set((await ledger.view()).fleet.facts) == {"n1", "n2"}
        assert await ledger.seen() == {}
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await etcd.close()
