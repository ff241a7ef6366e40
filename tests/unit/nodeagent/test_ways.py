"""Which ways to other sites are lost, and when the site is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Set
from datetime import timedelta

import pytest

from intertie.common.values import replace
from intertie.nodeagent.convert import facts_to_proto
from intertie.nodeagent.domain.report import HostFacts, SeenWay
from intertie.nodeagent.domain.wanted import WantedPart
from intertie.nodeagent.domain.ways import Answer
from intertie.nodeagent.loops.report import FACTS_S, Reporter
from intertie.nodeagent.loops.ways import PERIOD_S, WayWatcher
from tests.fakes.clock import FakeClock
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.parts import LAN, NOW, PART, WIDE
from tests.unit.nodeagent.test_fenced import FACTS

SOUTH, EAST = "10.250.0.12", "10.250.0.13"
SOON = timedelta(milliseconds=20)


def part_to(*addresses: str) -> WantedPart:
    wide = tuple(replace(WIDE, address=each) for each in addresses)
    return replace(PART, networks=(replace(LAN, wide_tunnels=wide),))


class MemoryEchoes:
    """Whoever is `there` answers within the second, after `takes`."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.there: set[str] = {SOUTH, EAST}
        self.takes = [SOON]
        """The last of them goes on."""
        self.stuck = False
        """This host cannot ask anybody."""
        self.broken: Exception | None = None
        self.asked: list[frozenset[str]] = []
        self._coming: list[Answer] = []

    def ask(self, addresses: Set[str]) -> frozenset[str]:
        if self.broken is not None:
            raise self.broken
        self.asked.append(frozenset(addresses))
        if self.stuck:
            return frozenset()
        takes = self.takes.pop(0) if len(self.takes) > 1 else self.takes[0]
        self._coming += [
            Answer(address=each, at=self._clock.now() + takes, round_trip=takes)
            for each in sorted(addresses)
            if each in self.there
        ]
        return frozenset(addresses)

    def answers(self) -> tuple[Answer, ...]:
        came = [each for each in self._coming if each.at <= self._clock.now()]
        self._coming = [each for each in self._coming if each.at > self._clock.now()]
        return tuple(came)


class Watching:
    def __init__(self, *addresses: str) -> None:
        self.clock = FakeClock(NOW)
        self.echoes = MemoryEchoes(self.clock)
        self.parts: tuple[WantedPart, ...] = (part_to(*addresses),)
        self.watcher = WayWatcher(lambda: self.parts, self.echoes, self.clock)

    async def seconds(self, count: int) -> None:
        for _ in range(count):
            self.watcher.sweep()
            await self.clock.advance(PERIOD_S)

    def take_news(self) -> bool:
        news = self.watcher.changed.is_set()
        self.watcher.changed.clear()
        return news

    @property
    def told(self) -> dict[str, SeenWay]:
        return {each.address: each for each in self.watcher.told()}


async def test_a_way_that_has_answered_is_lost_after_5_s_without_an_answer() -> None:
    watching = Watching(SOUTH, EAST)
    await watching.seconds(10)
    assert watching.told == {
        SOUTH: SeenWay(address=SOUTH, round_trip=SOON),
        EAST: SeenWay(address=EAST, round_trip=SOON),
    }
    last = watching.clock.now() - timedelta(seconds=PERIOD_S) + SOON
    watching.echoes.there = {EAST}
    await watching.seconds(5)
    assert watching.told[SOUTH].lost_since is None
    assert not watching.take_news()
    await watching.seconds(2)
    assert watching.told[SOUTH] == SeenWay(address=SOUTH, lost_since=last)
    assert watching.told[EAST] == SeenWay(address=EAST, round_trip=SOON)
    assert watching.take_news()
    await watching.seconds(60)
    assert watching.told[SOUTH].lost_since == last, "since the same moment, however long"
    assert not watching.take_news()


async def test_the_next_answer_ends_it_and_what_was_before_does_not_count() -> None:
    watching = Watching(SOUTH)
    await watching.seconds(10)
    watching.echoes.there = set()
    await watching.seconds(10)
    assert watching.take_news()
    watching.echoes.there = {SOUTH}
    watching.echoes.takes = [timedelta(milliseconds=90)]
    await watching.seconds(2)
    assert watching.told[SOUTH] == SeenWay(address=SOUTH, round_trip=timedelta(milliseconds=90))
    assert watching.take_news()


async def test_what_has_never_answered_is_unknown_and_not_lost() -> None:
    watching = Watching(SOUTH)
    watching.echoes.there = set()
    await watching.seconds(600)
    assert watching.told == {}
    assert not watching.take_news()


async def test_one_answer_in_five_seconds_will_do() -> None:
    watching = Watching(SOUTH)
    for _ in range(20):
        watching.echoes.there = {SOUTH}
        await watching.seconds(1)
        watching.echoes.there = set()
        await watching.seconds(4)
        assert watching.told[SOUTH].lost_since is None
    assert not watching.take_news()


async def test_a_round_trip_is_the_one_in_the_middle_of_the_last_ten() -> None:
    watching = Watching(SOUTH)
    slow = [timedelta(milliseconds=900)] * 4
    watching.echoes.takes = [*slow, SOON]
    await watching.seconds(5)
    assert watching.told[SOUTH].round_trip == timedelta(milliseconds=900)
    await watching.seconds(5)
    assert watching.told[SOUTH].round_trip == SOON
    await watching.seconds(30)
    watching.echoes.takes = [timedelta(milliseconds=40)]
    await watching.seconds(7)
    assert watching.told[SOUTH].round_trip == timedelta(milliseconds=40)
    assert not watching.take_news(), "a round trip alone is no reason to write"


async def test_a_host_that_stood_still_has_lost_nothing() -> None:
    """Paused for a minute it has asked nobody, and what was on its way may be gone."""
    watching = Watching(SOUTH)
    await watching.seconds(10)
    watching.echoes.there = set()
    watching.watcher.sweep()
    await watching.clock.advance(60)
    watching.echoes.there = {SOUTH}
    await watching.seconds(5)
    assert watching.told[SOUTH] == SeenWay(address=SOUTH, round_trip=SOON)
    assert not watching.take_news()


async def test_who_cannot_ask_knows_nothing_and_takes_nothing_for_lost() -> None:
    watching = Watching(SOUTH)
    await watching.seconds(10)
    watching.echoes.stuck = True
    await watching.seconds(60)
    assert watching.told == {SOUTH: SeenWay(address=SOUTH)}
    assert not watching.take_news()


async def test_what_no_part_names_any_more_is_forgotten() -> None:
    watching = Watching(SOUTH)
    await watching.seconds(10)
    watching.echoes.there = set()
    await watching.seconds(10)
    watching.parts = ()
    await watching.seconds(2)
    assert watching.told == {}
    assert watching.echoes.asked[-1] == frozenset()
    watching.parts = (part_to(SOUTH),)
    await watching.seconds(20)
    assert watching.told == {}, "one that is named anew has never answered"


async def test_nothing_that_goes_wrong_ends_the_watch() -> None:
    watching = Watching(SOUTH)
    watching.echoes.broken = ValueError("a bug")
    running = asyncio.create_task(watching.watcher.run())
    try:
        await watching.clock.advance(5)
        assert not running.done()
        watching.echoes.broken = None
        await watching.clock.advance(5)
        assert watching.told[SOUTH].round_trip == SOON
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.fixture
def host() -> Host:
    return Host()


async def test_the_site_is_told_at_once_and_else_with_the_sign_of_life(host: Host) -> None:
    echoes = MemoryEchoes(host.clock)
    watcher = WayWatcher(lambda: (part_to(SOUTH),), echoes, host.clock)

    async def found() -> HostFacts:
        return replace(FACTS, ways=watcher.told())

    reporter = Reporter(host.agent, host.records, host.clock, found, urgent=watcher.changed)
    tasks = [asyncio.create_task(each) for each in (reporter.run(), watcher.run())]

    async def written(seconds: float) -> list[tuple[SeenWay, ...]]:
        before = len(host.records.told)
        await host.clock.advance(seconds)
        return [each.ways for each in host.records.told[before:]]

    try:
        known = (SeenWay(address=SOUTH, round_trip=SOON),)
        assert await written(FACTS_S - 0.5) == [()]
        assert await written(60) == [known] * 12
        echoes.there = set()
        [*before, lost] = await written(6.5)
        assert [each for [each] in before if each.lost_since] == []
        [way] = lost
        assert way.lost_since is not None
        echoes.there = {SOUTH}
        assert await written(2) == [known]
        echoes.takes = [timedelta(milliseconds=1)]
        assert len(await written(60)) == 12
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_ways_go_with_the_facts() -> None:
    ways = (
        SeenWay(address=SOUTH, round_trip=timedelta(milliseconds=20, microseconds=5)),
        SeenWay(address=EAST, lost_since=NOW),
    )
    south, east = facts_to_proto(replace(FACTS, ways=ways), now=NOW).ways
    assert (south.address, east.address) == (SOUTH, EAST)
    assert south.round_trip.ToTimedelta() == ways[0].round_trip
    assert not south.HasField("lost_since")
    assert east.lost_since.ToDatetime(NOW.tzinfo) == NOW
    assert not east.HasField("round_trip")
