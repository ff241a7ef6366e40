"""The capacity function against a counter that shares no code with it.

The counter knows minutes only: it lists, minute by minute, who is there.
"""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intertie.common import profiles
from intertie.common.calendar import Calendar, Demand
from intertie.common.intervals import Window

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTES = 24
RESOURCES = ("host/n1/vcpus", "host/n1/iops", "link/south/egress")


@dataclass(frozen=True)
class Stay:
    """From the beginning of minute `first` to the end of minute `last`."""

    name: str
    first: int
    last: int
    amounts: dict[str, int]

    @property
    def demand(self) -> Demand:
        return Demand(self.name, window(self.first, self.last), self.amounts)


def window(first: int, last: int) -> Window:
    return Window(NOON + timedelta(minutes=first), NOON + timedelta(minutes=last + 1))


def used(stays: list[Stay], resource: str, minute: int) -> int:
    return sum(stay.amounts.get(resource, 0) for stay in stays if stay.first <= minute <= stay.last)


def most(stays: list[Stay], resource: str, first: int, last: int) -> int:
    return max(used(stays, resource, minute) for minute in range(first, last + 1))


amounts = st.dictionaries(st.sampled_from(RESOURCES), st.integers(0, 6), max_size=3)
spans = st.tuples(st.integers(0, MINUTES - 1), st.integers(0, MINUTES - 1)).map(
    lambda ends: (min(ends), max(ends))
)
capacities = st.dictionaries(st.sampled_from(RESOURCES), st.integers(0, 10), max_size=3)


@st.composite
def stays(draw: st.DrawFn, most_of_them: int = 12) -> list[Stay]:
    drawn = draw(st.lists(st.tuples(spans, amounts), max_size=most_of_them))
    return [Stay(str(n), first, last, took) for n, ((first, last), took) in enumerate(drawn)]


@given(capacities, stays())
def test_nothing_is_ever_over_capacity_if_only_what_fits_is_added(
    capacity: dict[str, int], wanted: list[Stay]
) -> None:
    calendar = Calendar(capacity)
    taken: list[Stay] = []
    for stay in wanted:
        if calendar.fits(stay.demand):
            calendar.add(stay.demand)
            taken.append(stay)
    for resource in RESOURCES:
        for minute in range(MINUTES):
            assert used(taken, resource, minute) <= capacity.get(resource, 0)


@given(capacities, stays(), st.data())
def test_what_fits_is_never_refused(
    capacity: dict[str, int], there: list[Stay], data: st.DataObject
) -> None:
    """It fits exactly if in no minute more than the capacity would be used."""
    calendar = Calendar(capacity, [stay.demand for stay in there])
    (first, last), took = data.draw(spans), data.draw(amounts)
    new = Stay("new", first, last, took)
    room = all(
        most([*there, new], resource, first, last) <= capacity.get(resource, 0)
        for resource, amount in took.items()
        if amount
    )
    assert calendar.fits(new.demand) == room


@given(capacities, stays(), spans)
def test_free_and_peak_are_what_counting_says(
    capacity: dict[str, int], there: list[Stay], span: tuple[int, int]
) -> None:
    calendar = Calendar(capacity, [stay.demand for stay in there])
    for resource in RESOURCES:
        peak = calendar.peak(resource, window(*span))
        assert peak == most(there, resource, *span)
        assert calendar.free(resource, window(*span)) + peak == capacity.get(resource, 0)


@given(capacities, stays(), st.data())
def test_shortfalls_are_exact(
    capacity: dict[str, int], there: list[Stay], data: st.DataObject
) -> None:
    """Asking for just what is said to be available fits; one more does not."""
    calendar = Calendar(capacity, [stay.demand for stay in there])
    (first, last), took = data.draw(spans), data.draw(amounts)
    short = calendar.shortfalls(Stay("new", first, last, took).demand)
    for resource, wanted, available in short:
        assert wanted == took[resource] > available
        left = capacity.get(resource, 0) - most(there, resource, first, last)
        assert available == max(left, 0)
    reduced = took | {resource: available for resource, _, available in short}
    assert calendar.fits(Stay("less", first, last, reduced).demand)
    for resource, _, available in short:
        more = reduced | {resource: available + 1}
        assert not calendar.fits(Stay("more", first, last, more).demand)


@given(stays(), st.data())
def test_removing_restores(there: list[Stay], data: st.DataObject) -> None:
    """In whatever order: the calendar is the one that never knew what was removed."""
    calendar = Calendar({}, [stay.demand for stay in there[: len(there) // 2]])
    for stay in there[len(there) // 2 :]:
        calendar.add(stay.demand)
    gone = data.draw(st.permutations(there))[: data.draw(st.integers(0, len(there)))]
    for stay in gone:
        calendar.remove(stay.name)
    left = [stay for stay in there if stay not in gone]
    for resource in RESOURCES:
        for minute in range(MINUTES):
            assert calendar.peak(resource, window(minute, minute)) == used(left, resource, minute)
        never_knew = Calendar({}, [stay.demand for stay in left])
        assert calendar.moments(resource) == never_knew.moments(resource)


@given(stays())
def test_one_by_one_or_all_at_once_is_the_same(there: list[Stay]) -> None:
    at_once = Calendar({}, [stay.demand for stay in there])
    one_by_one = Calendar({})
    for stay in there:
        one_by_one.add(stay.demand)
    for resource in RESOURCES:
        for first in range(MINUTES):
            for last in range(first, MINUTES):
                there_and_then = window(first, last)
                assert at_once.peak(resource, there_and_then) == one_by_one.peak(
                    resource, there_and_then
                )


@given(spans, spans)
def test_windows_that_touch_do_not_meet(one: tuple[int, int], other: tuple[int, int]) -> None:
    meet = bool(set(range(one[0], one[1] + 1)) & set(range(other[0], other[1] + 1)))
    calendar = Calendar({RESOURCES[0]: 1}, [Stay("one", *one, {RESOURCES[0]: 1}).demand])
    assert calendar.fits(Stay("other", *other, {RESOURCES[0]: 1}).demand) == (not meet)
    assert window(*one).overlaps(window(*other)) == meet
    both = window(*one).intersect(window(*other))
    assert (both is not None) == meet


def test_ten_thousand_demands_leave_no_more_steps_than_there_are_changes() -> None:
    resource = RESOURCES[0]
    calendar = Calendar({resource: 10_000})
    for n in range(10_000):
        calendar.add(Stay(str(n), n % 500, n % 500 + 3, {resource: 1}).demand)
    assert calendar.peak(resource, window(0, 600)) == 80
    assert len(calendar.moments(resource)) == 8
    for n in range(10_000):
        calendar.remove(str(n))
    assert calendar.moments(resource) == ()


@given(stays())
def test_moments_are_those_at_which_the_sum_changes(there: list[Stay]) -> None:
    calendar = Calendar({}, [stay.demand for stay in there])
    for resource in RESOURCES:
        sums = [0, *(used(there, resource, minute) for minute in range(MINUTES)), 0]
        changes = [at for at in range(MINUTES + 1) if sums[at] != sums[at + 1]]
        assert calendar.moments(resource) == tuple(NOON + timedelta(minutes=at) for at in changes)


@given(capacities, stays(), st.data())
def test_the_earliest_fit_is_the_first_minute_at_which_it_fits(
    capacity: dict[str, int], there: list[Stay], data: st.DataObject
) -> None:
    """By the counter: minute by minute, from the one asked for on. Sums change on full minutes,
    so nothing fits earlier between two."""
    calendar = Calendar(capacity, [stay.demand for stay in there])
    (first, last), took = data.draw(spans), data.draw(amounts)
    latest = data.draw(st.integers(first - 1, 2 * MINUTES))
    lasts = last - first

    def fits(at: int) -> bool:
        return all(
            used(there, resource, minute) + amount <= capacity.get(resource, 0)
            for resource, amount in took.items()
            for minute in range(at, at + lasts + 1)
            if amount
        )

    expected = next((at for at in range(first, latest + 1) if fits(at)), None)
    found = calendar.earliest(
        Stay("new", first, last, took).demand, NOON + timedelta(minutes=latest)
    )
    assert found == (None if expected is None else NOON + timedelta(minutes=expected))


@given(stays(), spans)
def test_ends_are_those_of_who_is_there(there: list[Stay], span: tuple[int, int]) -> None:
    calendar = Calendar({}, [stay.demand for stay in there])
    for stay in there[::2]:
        calendar.remove(stay.name)
    after, until = (NOON + timedelta(minutes=each) for each in span)
    ends = {stay.demand.window.end for stay in there[1::2]}
    assert list(calendar.ends(after, until)) == sorted(e for e in ends if after < e <= until)


WINDOWS = [(at, last) for at in range(MINUTES) for last in range(at, MINUTES)]


@st.composite
def comings_and_goings(draw: st.DrawFn) -> list[tuple[tuple[int, int], int]]:
    """Whoever comes goes again, in another order."""
    comings = draw(st.lists(st.tuples(spans, st.integers(1, 5)), min_size=1, max_size=15))
    goings = [(span, -amount) for span, amount in draw(st.permutations(comings))]
    return [*comings, *goings]


@given(comings_and_goings(), spans, st.integers(0, 8), st.sampled_from([2, 2, 256]))
@settings(max_examples=150, deadline=None)
def test_blocks_of_steps_change_nothing(
    shifts: list[tuple[tuple[int, int], int]], asked: tuple[int, int], limit: int, block: int
) -> None:
    """With blocks of two steps, so that they are split, joined and lifted all the time; and with
    one that has all."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(profiles, "BLOCK", block)
        profile = profiles.Profile({})
        levels = [0] * (MINUTES + 2)
        for (first, last), amount in shifts:
            profile.shift(window(first, last), amount)
            for minute in range(first, last + 1):
                levels[minute] += amount
            _check(profile, levels)
            assert profile.clear(limit, window(*asked)) == _clear(levels, limit, *asked)
            first, last = asked
            peak = max(levels[first : last + 1])
            assert profile.peak(window(first, last)) == peak
            seen, bounds = profile.look(window(first, last))
            assert seen == peak
            assert bounds.contain(window(first, last))
            for at, until in WINDOWS:
                if bounds.contain(window(at, until)):
                    assert max(levels[at : until + 1]) == peak
        assert profile.moments() == ()


def test_blocks_are_sound_through_long_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that was forgotten may have its block joined to the one before it, and the other step
    of the same span with it. Few short histories come to that."""
    monkeypatch.setattr(profiles, "BLOCK", 2)
    for seed in range(100):
        chance = random.Random(seed)
        profile, levels = profiles.Profile({}), [0] * (MINUTES + 2)
        there: list[tuple[int, int, int]] = []
        for _ in range(60):
            if there and chance.random() < 0.5:
                first, last, before = there.pop(chance.randrange(len(there)))
                amount = -before
            else:
                first = chance.randrange(MINUTES)
                last, amount = chance.randrange(first, MINUTES), chance.choice((1, 1, 2))
                there.append((first, last, amount))
            profile.shift(window(first, last), amount)
            for minute in range(first, last + 1):
                levels[minute] += amount
            _check(profile, levels)


def _check(profile: profiles.Profile, levels: list[int]) -> None:
    for block in profile._blocks:
        assert (block.highest, block.lowest) == (max(block.levels), min(block.levels))
        assert len(block.times) <= 2 * profiles.BLOCK
    assert profile._firsts == [block.times[0] for block in profile._blocks]
    steps = [at for at in range(MINUTES + 1) if levels[at] != (levels[at - 1] if at else 0)]
    assert profile.moments() == tuple(NOON + timedelta(minutes=at) for at in steps)
    there = [level + block.lift for block in profile._blocks for level in block.levels]
    assert there == [levels[at] for at in steps]


def _clear(levels: list[int], limit: int, first: int, last: int) -> datetime | None:
    above = [at for at in range(first, last + 1) if levels[at] > limit]
    if not above:
        return None
    at = next(at for at in range(above[-1], MINUTES + 2) if levels[at] <= limit)
    return NOON + timedelta(minutes=at)


@given(stays(), st.lists(st.one_of(spans, st.integers(0, 11)), min_size=1, max_size=20))
@settings(deadline=None)
def test_what_is_kept_of_peaks_is_what_they_are(
    coming: list[Stay], asked: list[tuple[int, int] | int]
) -> None:
    """Asked for windows while stays come and go: a number is whose turn it is to do either."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(profiles, "BLOCK", 2)
        _come_and_ask(coming, asked)


def _come_and_ask(coming: list[Stay], asked: list[tuple[int, int] | int]) -> None:
    calendar = Calendar({})
    there: dict[str, Stay] = {}
    for each in asked:
        if isinstance(each, int):
            if each < len(coming):
                stay = coming[each]
                if there.pop(stay.name, None):
                    calendar.remove(stay.name)
                else:
                    there[stay.name] = stay
                    calendar.add(stay.demand)
            continue
        for first, last in (each, *WINDOWS[::3], each):
            found = calendar.over({}).peaks(RESOURCES, window(first, last))
            expected = [most(list(there.values()), name, first, last) for name in RESOURCES]
            assert list(found) == expected
