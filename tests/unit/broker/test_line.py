"""The line of a leader's changes: what goes together, what is refused, and what is read again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest

from intertie.broker.adapters import keys
from intertie.broker.adapters.etcd_reads import EtcdReads
from intertie.broker.adapters.line import LINGER_S, Line
from intertie.broker.domain.fleet import Fleet
from intertie.broker.domain.part import PartState
from intertie.broker.domain.records import Change, Erase, Write
from intertie.broker.domain.wanted import wanted_of
from intertie.common.errors import EtcdUnavailable, FieldInvalid, NotLeading, StaleWrite
from intertie.common.etcd.client import Compare, DeleteKey, Entry, Keys, Op, Put
from intertie.common.etcd.records import MAX_BYTES, encode
from intertie.common.values import replace
from tests.fakes.clock import FakeClock
from tests.fakes.etcd import MemoryEtcd
from tests.unit.broker.samples import POLICY, facts, part


class Leads:
    def __init__(self, created: int) -> None:
        self.created = created
        self.is_leader = True

    def leader_guard(self) -> Compare:
        if not self.is_leader:
            raise NotLeading("another")
        return Compare.created("election/broker", self.created)

    async def leader(self) -> str:
        return "another"


class SlowToList(MemoryEtcd):
    """Something happens after the first page of keys."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[tuple[str, Entry]] = []
        """As they were when the listing began."""
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def keys(self, prefix: str, *, revision: int = 0) -> AsyncGenerator[Keys, None]:
        if not revision:
            self.listed = sorted(self._entries.items())
        meanwhile, self.meanwhile = self.meanwhile, None
        found = tuple(
            (key, each.mod_revision) for key, each in self.listed if key.startswith(prefix)
        )
        yield Keys(keys=found, revision=revision or self._revision)
        if meanwhile:
            await meanwhile()


class Desk:
    """A leader's line on a store in memory."""

    def __init__(self) -> None:
        self.etcd = SlowToList()
        self.clock = FakeClock()
        self.rung: list[list[str]] = []

    async def open(self) -> Line:
        done = await self.etcd.txn([], [Put("election/broker", b"this")])
        self.leads = Leads(done.revision)
        self.line = Line(
            self.etcd,
            self.leads,
            EtcdReads(self.etcd, POLICY),
            self.rung.append,
            self.clock,
        )
        await self.line.book()
        self.etcd.history.clear()
        return self.line

    async def admission(self, part_id: str) -> Change:
        book = await self.line.book()
        return Change(
            writes=(Write(record=part(part_id, PartState.HELD)),), admitted_on=book.generation
        )

    async def submit(self, *part_ids: str) -> list[asyncio.Future[int]]:
        return [self.line.submit(await self.admission(each)) for each in part_ids]


@pytest.fixture
async def desk() -> Desk:
    made = Desk()
    await made.open()
    return made


async def test_one_that_comes_alone_is_written_at_once(desk: Desk) -> None:
    (written,) = await desk.submit("t1")
    await desk.clock.settle()
    assert written.done()
    assert desk.clock.monotonic() == 0
    assert desk.rung == [[keys.GENERATION, "parts/demo/t1"]]


async def test_those_that_stand_in_line_are_one_transaction(desk: Desk) -> None:
    answers = await desk.submit("t1", "t2", "t3")
    await desk.clock.settle()
    assert len(desk.etcd.history) == 1
    assert {await each for each in answers} == {await answers[0]}
    book = await desk.line.book()
    assert (book.generation, book.written) == (3, 3)
    generation = await desk.etcd.get(keys.GENERATION)
    assert generation is not None
    assert generation.value == b"3"


async def test_a_line_that_stands_waits_a_moment_for_more(desk: Desk) -> None:
    many = [f"t{number}" for number in range(200)]
    answers = await desk.submit(*many)
    await desk.clock.settle()
    first = len(desk.etcd.history)
    await desk.clock.advance(10 * LINGER_S)
    assert first == 1
    assert all(each.done() for each in answers)
    assert max(len(ops) for ops in desk.etcd.history) <= 128


async def test_a_change_that_is_stale_takes_none_with_it(desk: Desk) -> None:
    (written,) = await desk.submit("t1")
    revision = await written
    held = part("t1", PartState.HELD)
    released = held.move(PartState.RELEASED, now=desk.clock.now())
    expired = held.move(PartState.EXPIRED, now=desk.clock.now())
    first = desk.line.submit(Change(writes=(Write(record=released, read_at=revision),)))
    second = desk.line.submit(Change(writes=(Write(record=expired, read_at=revision),)))
    (third,) = await desk.submit("t2")
    await desk.clock.advance(1)
    assert await first
    with pytest.raises(StaleWrite):
        await second
    assert await third
    book = await desk.line.book()
    assert book.parts[held.name].value.state is PartState.RELEASED


async def test_what_a_stale_admission_would_have_freed_is_given_to_nobody(desk: Desk) -> None:
    """Else a host was promised twice: one that was to give way was changed by another write first,
    and who had been given its room meanwhile was admitted (seed 60280 of the fault simulator)."""
    (written,) = await desk.submit("t1")
    revision = await written
    held = part("t1", PartState.HELD)
    prepared = replace(held, state=PartState.PREPARED)
    gives_way = Write(record=held.move(PartState.RELEASED, now=desk.clock.now()), read_at=revision)
    first = desk.line.submit(Change(writes=(Write(record=prepared, read_at=revision),)))
    second = await desk.admission("t2")
    stale = desk.line.submit(replace(second, writes=(*second.writes, gives_way)))
    assert held.name not in (await desk.line.book()).demands
    (third,) = await desk.submit("t3")
    other = desk.line.submit(Change(writes=(Write(record=part("t9", PartState.RELEASED)),)))
    await desk.clock.advance(1)
    assert await first
    assert await other, "what takes nothing goes on"
    for each in (stale, third):
        with pytest.raises(StaleWrite):
            await each
    book = await desk.line.book()
    assert [name for name in book.parts if name in book.demands] == [held.name]
    (again,) = await desk.submit("t3")
    assert await again


async def test_of_a_lost_answer_nothing_is_assumed(desk: Desk) -> None:
    desk.etcd.loses_answer = True
    (unknown,) = await desk.submit("t1")
    with pytest.raises(EtcdUnavailable):
        await unknown
    book = await desk.line.book()
    assert part("t1").name in book.parts, "it was written, and is read again"
    assert book.demands.__contains__(part("t1").name)


async def test_a_leader_that_was_deposed_writes_nothing_and_says_so(desk: Desk) -> None:
    await desk.etcd.txn([], [Put("parts/demo/other", b"{}")])
    (written,) = await desk.submit("t1")
    desk.leads.created += 1  # as etcd would tell it apart
    desk.line._guard = desk.leads.leader_guard()
    with pytest.raises((NotLeading, StaleWrite)):
        await written
    assert await desk.etcd.get("parts/demo/t1") is None


async def test_what_another_wrote_is_found_by_the_compare_and_read(desk: Desk) -> None:
    """Nobody else writes while this replica leads; were it so, nothing would be lost."""
    await desk.etcd.txn([], [Put(keys.GENERATION, b"7")])
    (refused,) = await desk.submit("t1")
    with pytest.raises(StaleWrite):
        await refused
    assert (await desk.line.book()).generation == 7
    (written,) = await desk.submit("t1")
    assert await written


async def test_a_reader_is_told_nothing_once_another_leads(desk: Desk) -> None:
    assert await desk.line.confirmed() is not None
    desk.leads.is_leader = False
    assert await desk.line.confirmed() is None
    with pytest.raises(NotLeading):
        desk.line.submit(Change())


async def test_what_is_too_large_for_a_ledger_is_refused_for_good_and_reserves_nothing(
    desk: Desk,
) -> None:
    """A bug: etcd's refusal of a large cluster was told as a store that is away: try again."""
    book = await desk.line.book()
    huge = replace(part("t1", PartState.HELD), seed="x" * (MAX_BYTES + 1))
    with pytest.raises(FieldInvalid, match="fewer workspaces"):
        desk.line.submit(Change(writes=(Write(record=huge),), admitted_on=book.generation))
    assert book.generation == 0
    assert huge.name not in book.demands
    (written,) = await desk.submit("t2")
    assert await written


async def test_what_hosts_are_told_goes_on_in_further_transactions_by_size(desk: Desk) -> None:
    (written,) = await desk.submit("t1")
    revision = await written
    fleet = Fleet(facts={f"n{number}": facts(f"n{number}") for number in range(1, 5)})
    held = part("t1", PartState.HELD)
    told = wanted_of(part("t1"), fleet, POLICY, gone=False)["n1"]
    large = replace(told, cluster="x" * 600_000)
    wanted = dict.fromkeys(fleet.facts, large)
    write = Write(record=held, read_at=revision)
    await desk.line.submit(Change(writes=(write,), wanted=wanted))
    sizes = [
        sum(len(op.value) for op in ops if isinstance(op, Put)) for ops in desk.etcd.history[1:]
    ]
    assert len(sizes) == 2
    assert max(sizes) <= MAX_BYTES


async def test_reading_again_disturbs_nothing_where_nothing_differs(desk: Desk) -> None:
    """A bug: every 30 s all that stood in line failed, and 100,000 parts were read anew."""
    await (await desk.submit("t1"))[0]
    book = await desk.line.book()
    many = await desk.submit(*(f"m{number}" for number in range(200)))
    again = asyncio.ensure_future(desk.line.read_again())
    await desk.clock.advance(1)
    await again
    assert all([await each for each in many])
    await desk.line.read_again()
    assert await desk.line.book() is book


async def test_what_is_written_while_keys_are_compared_is_no_difference(desk: Desk) -> None:
    revision = await (await desk.submit("t1"))[0]
    book = await desk.line.book()
    held = part("t1", PartState.HELD)
    over = held.move(PartState.EXPIRED, now=desk.clock.now())

    async def write() -> None:
        done = await desk.line.submit(Change(writes=(Write(record=over, read_at=revision),)))
        await (await desk.submit("t2"))[0]
        await desk.line.submit(Change(erasures=(Erase(record=over, read_at=done),)))

    desk.etcd.meanwhile = write
    await desk.line.read_again()
    assert desk.etcd.meanwhile is None
    assert await desk.line.book() is book
    await desk.line.read_again()
    assert await desk.line.book() is book


@pytest.mark.parametrize(
    "op",
    [
        Put("parts/demo/t2", encode(part("t2"))),
        Put("parts/demo/t1", encode(part("t1"))),
        DeleteKey("parts/demo/t1"),
        DeleteKey(keys.GENERATION),
        Put("wanted/n1/parts/0123", b""),
        Put("vni/5000", b"0123"),
    ],
    ids=lambda op: f"{type(op).__name__}-{op.key}",
)
async def test_what_another_did_is_found_when_keys_are_compared(desk: Desk, op: Op) -> None:
    """Though nobody but the leader ever should."""
    await (await desk.submit("t1"))[0]
    book = await desk.line.book()
    await desk.etcd.txn([], [op])
    waiting = desk.line.submit(await desk.admission("t3"))
    await desk.line.read_again()
    assert await desk.line.book() is not book
    assert waiting.done()
    waiting.exception()


async def test_of_one_that_went_as_another_came_both_are_found(desk: Desk) -> None:
    await (await desk.submit("t1"))[0]
    book = await desk.line.book()
    t2 = Put("parts/demo/t2", encode(part("t2")))
    await desk.etcd.txn([], [DeleteKey("parts/demo/t1"), t2])
    await desk.line.read_again()
    now = await desk.line.book()
    assert now is not book
    assert set(now.parts) == {part("t2").name}
