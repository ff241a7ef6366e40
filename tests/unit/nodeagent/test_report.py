"""What an agent writes of what it has seen, where its writes may be lost or come late."""

from collections.abc import Awaitable, Callable
from datetime import datetime

import pytest

from intertie.common.values import replace
from intertie.nodeagent.domain.failures import RecordsUnreadable
from intertie.nodeagent.domain.reconcile import Listing
from intertie.nodeagent.domain.report import HostFacts, SeenPart
from intertie.nodeagent.loops.report import Reporter
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.memory_records import MemoryRecords
from tests.unit.nodeagent.parts import PART


class LateRecords(MemoryRecords):
    """While `loses`, writes are not answered, and are done when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.loses = False
        self.late: list[SeenPart] = []
        self.writes = 0

    async def write_seen(self, part: SeenPart, *, now: datetime) -> None:
        self.writes += 1
        if self.loses:
            self.late.append(part)
            raise RecordsUnreadable("no answer")
        await super().write_seen(part, now=now)

    def arrive(self) -> None:
        for each in self.late:
            self.seen[each.uid] = each
        self.late = []


async def no_facts() -> HostFacts:
    raise AssertionError


@pytest.fixture
def records() -> LateRecords:
    made = LateRecords()
    made.listing = Listing(parts=(PART,))
    return made


@pytest.fixture
def host(records: LateRecords) -> Host:
    return Host(records=records)


@pytest.fixture
def reporter(host: Host, records: LateRecords) -> Reporter:
    return Reporter(host.agent, records, host.clock, no_facts)


async def go_on(host: Host, reporter: Reporter, seconds: int) -> None:
    """So many passes, one a second."""
    for _ in range(seconds):
        await host.clock.advance(1)
        await host.agent.sweep()
        await reporter.tell()


async def test_a_write_that_comes_late_is_overwritten_within_10_s(
    host: Host, records: LateRecords, reporter: Reporter
) -> None:
    """What it said stood over what was newer for up to 30 s."""
    await go_on(host, reporter, 1)  # all is written by then, so 30 s on it is again
    records.listing = Listing(parts=(replace(PART, generation=4),))
    records.loses = True
    with pytest.raises(RecordsUnreadable):
        await go_on(host, reporter, 1)
    records.loses = False
    records.listing = Listing(parts=(replace(PART, generation=5),))
    await go_on(host, reporter, 1)
    assert records.seen[PART.uid].generation == 5
    records.arrive()
    assert records.seen[PART.uid].generation == 4
    await go_on(host, reporter, 10)
    assert records.seen[PART.uid].generation == 5
    writes = records.writes
    await go_on(host, reporter, 12)
    assert records.writes == writes


async def test_a_write_that_comes_after_the_record_was_deleted_is_gone_within_10_s(
    host: Host, records: LateRecords, reporter: Reporter
) -> None:
    """What is over was spoken of for up to 30 s."""
    await go_on(host, reporter, 1)
    records.listing = Listing(parts=(replace(PART, generation=4, gone=True),))
    records.loses = True
    with pytest.raises(RecordsUnreadable):
        await go_on(host, reporter, 1)
    records.loses = False
    records.listing = Listing()
    await go_on(host, reporter, 2)
    assert not records.seen
    records.arrive()
    assert records.seen
    await go_on(host, reporter, 10)
    assert not records.seen


class SlowRecords(MemoryRecords):
    """A deletion takes as long as what `meanwhile` does."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def delete_seen(self, part_uid: str) -> None:
        await super().delete_seen(part_uid)
        if self.meanwhile is not None:
            await self.meanwhile()


async def test_a_pass_that_ends_while_a_record_is_deleted_does_not_bring_it_back() -> None:
    """Its report had the part still, which was written again, and stood there for up to 30 s."""
    records = SlowRecords()
    records.listing = Listing(parts=(PART,))
    host = Host(records=records)
    reporter = Reporter(host.agent, records, host.clock, no_facts)
    await go_on(host, reporter, 1)
    assert records.seen
    records.listing = Listing()
    records.meanwhile = host.agent.sweep
    await go_on(host, reporter, 1)
    await reporter.tell()
    assert not records.seen
