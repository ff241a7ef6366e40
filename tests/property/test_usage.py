"""Whatever becomes of parts and of who leads: what is written down is what was reserved. Whatever
is done to the records: it is found, and the first that is wrong is named."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intertie.api.broker.v1.usage_pb2 import (
    ListUsageEntriesResponse,
    UsageCheckpointBody,
    UsageRecord,
)
from intertie.broker.domain.book import Book
from intertie.broker.domain.part import Part, PartState
from intertie.broker.loops import accounting
from intertie.client.usage_chain import Audit, ChainBroken, Signed
from intertie.common.errors import EtcdUnavailable
from intertie.common.intervals import Window
from intertie.common.values import replace
from tests.fakes.accounts import AUTHORITY, START, Accounts
from tests.fakes.ledger import MemoryLedger
from tests.unit.broker.samples import part, part_spec, workspace
from tests.unit.common_rpc.authority import trust_in

STEP = timedelta(minutes=30)
"""All that happens, happens at a multiple of it."""
MOST = 200
"""Steps until every window is over."""

Leases = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, MOST - 40), st.sampled_from(["a", "b"])),
    min_size=1,
    max_size=6,
)
"""(start, length, tenant)"""
Events = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.sampled_from(["sweep", "sweep", "confirm", "cancel", "end", "lose", "lead", "forget"]),
        st.integers(0, 5),
    ),
    max_size=25,
)
"""(steps until it happens, what, to which)"""


def made(number: int, start: int, length: int, tenant: str) -> Part:
    """Every other one is of a co-allocation that is not decided yet."""
    window = Window(START + start * STEP, START + (start + length) * STEP)
    return part(
        state=PartState.PREPARED if number % 2 else PartState.CONFIRMED,
        name=f"sites/north/tenants/{tenant}/parts/t{number}",
        spec=part_spec(workspace(vcpus=1 + number), window=window),
        create_time=START,
    )


class History:
    """Counts by itself, step by step, who has what just then."""

    def __init__(self, leases: list[tuple[int, int, str]]) -> None:
        self.site = Accounts()
        self.parts = [made(number, *lease) for number, lease in enumerate(leases)]
        self.steps = 0
        self.counted: Counter[str] = Counter()
        self.has = {each.name for each in self.parts if each.state is PartState.CONFIRMED}

    async def step(self) -> None:
        now = self.site.clock.now()
        for each in self.parts:
            if each.name in self.has and each.window.contains(now):
                self.counted[each.name] += 1
        self.steps += 1
        await self.site.clock.advance(STEP.total_seconds())

    async def play(self, events: list[tuple[int, str, int]]) -> None:
        for each in self.parts:
            await self.site.write(each)
        for steps, what, which in events:
            for _ in range(steps):
                await self.step()
            await self.happen(what, self.parts[which % len(self.parts)])
        while self.steps < MOST:
            await self.step()
        await self.site.accounting.sweep()

    async def happen(self, what: str, of: Part) -> None:
        found = await self.site.ledger.part(of.path)
        now = self.site.clock.now()
        is_part = found.value if found else replace(of, state=PartState.ENDED)  # and forgotten
        match what:
            case "sweep":
                await self.site.accounting.sweep(frozenset({of.name}))
            case "confirm" if is_part.state is PartState.PREPARED:
                await self.site.write(is_part.move(PartState.CONFIRMED, now=now))
                self.has.add(of.name)
            case "cancel" if is_part.state is PartState.CONFIRMED:
                await self.site.write(is_part.ending(now=now, reason="CANCELLED"))
                self.has.discard(of.name)
            case "end" if is_part.state is PartState.CONFIRMED:
                await self.site.write(is_part.move(PartState.ENDED, now=now))
                self.has.discard(of.name)
            case "lose":
                self.site.ledger.loses_answer = True
                with suppress(EtcdUnavailable):
                    await self.site.accounting.sweep()
                self.site.ledger.loses_answer = False
            case "lead":
                self.site.ledger.book = Book.of(await MemoryLedger.view(self.site.ledger))
                self.site.another_leads()
            case "forget":
                await self.site.retention.sweep()


@given(leases=Leases, events=Events)
@settings(max_examples=60, deadline=None)
def test_what_is_written_down_is_what_was_reserved(
    leases: list[tuple[int, int, str]], events: list[tuple[int, str, int]]
) -> None:
    async def run() -> None:
        history = History(leases)
        await history.play(events)
        records = await history.site.written()
        written: Counter[str] = Counter()
        for each in records:
            span = each.period.end_time.ToDatetime() - each.period.start_time.ToDatetime()
            assert span > timedelta()
            last = each.period.end_time.ToDatetime() - timedelta(microseconds=1)
            assert each.period.start_time.ToDatetime().date() == last.date()
            written[each.part] += span // timedelta(seconds=1)
            number = int(each.part.rpartition("/t")[2])
            assert each.reserved.hosts.vcpus == 1 + number
        seconds = int(STEP.total_seconds())
        assert written == Counter({name: n * seconds for name, n in history.counted.items()})
        assert (await history.site.audit()).records == len(records)
        for tenant in ("a", "b"):
            await history.site.audit(tenant)

    asyncio.run(run())


@cache
def chain() -> ListUsageEntriesResponse:
    """Twelve records of two tenants, signed at 5, 10 and 12; all on one page."""

    async def write() -> ListUsageEntriesResponse:
        site = Accounts()
        for number in range(4):
            await site.write(made(2 * number, 0, 120, "ab"[number % 2]))
        await site.clock.advance(MOST * STEP.total_seconds())
        await site.accounting.sweep()
        [page] = await site.pages(size=100)
        return page

    most, accounting.AT_ONCE = accounting.AT_ONCE, 5
    try:
        page = asyncio.run(write())
    finally:
        accounting.AT_ONCE = most
    return page


def verify(page: ListUsageEntriesResponse, since: Signed | None = None) -> None:
    audit = Audit(trust_in(AUTHORITY), since)
    audit.take(page)
    audit.end()


def copied() -> ListUsageEntriesResponse:
    page = ListUsageEntriesResponse()
    page.CopyFrom(chain())
    return page


def flipped(octets: bytes, at: int, bit: int) -> bytes:
    at %= len(octets)
    return octets[:at] + bytes([octets[at] ^ (1 << bit)]) + octets[at + 1 :]


def test_the_chain_that_is_damaged_below_is_a_good_one() -> None:
    page = chain()
    assert [each.number for each in page.entries] == list(range(1, len(page.entries) + 1))
    assert len(page.entries) >= 12
    assert len(page.checkpoints) >= 3
    assert len({UsageRecord.FromString(each.record).tenant for each in page.entries}) == 2
    verify(page)


Which = st.integers(0, len(chain().entries) - 1)
Place = st.integers(0, 10_000)
Bit = st.integers(0, 7)


@given(which=Which, place=Place, bit=Bit, field=st.sampled_from(["record", "digest", "hash"]))
@settings(max_examples=200, deadline=None)
def test_one_bit_that_was_changed_is_found(which: int, place: int, bit: int, field: str) -> None:
    page = copied()
    entry = page.entries[which]
    setattr(entry, field, flipped(getattr(entry, field), place, bit))
    with pytest.raises(ChainBroken) as caught:
        verify(page)
    assert caught.value.number == which + 1


@given(which=Which)
def test_one_record_that_was_dropped_is_found(which: int) -> None:
    for only_the_record in (True, False):
        page = copied()
        if only_the_record:
            page.entries[which].record = b""
        else:
            del page.entries[which]
        with pytest.raises(ChainBroken, match="is missing") as caught:
            verify(page)
        assert caught.value.number == which + 1


@given(one=Which, other=Which, how=st.sampled_from(["lines", "all", "records"]))
def test_two_records_that_were_swapped_are_found(one: int, other: int, how: str) -> None:
    if one == other:
        return
    page = copied()
    first, second = page.entries[min(one, other)], page.entries[max(one, other)]
    if how == "records":
        first.record, second.record = second.record, first.record
    else:
        kept = type(first)()
        kept.CopyFrom(first)
        first.CopyFrom(second)
        second.CopyFrom(kept)
        if how == "all":
            first.number, second.number = second.number, first.number
    with pytest.raises(ChainBroken, match=r"out of place|is missing") as caught:
        verify(page)
    assert caught.value.number == min(one, other) + 1


@given(which=Which)
def test_a_chain_that_was_cut_off_is_found(which: int) -> None:
    """By its own checkpoints, and where those went with it, by one of before."""
    page = copied()
    del page.entries[which:]
    with pytest.raises(ChainBroken, match="is missing") as caught:
        verify(page)
    assert caught.value.number == which + 1


def test_a_chain_that_was_cut_off_with_its_checkpoints_is_found_by_one_of_before() -> None:
    whole = Audit(trust_in(AUTHORITY))
    whole.take(chain())
    since = whole.end().last
    assert since is not None
    page = copied()
    signed = [UsageCheckpointBody.FromString(each.body).number for each in page.checkpoints]
    del page.entries[signed[0] :]
    del page.checkpoints[1:]
    verify(page)
    with pytest.raises(ChainBroken, match="cut off") as caught:
        verify(page, since)
    assert caught.value.number == signed[0] + 1


@given(which=st.integers(0, len(chain().checkpoints) - 1), place=Place, bit=Bit)
@settings(max_examples=100, deadline=None)
def test_a_checkpoint_that_was_changed_is_found(which: int, place: int, bit: int) -> None:
    for field in ("body", "signature"):
        page = copied()
        checkpoint = page.checkpoints[which]
        setattr(checkpoint, field, flipped(getattr(checkpoint, field), place, bit))
        with pytest.raises(ChainBroken):
            verify(page)
