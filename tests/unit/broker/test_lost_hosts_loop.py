"""The loop that has lost hosts fenced, on a ledger in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from intertie.broker.domain.cluster import HOST_LOST, ClusterRecord
from intertie.broker.domain.fleet import HostFacts, Policy, SeenPart
from intertie.broker.domain.link_reservations import LinkReservation
from intertie.broker.domain.lost_hosts import HostState
from intertie.broker.domain.migrating import on_its_way
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.ports import NotCertain
from intertie.broker.domain.queueing import started
from intertie.broker.domain.records import Change, Write
from intertie.broker.loops.lost_hosts import LOOKED_AT_ONCE, LostHosts
from intertie.common.intervals import Window
from intertie.common.values import replace
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import MemoryLedger
from tests.unit.broker.line import view, waits
from tests.unit.broker.samples import NOW, POLICY, facts, part, part_spec, workspace
from tests.unit.broker.test_malleable import between
from tests.unit.broker.test_replacing import on

THREE = replace(POLICY, hosts=("n1", "n2", "n3"))
LOST_AFTER_S = 40


class Fence:
    """`says` is what becomes of it; by default the host is off."""

    def __init__(self) -> None:
        self.asked = 0
        self.says: Callable[[], str] = lambda: "it is off"

    async def fence(self, facts: HostFacts, silent_for: timedelta) -> str:
        self.asked += 1
        return self.says()


class CountingClock(FakeClock):
    slept = 0

    async def sleep(self, seconds: float) -> None:
        self.slept += 1
        await super().sleep(seconds)


class Site:
    def __init__(self) -> None:
        self.clock = CountingClock(NOW)
        self.ledger = MemoryLedger(THREE)
        self.fence = Fence()
        self.silent = {"n1"}
        self.epoch = 0
        """Of which the host that was silent says that nothing of it runs."""
        for host in THREE.hosts:
            self.ledger.report(facts(host))
        self.lead()

    def lead(self, policy: Policy = THREE) -> None:
        self.ledger.term += 1
        lost_after = timedelta(seconds=LOST_AFTER_S)
        self.loop = LostHosts(self.ledger, policy, self.fence, self.clock, lost_after=lost_after)

    async def go_on(self, seconds: int) -> None:
        for _ in range(0, seconds, 2):
            await self.clock.advance(2)
            for host in {*THREE.hosts} - self.silent:
                said = facts(host, report_time=self.clock.now(), fenced_epoch=self.epoch)
                self.ledger.report(said)
            await self.loop.sweep()
            await self.clock.settle()

    async def state(self) -> HostState:
        found = (await self.ledger.view()).hosts.get("n1")
        return found.value.state if found else HostState.UP

    async def turns(self) -> int:
        """Of others, while it sweeps once."""
        before = self.clock.slept
        sweep = asyncio.ensure_future(self.loop.sweep())
        while not sweep.done():
            await self.clock.advance(0)
        await sweep
        return self.clock.slept - before

    async def put(self, of: Part) -> None:
        await self.ledger.commit(Change(writes=(Write(record=of),)))

    async def part(self, name: str) -> Part:
        return (await self.ledger.view()).parts[name].value


def ended(number: int) -> Part:
    """One that counts no more: most parts of a large ledger are such."""
    return part(f"p{number}", PartState.ENDED, end_time=NOW)


def refuses() -> str:
    raise NotCertain("no")


async def test_a_part_of_a_co_allocation_ends_with_its_reason() -> None:
    site = Site()
    of = part(generation=1)
    await site.put(of)
    await site.go_on(LOST_AFTER_S + 10)
    assert await site.state() is HostState.FENCED
    ended = await site.part(of.name)
    assert ended.end_requested_time is not None
    assert ended.end_reason == HOST_LOST
    assert ended.end_message == "host n1 was lost, and with it w-0"


async def many_on(site: Site, *hosts: str) -> Part:
    """A lease that wants two of its four workspaces at least, with the last two on those hosts."""
    record = waits("many", between(2, 4))
    here = view([record])
    fleet = (await site.ledger.view()).fleet
    change = started(replace(here, fleet=fleet), record.name, THREE, "seed", now=NOW)
    await site.ledger.commit(Change(writes=(Write(record=record),)))
    of = next(each.record for each in change.writes if isinstance(each.record, Part))
    first, second, *_ = of.placed
    there = [replace(each, host=at) for each, at in zip(of.placed[2:], hosts, strict=True)]
    there = [replace(first, host="n2"), replace(second, host="n2"), *there]
    running = next(each.record for each in change.writes if isinstance(each.record, ClusterRecord))
    placed = replace(of, placed=tuple(there), generation=1)
    await site.put(placed)
    stored = await site.ledger.cluster("demo", "many")
    assert stored is not None
    write = Write(record=running, read_at=stored.revision)
    await site.ledger.commit(Change(writes=(write,)))
    return placed


async def test_what_one_can_do_without_and_was_there_does_not_end_the_rest_of_it() -> None:
    """A bug: it was HOST_LOST, though ones that fail are given up."""
    site = Site()
    of = await many_on(site, "n1", "n1")
    await site.go_on(LOST_AFTER_S + 10)
    after = await site.part(of.name)
    assert after.end_requested_time is None
    assert {each.workspace: each.host for each in after.placed} == {"w-0": "n2", "w-1": "n2"}
    found = await site.ledger.cluster("demo", "many")
    assert found is not None
    assert dict(found.value.counts) == {"w": 2}
    assert found.value.terms == after.terms


async def test_what_it_cannot_do_without_ends_it() -> None:
    site = Site()
    of = await many_on(site, "n1", "n1")
    at = tuple(replace(each, host={"n1": "n2", "n2": "n1"}[each.host]) for each in of.placed)
    found = (await site.ledger.view()).parts[of.name]
    change = Change(writes=(Write(record=replace(of, placed=at), read_at=found.revision),))
    await site.ledger.commit(change)
    await site.go_on(LOST_AFTER_S + 10)
    assert (await site.part(of.name)).end_reason == HOST_LOST


async def test_what_it_can_do_without_is_given_up_once_nothing_of_it_is_between_hosts() -> None:
    site = Site()
    of = await many_on(site, "n1", "n1")
    found = (await site.ledger.view()).parts[of.name]
    going = on_its_way(of, of, "w-0", "n3", aside=False, now=NOW)
    await site.ledger.commit(Change(writes=(Write(record=going, read_at=found.revision),)))
    await site.go_on(LOST_AFTER_S + 10)
    assert (await site.part(of.name)).end_requested_time is None
    found = (await site.ledger.view()).parts[of.name]
    await site.ledger.commit(Change(writes=(Write(record=of, read_at=found.revision),)))
    await site.go_on(20)
    assert len((await site.part(of.name)).placed) == 2


async def test_a_new_leader_has_watched_nothing_yet() -> None:
    site = Site()
    await site.go_on(LOST_AFTER_S - 4)
    site.lead()
    await site.go_on(LOST_AFTER_S - 4)
    assert await site.state() is HostState.UP
    await site.go_on(20)
    assert await site.state() is HostState.FENCED


async def test_a_host_that_reports_while_it_is_being_fenced_is_let_in_again() -> None:
    site = Site()
    of = part(generation=1)
    await site.put(of)

    def comes_back() -> str:
        site.silent = set()
        site.ledger.report(facts("n1", report_time=site.clock.now()))
        return "it is off"

    site.fence.says = comes_back
    await site.go_on(LOST_AFTER_S + 20)
    assert site.fence.asked == 1
    assert await site.state() is HostState.UP
    assert (await site.part(of.name)).end_requested_time is None
    assert (await site.part(of.name)).silent == ()


async def test_a_fence_that_is_not_certain_is_asked_again_ever_more_seldom_and_moves_nothing() -> (
    None
):
    site = Site()
    of = part(generation=1)
    await site.put(of)
    site.fence.says = refuses
    await site.go_on(LOST_AFTER_S + 300)
    assert 5 < site.fence.asked < 15
    found = (await site.ledger.view()).hosts["n1"].value
    assert (found.state, found.why) == (HostState.FENCING, "not certain yet: no")
    assert (await site.part(of.name)).placed == of.placed
    assert [host for host, _ in (await site.part(of.name)).silent] == ["n1"]


async def test_what_no_host_was_told_of_is_moved_while_nobody_knows_whether_its_host_is_off() -> (
    None
):
    site = Site()
    site.fence.says = refuses
    untold = part(generation=0)
    await site.put(untold)
    await site.go_on(LOST_AFTER_S + 10)
    assert "n1" not in (await site.part(untold.name)).hosts()


async def test_a_host_that_is_gone_for_good_holds_nobody_up() -> None:
    """Each 10 s all parts were looked at in one go: 300 ms for 100 000 of them."""
    site = Site()
    await site.go_on(LOST_AFTER_S + 10)
    assert await site.state() is HostState.FENCED
    writes = tuple(Write(record=ended(number)) for number in range(3 * LOOKED_AT_ONCE))
    await site.ledger.commit(Change(writes=writes))
    await site.clock.advance(10)
    assert await site.turns() >= 6


async def test_a_host_that_is_admitted_no_more_and_has_nothing_is_nobodys_concern() -> None:
    """Its record stayed FENCED, and all parts were looked at each 10 s for ever. Its epoch stays:
    its agent would take the first one of a new record for one that it has obeyed."""
    site = Site()
    await site.go_on(LOST_AFTER_S + 10)
    assert await site.state() is HostState.FENCED
    site.lead(replace(THREE, hosts=("n2", "n3")))
    await site.go_on(20)
    left = (await site.ledger.view()).hosts["n1"].value
    assert (left.state, left.epoch, left.why) == (HostState.UP, 1, "it is admitted no more")
    writes = tuple(Write(record=ended(number)) for number in range(3 * LOOKED_AT_ONCE))
    await site.ledger.commit(Change(writes=writes))
    await site.clock.advance(10)
    assert await site.turns() == 0


async def test_a_host_that_is_admitted_no_more_stays_lost_while_something_is_on_it() -> None:
    site = Site()
    site.fence.says = refuses
    of = part(generation=1)
    await site.put(of)
    await site.go_on(LOST_AFTER_S + 10)
    site.lead(replace(THREE, hosts=("n2", "n3")))
    await site.go_on(20)
    assert await site.state() is HostState.FENCING
    assert [host for host, _ in (await site.part(of.name)).silent] == ["n1"]


async def test_a_host_comes_back_once_it_has_taken_away_what_it_had_of_others() -> None:
    """A bug: it was let in while it had files of a workspace that was elsewhere by then. One that
    came back there as it was put aside had come already, by its old disk."""
    site = Site()
    moved = on(part_spec(workspace("w")), "n2", generation=1)
    await site.put(moved)
    await site.go_on(LOST_AFTER_S + 10)
    assert await site.state() is HostState.FENCED
    site.ledger.see(SeenPart(host="n1", part_uid=moved.uid, generation=1))
    site.silent = set()
    site.epoch = 1
    await site.go_on(20)
    assert await site.state() is HostState.FENCED
    site.ledger.unsee("n1", moved.uid)
    await site.go_on(10)
    assert await site.state() is HostState.UP


async def test_what_came_of_a_fence_is_written_though_another_loop_has_written_of_the_host() -> (
    None
):
    """A bug: then it was lost, and the host was switched off once more."""
    site = Site()
    window = Window(NOW, NOW + timedelta(hours=1))
    kept = LinkReservation(site="south", mbit_s=30, window=window)

    class Meanwhile(Fence):
        async def fence(self, facts: HostFacts, silent_for: timedelta) -> str:
            found = (await site.ledger.view()).hosts["n1"]
            record = replace(found.value, reserved=(kept,))
            await site.ledger.commit(Change(writes=(Write(record=record, read_at=found.revision),)))
            return await super().fence(facts, silent_for)

    site.fence = Meanwhile()
    site.lead()
    await site.go_on(LOST_AFTER_S + 10)
    assert await site.state() is HostState.FENCED
    assert site.fence.asked == 1
    assert (await site.ledger.view()).hosts["n1"].value.reserved == (kept,)
