"""What a site asks for the room that others make for other terms of a lease that stands, and what
becomes of what they have made before. Its hosts have eight vCPUs together."""

from __future__ import annotations

from datetime import timedelta

import pytest

from intertie.broker.domain.amending import Amendment, amend_before_others
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import Part
from intertie.broker.domain.price import amount_of, at_agreed_rates, terms_of
from intertie.broker.domain.pricing import ByLoad, Flat
from intertie.broker.domain.stretch import Stretch
from intertie.broker.domain.tariff import Tariff
from intertie.common.amend_rules import DURATION, GROUPS
from intertie.common.errors import NoCapacity
from intertie.common.etcd.records import decode, encode
from intertie.common.intervals import Window
from intertie.common.names import PartName
from intertie.common.spec import ClusterSpec, Placement
from intertie.common.tariff import Rates, RoomMade, rooms_together
from intertie.common.values import replace
from tests.fakes.clock import START
from tests.unit.broker.line import by_deadline, in_time, view
from tests.unit.broker.recalling import Recalling, terms
from tests.unit.broker.samples import HOUR, NOW, POLICY, part_spec, workspace
from tests.unit.broker.test_giving_way import LATER, MINUTE
from tests.unit.broker.test_growing import of, standing, waiting

RATES = Rates(vcpu_hour=1, give_way_vcpu_hour=10)
ASKS = replace(POLICY, pricing=Flat(tariff=Tariff(rates=RATES)))
LEFT = 5 / 6
"""Of the hour, from LATER on."""


def changed(
    here: LedgerView, record: ClusterRecord, part: Part, asked: ClusterSpec, *paths: str
) -> Amendment:
    after, _ = amend_before_others(record, part, asked, paths, here, ASKS, now=LATER)
    assert after is not None
    return after


def room(vcpus: int) -> RoomMade:
    return RoomMade(vcpus=vcpus, memory_mib=0, amount=10.0 * vcpus)


def told(price: tuple[Stretch, ...]) -> list[tuple[Window, RoomMade | None]]:
    return [(each.window, each.room) for each in price]


def test_more_is_asked_for_what_others_give_way_for_and_from_when_on() -> None:
    here, record, part = standing(view([]), 4)
    gone = waiting(here, 3, cancellable=True)
    more = changed(gone, record, part, of(6), GROUPS)
    old, new = more.part.price
    assert (old.window.end, old.room) == (LATER, None)
    assert (new.window.end, new.room) == (NOW + HOUR, room(1))
    assert new.hour == 6 + 10
    assert more.record.cost == pytest.approx(amount_of(more.part.price))
    fits = changed(gone, record, part, of(5), GROUPS)
    assert [each.room for each in fits.part.price] == [None, None], "nobody gives way for it"


def test_for_a_longer_one_it_is_asked_for_the_time_in_which_they_give_way() -> None:
    here, record, part = standing(view([]), 8)
    here, _ = in_time("late", by_deadline(6, deadline=NOW + 4 * HOUR), here)
    longer = changed(here, record, part, of(8, hours=2), DURATION).part.price
    end = part.window.end
    assert told(longer[1:]) == [
        (Window(LATER, end), None),
        (Window(end, end + HOUR), room(6)),
    ]
    assert [each.hour for each in longer[1:]] == [8, 8 + 60]


def paid(count: int, vcpus: int) -> tuple[LedgerView, ClusterRecord, Part]:
    """A lease for which others have made room once; all else is free now."""
    here, record, part = standing(view([]), count)
    [price] = part.price
    made = replace(price, rates=RATES, hour=count + 10.0 * vcpus, room=room(vcpus))
    return here, record, replace(part, price=(made,))


@pytest.mark.parametrize(("asked", "left"), [(6, 4), (5, 3), (2, 0), (1, 0), (7, 4), (8, 4)])
def test_what_was_made_before_is_charged_on_less_what_is_given_back(asked: int, left: int) -> None:
    """What is free beside it costs nothing; what it gives up is what others had made first."""
    here, record, part = paid(6, 4)
    if asked == 6:
        asked_for, paths = of(6, hours=1.5), (DURATION,)
        end = NOW + 1.5 * HOUR
    else:
        asked_for, paths, end = of(asked), (GROUPS,), NOW + HOUR
    price = changed(here, record, part, asked_for, *paths).part.price
    now = Window(LATER, NOW + HOUR)
    later = [(Window(NOW + HOUR, end), None)] if end > now.end else []
    assert told(price) == [
        (Window(NOW, LATER), room(4)),
        (now, room(left) if left else None),
        *later,
    ]


def test_of_less_that_nobody_was_asked_for_it_is_less_at_the_rates_there_are() -> None:
    _, _, part = paid(6, 4)
    less = replace(part.spec, workspaces=part.spec.workspaces[:5])
    price = at_agreed_rates(part.price, part.spec, less, now=LATER)
    assert told(price) == [(Window(NOW, LATER), room(4)), (Window(LATER, NOW + HOUR), room(3))]
    assert price[-1].hour == 5 + 30


def test_it_is_asked_beside_what_others_have_made_before() -> None:
    here, record, part = paid(4, 2)
    gone = waiting(here, 4, cancellable=True)
    price = changed(gone, record, part, of(6), GROUPS).part.price
    assert [each.room for each in price] == [room(2), room(4)]
    assert amount_of(price) == pytest.approx((4 + 20) / 6 + (6 + 40) * LEFT)
    all_of_it = rooms_together(each.room for each in terms_of(price, "north"))
    assert all_of_it is not None
    assert all_of_it.amount == pytest.approx(20 / 6 + 40 * LEFT)


def test_a_budget_holds_with_it() -> None:
    here, record, part = standing(view([]), 4)
    record = replace(record, spec=replace(record.spec, placement=Placement(max_cost=13.0)))
    gone = waiting(here, 4, cancellable=True)
    assert changed(gone, record, part, of(5), GROUPS).record.cost < 13
    with pytest.raises(NoCapacity) as refused:
        changed(gone, record, part, of(6), GROUPS)
    [short] = refused.value.shortfalls
    assert short.resource == "budget"
    assert "2 vCPUs of best-effort leases at north give way: +16.67" in short.message


def test_a_site_that_asks_nothing_has_one_price_for_all_of_it() -> None:
    here, record, part = standing(view([]), 4)
    gone = waiting(here, 4, cancellable=True)
    after, aside = amend_before_others(record, part, of(6), (GROUPS,), gone, POLICY, now=LATER)
    assert after is not None
    assert aside
    assert [each.room for each in after.part.price] == [None, None]
    assert len(after.part.price) == 2
    assert timedelta() < after.part.price[-1].window.duration


async def test_of_a_lease_over_several_sites_it_is_asked_as_its_new_terms_are_held() -> None:
    """And in force once these are. In the last half hour, by which it is longer, nobody has to."""
    here = Recalling()
    here.alive()
    here._hold_part._policy = here._hold._policy = ASKS
    window = Window(START + 30 * MINUTE, START + 60 * MINUTE)
    there = [workspace(index=each) for each in range(2)]
    here.standing = replace(here.standing, name=str(PartName("north", "demo", "a1")))
    await here.hold(part_spec(*there, window=window), "a1", replaces=None)
    standing = await here.commit("a1", 0)
    may = await here.hold_other(terms(6), "t9")
    here.standing = replace(here.standing, name=may.name)
    await here.commit("t9", 0)
    here.standing = replace(here.standing, name=standing.name)
    await here.clock.advance(600)
    here.alive()

    more = [workspace(index=each) for each in range(4)]
    end = START + 90 * MINUTE
    await here.hold(part_spec(*more, window=Window(window.start, end)), "b1")
    held = await here.part()
    assert held.amend is not None
    asked = [(window, room(2)), (Window(window.end, end), None)]
    assert told(held.amend.prices) == asked
    assert held.price == standing.price
    assert decode(Part, encode(held)) == held
    assert told((await here.commit("b1")).price) == asked


def test_what_is_made_room_for_later_is_not_charged_now_by_another_update() -> None:
    """One workspace given back raised the price: the room of the time after the old end was charged
    for all of what is left."""
    here, record, part = standing(view([]), 8)
    here, _ = in_time("late", by_deadline(6, deadline=NOW + 4 * HOUR), here)
    after = changed(here, record, part, of(8, hours=2), DURATION)
    again = changed(here, after.record, after.part, of(7, hours=2), GROUPS)
    assert amount_of(again.part.price) <= amount_of(after.part.price)
    less = replace(after.part.spec, workspaces=after.part.spec.workspaces[:7])
    untold = at_agreed_rates(after.part.price, after.part.spec, less, now=LATER)
    assert all(each.room is None for each in untold if each.window.end <= NOW + HOUR)


def test_room_that_was_made_until_the_old_end_is_charged_on_by_another_update() -> None:
    """It was dropped: one workspace more made the lease cheaper."""
    here, record, part = paid(6, 4)
    after = changed(here, record, part, of(6, hours=2), DURATION)
    again = changed(here, after.record, after.part, of(7, hours=2), GROUPS)
    assert amount_of(again.part.price) >= amount_of(after.part.price)


def test_nobody_gives_way_to_keep_an_update_within_its_budget() -> None:
    """Where a price goes by load it is less with others put aside: they were, though there was
    room."""
    tariff = Tariff(rates=Rates(vcpu_hour=1))
    by_load = replace(POLICY, pricing=ByLoad(tariff=tariff, surcharge=1.0))
    here, record, part = standing(view([]), 4)
    there = waiting(here, 3, cancellable=True)
    after, aside = amend_before_others(record, part, of(5), (GROUPS,), there, by_load, now=LATER)
    assert after is not None
    assert aside == ()
    less = Placement(max_cost=after.record.cost - 0.5)
    record = replace(record, spec=replace(record.spec, placement=less))
    asked = replace(of(5), placement=less)
    with pytest.raises(NoCapacity):
        amend_before_others(record, part, asked, (GROUPS,), there, by_load, now=LATER)
