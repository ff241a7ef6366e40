"""A part with a deadline of a lease over several sites: put aside only so that all that is left of
it fits into the room that is on record for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from intertie.broker.domain.admission_policy import Quotas
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.offers import offers_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.recalling import allotted
from intertie.common import errors
from intertie.common.intervals import Window
from intertie.common.part_rules import validate_part
from intertie.common.part_spec import PROMISED, Recallable
from intertie.common.values import replace
from tests.fakes.clock import START
from tests.unit.broker.line import fleet
from tests.unit.broker.recalling import (
    HOUR,
    MINUTE,
    RESTORE,
    SAVE,
    SECOND,
    Recalling,
    terms,
)
from tests.unit.broker.samples import POLICY, part, part_spec, workspace
from tests.unit.broker.standing import view_of

DEADLINE = START + 4 * HOUR
ROOM = Window(DEADLINE - HOUR - MINUTE, DEADLINE)
ADMITTED: dict[str, Any] = {"keep_for": timedelta(), "deadline": DEADLINE}
MAY: dict[str, Any] = {**ADMITTED, "promised": ROOM}


async def held(
    here: Recalling, name: str, window: Window, count: int = 1, **recallable: Any
) -> None:
    """Another part."""
    spec = part_spec(*(workspace(index=each) for each in range(count)), window=window)
    if recallable:
        spec = replace(spec, recallable=Recallable(**recallable))
    await here.hold_other(spec, name)


async def goes_on_at_last(here: Recalling, part: Part) -> Part:
    """In its room, saved, after which nothing is left to promise."""
    await here.clock.advance_to(ROOM.start)
    here.alive()
    here.saved(part)
    assert part.spec.recallable is not None
    last = replace(part.spec.recallable, put_aside=False, promised=None)
    await here.hold(here.on(part, recallable=last), "a1", replaces=1)
    return await here.commit("a1", 2)


async def test_it_counts_in_both_windows_and_is_priced_as_it_is() -> None:
    here = await Recalling().running(**MAY)
    part = await here.part()
    assert part.keeping is not None
    assert (part.keeping.save, part.keeping.promised, part.ends) == (SAVE, ROOM, START + HOUR)
    assert [each.kind for each in part.price] == ["deadline"]
    for at, counted in ((0, 8), (3599, 8), (3601, 0), (10739, 0), (10741, 8), (14399, 8)):
        assert await here.vcpus(at * SECOND) == counted, at
    for window in (ROOM, Window(ROOM.end - MINUTE, ROOM.end + HOUR)):
        with pytest.raises(errors.NoCapacity):
            await held(here, "t2", window)
    await held(here, "t3", Window(START + HOUR, ROOM.start), 8)


async def test_where_the_room_is_not_there_the_refusal_says_that_it_was_for_that() -> None:
    here = Recalling()
    await held(here, "t2", Window(ROOM.start, ROOM.end))
    with pytest.raises(errors.NoCapacity) as refused:
        await here.running(**MAY)
    assert {each.field for each in refused.value.shortfalls} == {PROMISED}
    short = Window(DEADLINE - HOUR - 40 * SECOND, DEADLINE)
    with pytest.raises(errors.NoCapacity) as refused:
        await Recalling().running(**{**MAY, "promised": short})
    assert {each.field for each in refused.value.shortfalls} == {PROMISED}
    assert "to go on takes" in str(refused.value.shortfalls)


def test_what_is_kept_of_it_in_between_goes_off_the_quota_of_its_tenant() -> None:
    """Two disks and their memory take 512 MiB: as long as nobody of the tenant has any then."""
    between = Window(START + HOUR, ROOM.start)
    other = part("t2", spec=part_spec(workspace(), window=between), create_time=START)
    quota = Quotas({"demo": {"disk_mib": 512}})
    bounded = replace(POLICY, admission=quota)

    def asked(*parts: Part) -> None:
        view = view_of(fleet(START), parts)
        found = allotted(terms(2, **MAY), view, bounded, tenant="demo", now=START)
        assert len(found.placed) == 2

    asked()
    with pytest.raises(errors.NoCapacity) as refused:
        asked(other)
    [short] = refused.value.shortfalls
    assert (short.resource, short.field, short.available) == ("quota_disk", PROMISED, 384)


async def test_without_a_promise_it_is_not_put_aside_and_takes_no_room_for_that() -> None:
    here = await Recalling().running(**ADMITTED)
    part = await here.part()
    assert part.keeping is not None
    assert (part.keeping.save, part.keeping.promised) == (timedelta(), None)
    assert [each.kind for each in part.price] == ["deadline"]
    await here.clock.advance(600)
    with pytest.raises(errors.NoCapacity):
        await here.urgent()
    assert (await here.part()).recalled_end is None


async def test_put_aside_it_is_kept_until_the_end_of_its_room() -> None:
    here = await Recalling().running(**MAY)
    await here.clock.advance(600)
    await here.urgent()
    part, end = await here.part(), START + 600 * SECOND
    assert (part.recalled_end, part.window.end, part.ends) == (end, end, DEADLINE)
    after = await here.agreed()
    assert (after.recalled_end, after.ends, after.terms) == (None, DEADLINE, 1)
    assert after.keeping is not None
    assert after.keeping.promised == ROOM
    assert await here.vcpus(ROOM.start - START) == 8


async def test_of_another_sites_end_it_keeps_its_room_whatever_is_promised_to_others() -> None:
    here = await Recalling().running(**MAY)
    await held(here, "t2", Window(START + HOUR, ROOM.start), 8)
    await here.clock.advance(600)
    after = await here.agreed(START + 590 * SECOND)
    assert (after.ends, after.window.end) == (DEADLINE, START + 590 * SECOND)
    assert await here.vcpus(ROOM.start - START) == 8


async def test_it_goes_on_in_its_room_which_nobody_can_refuse() -> None:
    here = await Recalling().running(**MAY)
    await here.clock.advance(600)
    await here.urgent()
    part = await here.agreed()
    with pytest.raises(errors.NoCapacity):
        await held(here, "t2", ROOM)
    after = await goes_on_at_last(here, part)
    assert after.keeping is not None
    assert (after.keeping.until, after.keeping.promised) == (None, None)
    assert (after.keeping.save, after.keeping.restore) == (timedelta(), RESTORE)
    assert [each.kind for each in after.price] == ["deadline"] * 2
    with pytest.raises(errors.NoCapacity):
        await here.urgent()


async def test_while_it_goes_on_for_the_last_time_its_memory_is_counted_where_it_is() -> None:
    """It comes back from the pool, at the pace that is kept free for that."""
    here = await Recalling().running(**MAY)
    await here.clock.advance(600)
    await here.urgent()
    part = await here.agreed()
    kept = sum(demands_of(part)[1].amounts.values())
    [demand] = demands_of(await goes_on_at_last(here, part))

    def counted(dimension: str) -> int:
        return sum(each for key, each in demand.amounts.items() if key.endswith(dimension))

    assert counted("/disk_mib") == kept
    assert counted("/throughput_mib_s") == 8 * POLICY.queue.pool_mib_s


async def test_gone_on_sooner_it_has_its_room_as_before() -> None:
    here = Recalling()
    part = await here.suspended(**MAY)
    await here.hold(here.on(part), "a1", replaces=1)
    after = await here.commit("a1", 2)
    assert after.keeping is not None
    assert after.keeping.promised == ROOM
    assert await here.vcpus(ROOM.start - START) == 8
    await here.clock.advance(300)
    await here.urgent()
    assert (await here.part()).ends == DEADLINE


async def test_another_promise_than_was_agreed_on_is_refused() -> None:
    here = Recalling()
    part = await here.suspended(**MAY)
    may = part.spec.recallable
    assert may is not None
    later = Window(ROOM.start - HOUR, ROOM.end)
    for changed in (replace(may, promised=later), replace(may, deadline=DEADLINE + HOUR)):
        on = here.on(part, recallable=replace(changed, put_aside=False))
        with pytest.raises(errors.FieldInvalid) as invalid:
            await here.hold(on, "a1", replaces=1)
        assert invalid.value.field == "spec.recallable"


@pytest.mark.parametrize("left_s", [30, 59])
async def test_so_near_its_end_it_is_not_put_aside(left_s: int) -> None:
    """A site that does not hear of it in time has taken away what it had."""
    here = await Recalling().running(**MAY)
    await here.clock.advance(3600 - left_s)
    with pytest.raises(errors.NoCapacity):
        await here.urgent()
    assert (await here.part()).recalled_end is None


async def test_one_that_has_not_begun_is_not_put_aside() -> None:
    window = Window(START + 10 * MINUTE, START + 70 * MINUTE)
    here = await Recalling().with_part(terms(window=window, **MAY))
    with pytest.raises(errors.NoCapacity):
        await here.urgent(start_in=20 * MINUTE)
    assert (await here.part()).recalled_end is None


async def test_those_that_wait_give_way_to_it_and_it_gives_way_to_none_of_them() -> None:
    here = await Recalling().running()
    window = Window(START + 10 * MINUTE, START + 70 * MINUTE)
    await held(here, "t2", window, 8, **MAY)
    best_effort = await here.part()
    assert best_effort.recalled_end is not None
    assert best_effort.recalled_end <= window.start

    here = await Recalling().running(**MAY)
    with pytest.raises(errors.NoCapacity):
        await held(here, "t2", window, 8, keep_for=HOUR)
    assert (await here.part()).recalled_end is None


async def test_nobody_gives_way_for_what_is_to_be_promised_alone() -> None:
    """Its coordinator asks for none then, and it begins with nobody put aside."""
    here = await Recalling().with_part(terms(4, window=Window(START, DEADLINE)))
    await held(here, "t2", ROOM, 4)
    with pytest.raises(errors.NoCapacity) as refused:
        await held(here, "t3", Window(START + 10 * MINUTE, START + 70 * MINUTE), 4, **MAY)
    assert {each.field for each in refused.value.shortfalls} == {PROMISED}
    assert (await here.part()).recalled_end is None


async def test_where_others_give_way_too_the_refusal_says_that_it_was_for_the_promise() -> None:
    """It said what was short with nobody put aside, and the site was planned without."""
    here = await Recalling().running()
    await held(here, "t2", ROOM)
    window = Window(START + 10 * MINUTE, START + 70 * MINUTE)
    with pytest.raises(errors.NoCapacity) as refused:
        await held(here, "t3", window, 8, **MAY)
    assert {each.field for each in refused.value.shortfalls} == {PROMISED}
    assert (await here.part()).recalled_end is None
    await held(here, "t4", window, 8, **ADMITTED)
    assert (await here.part()).recalled_end is not None


async def test_offers_before_others_have_what_it_would_leave() -> None:
    for may, free in ((MAY, 8), (ADMITTED, 0)):
        here = await Recalling().running(**may)
        here.alive()
        window = Window(START + 10 * MINUTE, START + 70 * MINUTE)
        view = await here.ledger.view()
        found = offers_of(view, POLICY, (window,), (), now=START, before_others=True)
        assert sum(each.free.vcpus for each in found[0].hosts) == free


@pytest.mark.parametrize(
    ("may", "field"),
    [
        ({"promised": ROOM}, "promised"),
        ({**MAY, "cancellable": True}, "cancellable"),
        ({**ADMITTED, "put_aside": True}, "put_aside"),
        ({**MAY, "deadline": DEADLINE - SECOND}, "deadline"),
        ({**ADMITTED, "deadline": START + HOUR - SECOND}, "deadline"),
        ({**MAY, "promised": Window(START + MINUTE, DEADLINE)}, "promised"),
    ],
)
def test_what_no_part_is_asked_for(may: dict[str, Any], field: str) -> None:
    validate_part(terms(1, **MAY))
    validate_part(terms(1, **ADMITTED))
    with pytest.raises(errors.FieldInvalid) as invalid:
        validate_part(terms(1, **may))
    assert invalid.value.field == f"spec.recallable.{field}"
