"""A part of a lease over several sites: its site puts it aside, its coordinator agrees on an end
and on going on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.fleet import SeenPart
from intertie.broker.domain.offers import offers_of
from intertie.broker.domain.part import PartState
from intertie.broker.domain.pricing import ByLoad
from intertie.broker.domain.records import Change
from intertie.broker.domain.tariff import Tariff
from intertie.broker.domain.usage import reserved_window
from intertie.broker.loops.queue import Queue
from intertie.common import errors
from intertie.common.intervals import Window
from intertie.common.part_spec import HostEntry
from intertie.common.tariff import Rates
from intertie.common.values import replace
from tests.fakes.clock import START
from tests.fakes.room import FakeRoom
from tests.unit.broker.line import ImagesHere
from tests.unit.broker.recalling import (
    HOUR,
    MINUTE,
    RESTORE,
    SAVE,
    SECOND,
    Recalling,
    in_advance,
    terms,
)
from tests.unit.broker.renegotiation import ABORT, Site
from tests.unit.broker.samples import COORDINATOR, POLICY, part_spec, workspace


async def test_what_it_takes_to_put_it_aside_counts_and_is_priced_as_it_is() -> None:
    here = await Recalling().running()
    part = await here.part()
    assert part.keeping is not None
    assert part.keeping.save == SAVE
    assert [each.kind for each in part.price] == ["best_effort"]
    plain = await Recalling().running(cancellable=True)
    assert (await plain.part()).keeping.save == timedelta()  # type: ignore[union-attr]


async def test_its_site_puts_it_aside_and_says_so() -> None:
    here = await Recalling().running()
    await here.clock.advance(600)
    await here.urgent()
    part = await here.part()
    end = START + 600 * SECOND
    assert (part.recalled_end, part.window.end, part.terms) == (end, end, 0)
    assert part.keeping is not None
    assert part.ends == end + 2 * HOUR
    assert part.keeping.again == RESTORE
    after = await here.agreed()
    assert (after.recalled_end, after.window.end, after.terms) == (None, end, 1)
    assert after.ends == end + 2 * HOUR
    assert await here.agreed() == after, "the same again"


async def test_for_an_advance_lease_it_runs_for_as_long_as_it_can() -> None:
    here = await Recalling().running()
    await here.urgent(start_in=30 * MINUTE)
    assert (await here.part()).recalled_end == START + 30 * MINUTE - SAVE


async def test_recalled_earlier_before_it_hears_of_an_end_it_takes_both() -> None:
    """A bug: it refused the first for ever, as more than it had, and the next as not following."""
    here = await Recalling().running()
    await here.clock.advance(600)
    await here.urgent(start_in=15 * MINUTE)
    first = (await here.part()).recalled_end
    await here.clock.advance(60)
    await here.urgent()
    second = START + 660 * SECOND
    assert (await here.part()).recalled_end == second
    part = await here.agreed(first)
    assert (part.window.end, part.terms, part.recalled_end) == (second, 1, second)
    assert part.spec.recallable is not None
    assert part.spec.recallable.put_aside
    assert part.ends == second + 2 * HOUR
    assert await here.agreed(first) == part, "the same again"
    after = await here.agreed(second, "s2", 1)
    assert (after.window.end, after.terms, after.recalled_end) == (second, 2, None)
    assert after.ends == second + 2 * HOUR


async def test_only_what_it_has_recalled_it_takes_an_end_for_that_is_later() -> None:
    here = await Recalling().running()
    for end in (START + 2 * HOUR, START + HOUR + SECOND):
        with pytest.raises(errors.DecisionInvalid):
            await here.agreed(end)


async def test_an_end_of_another_site_is_heard_of_late() -> None:
    """What it has is kept for as long as there is disk, and for as long as it had that anyway."""
    here = await Recalling().running()
    await here.clock.advance(600)
    end = START + 590 * SECOND
    part = await here.agreed(end)
    assert part.window.end == end
    assert part.keeping is not None
    assert part.keeping.save == SAVE + 10 * SECOND
    assert part.ends == end + 2 * HOUR
    assert await here.vcpus(600 * SECOND) == 8
    assert await here.vcpus(613 * SECOND) == 0


async def test_heard_of_late_it_counts_no_longer_than_others_were_told() -> None:
    """A bug: what comes after may be promised to the lease that it was put aside for."""
    here = await Recalling().running()
    await here.clock.advance(600)
    await here.urgent()
    await here.clock.advance(3)
    part = await here.agreed()
    assert part.keeping is not None
    assert part.keeping.save == SAVE


async def test_where_the_disk_is_promised_to_others_it_is_kept_for_as_long_as_it_is_free() -> None:
    here = await Recalling().running()
    later = Window(START + HOUR + 30 * MINUTE, START + 4 * HOUR)
    other = part_spec(
        *(workspace(index=each, disk_mib=7900, vcpus=1, memory_mib=16) for each in range(2)),
        window=later,
    )
    await here.hold_other(other)
    await here.clock.advance(600)
    part = await here.agreed(START + 600 * SECOND)
    assert later.start - SECOND <= part.ends <= later.start


async def test_one_that_is_put_aside_at_its_very_end_has_room_for_its_memory() -> None:
    """A bug: with no time in which it is saved beside its window it counted like one of which
    nothing is kept, and others were given the disk that its memory is on."""
    here = await Recalling().running()
    part = await here.agreed((await here.part()).window.end)
    assert part.keeping is not None
    assert (part.keeping.save, part.ends) == (timedelta(), part.window.end + 2 * HOUR)
    disk_mib = sum(each.allocation.disk_mib for each in part.spec.workspaces)
    memory_mib = sum(each.allocation.memory_mib for each in part.spec.workspaces)
    kept = demands_of(part)[-1]
    assert kept.window.end == part.ends
    assert sum(kept.amounts.values()) == disk_mib + memory_mib


async def test_a_cancellable_one_ends_then_as_preempted() -> None:
    here = await Recalling().running(cancellable=True)
    await here.urgent(start_in=MINUTE)
    after = await here.agreed()
    assert after.window.end == START + MINUTE
    assert (after.end_reason, after.ends) == ("PREEMPTED", after.window.end)


async def test_it_goes_on_in_a_later_window_where_it_was() -> None:
    here = Recalling()
    part = await here.suspended()
    body = await here.hold(here.on(part), "a1", replaces=1)
    assert (body.state, body.terms) == (PartState.PREPARED, 2)
    held = await here.part()
    assert held.window == part.window
    assert await here.vcpus(700 * SECOND) == 8, "what is held for it counts"
    after = await here.commit("a1", 2)
    assert after.placed == part.placed
    assert after.window.start == here.clock.now()
    assert after.keeping is not None
    assert (after.keeping.until, after.keeping.restore) == (None, RESTORE)
    assert (after.terms, after.amend) == (2, None)
    assert [each.kind for each in after.price] == ["best_effort"] * 2
    assert after.price[1].window.start == after.window.start + RESTORE
    assert await here.commit("a1", 2) == after, "the same again"
    assert await here.shrink(part.spec, "s1") == after, "what came before, once more"


async def test_it_is_reserved_from_its_first_window_on() -> None:
    """A bug: it was from when it was held, which may be before."""
    window = Window(START + HOUR, START + 2 * HOUR)
    here = await Recalling().with_part(terms(window=window))
    assert reserved_window(await here.part()) == window

    here = Recalling()
    part = await here.suspended()
    first = part.window.start
    await here.hold(here.on(part), "a1", replaces=1)
    reserved = reserved_window(await here.commit("a1", 2))
    assert reserved is not None
    assert reserved.start == first


async def test_an_abort_leaves_it_put_aside() -> None:
    here = Recalling()
    part = await here.suspended()
    await here.hold(here.on(part), "a1", replaces=1)
    after = await here.resolve(ABORT)
    assert replace(after, generation=part.generation, told=part.told) == part


async def test_what_is_not_saved_or_has_no_room_does_not_go_on() -> None:
    here = Recalling()
    part = await here.suspended()
    here.ledger.see(SeenPart(host="n1", part_uid=part.uid, generation=0, obeyed_generation=-1))
    with pytest.raises(errors.NoCapacity) as refused:
        await here.hold(here.on(part), "a1", replaces=1)
    assert "still being saved" in str(refused.value.shortfalls)
    here.saved(part)
    await here.hold_other(part_spec(workspace(), window=Window(here.clock.now(), START + HOUR)))
    with pytest.raises(errors.NoCapacity) as refused:
        await here.hold(here.on(part), "a2", replaces=1)
    assert {each.resource for each in refused.value.shortfalls} >= {"vcpus"}


async def test_one_that_was_saved_late_does_not_go_on_where_others_have_been_promised_room() -> (
    None
):
    """A bug: what counted of it because it was late was taken for room of its own, though it had
    been promised to the lease for which it gave way."""
    here = await Recalling().running()
    await here.clock.advance(600)
    await here.hold_other(in_advance(600 * SECOND + SAVE, 8))
    part = await here.agreed()
    await here.clock.advance(SAVE.total_seconds() + 1)
    await Queue(here.ledger, POLICY, here.clock, lambda: "seed", FakeRoom(), ImagesHere()).sweep()
    late = await here.part()
    assert late.keeping is not None
    assert late.keeping.save > SAVE
    here.alive()
    here.saved(part)
    now = here.clock.now()
    soon = Window(now, now + RESTORE + SECOND)
    assert soon.end < late.window.end + late.keeping.save
    with pytest.raises(errors.NoCapacity) as refused:
        await here.hold(here.on(part, window=soon), "a1", replaces=1)
    assert {each.resource for each in refused.value.shortfalls} >= {"vcpus"}


@pytest.mark.parametrize("lasts", [RESTORE, SECOND])
async def test_one_that_is_slower_to_go_on_than_was_told_goes_on(lasts: timedelta) -> None:
    """A bug: a window that is no longer than going on takes by now was no refusal and no hold, but
    an error of the site's own."""
    here = Recalling()
    part = await here.suspended()
    now = here.clock.now()
    await here.hold(here.on(part, window=Window(now, now + lasts)), "a1", replaces=1)
    after = await here.commit("a1", 2)
    assert after.window.duration == lasts
    assert after.keeping is not None
    assert after.keeping.restore == lasts - SECOND
    assert after.price[-1].window.duration == SECOND


async def test_nothing_else_is_amended() -> None:
    here = await Recalling().running()
    part = await here.part()
    longer = replace(part.spec, window=Window(START, START + 2 * HOUR))
    with pytest.raises(errors.FieldInvalid) as invalid:
        await here.hold(longer, "a1")
    assert invalid.value.field == "spec.window"
    assert await here.resolve(replace(ABORT, tx="t9")) == part

    here = Recalling()
    part = await here.suspended()
    for changes, field in (
        ({"host_entries": (HostEntry(address="10.1.0.9", names=("x",)),)}, "spec"),
        ({"recallable": part.spec.recallable}, "spec.recallable"),
        ({"recallable": None}, "spec.recallable"),
        ({"window": Window(START, START + 3 * HOUR)}, "spec.window.start_time"),
    ):
        with pytest.raises(errors.FieldInvalid) as invalid:
            await here.hold(here.on(part, **changes), f"a-{field}", replaces=1)
        assert invalid.value.field == field
    with pytest.raises(errors.TermsStale):
        await here.hold(here.on(part), "a9", replaces=0)
    plain = await Site().up()
    with pytest.raises(errors.FieldInvalid) as invalid:
        await plain.hold(replace(terms(1), cluster=plain.standing.spec.cluster), "a1")
    assert invalid.value.field == "spec.recallable"


async def test_it_is_not_put_aside_while_other_terms_are_asked_for() -> None:
    """Those are of an agreement that does not know of it."""
    here = Recalling()
    part = await here.suspended()
    await here.hold(here.on(part), "a1", replaces=1)
    with pytest.raises(errors.NoCapacity):
        await here.urgent()
    assert (await here.part()).recalled_end is None


async def test_what_is_kept_is_over_when_its_time_is_and_in_doubt_it_is_not() -> None:
    here = Recalling()
    part = await here.suspended()
    await here.hold(here.on(part), "a1", replaces=1)
    await here.clock.advance_to(part.ends + SECOND)
    await here.reconcile.sweep()
    assert (await here.part()).end_requested_time is None
    after = await here.commit("a1", 2)
    assert after.end_reason == "WORKSPACE_FAILED", "hosts went by the end that they knew"

    here = Recalling()
    part = await here.suspended()
    await here.clock.advance_to(part.ends + SECOND)
    with pytest.raises(errors.PartOver):
        await here.hold(here.on(part), "a1", replaces=1)


async def test_what_is_saved_late_counts_on() -> None:
    here = await Recalling().running()
    await here.clock.advance(600)
    await here.urgent()
    part = await here.agreed()
    queue = Queue(here.ledger, POLICY, here.clock, lambda: "seed", FakeRoom(), ImagesHere())
    await here.clock.advance(SAVE.total_seconds() + 1)
    await queue.sweep()
    late = await here.part()
    assert late.keeping is not None
    assert late.keeping.save > SAVE
    assert late.coordinator == COORDINATOR
    here.saved(part)
    await here.clock.advance(1)
    await queue.sweep()
    over = SAVE + 2 * SECOND
    assert (await here.part()).keeping == replace(late.keeping, save=over), "and no longer"


async def test_who_was_admitted_without_what_is_saved_late_is_decided_anew() -> None:
    """It was noted as what takes nothing is, so that an admission decided before it and written
    after it was beside more than its host had."""
    here = await Recalling().running()
    await here.clock.advance(600)
    await here.urgent()
    await here.agreed()
    await here.clock.advance(SAVE.total_seconds() + 1)
    before = await here.ledger.view()
    await Queue(here.ledger, POLICY, here.clock, lambda: "seed", FakeRoom(), ImagesHere()).sweep()
    with pytest.raises(errors.StaleWrite):
        await here.ledger.commit(Change(writes=(), admitted_on=before.generation))


async def test_a_hold_in_advance_puts_others_aside_that_are_saved_by_then() -> None:
    """In the transaction that admits it. Now there is no time for it, and it cannot wait."""
    here = await Recalling().running()
    with pytest.raises(errors.NoCapacity):
        await here.hold_other(in_advance(SAVE - SECOND))
    assert (await here.part()).recalled_end is None
    part = await here.hold_other(in_advance(30 * MINUTE))
    aside = await here.part()
    assert part.state is PartState.PREPARED
    assert part.window.start == START + 30 * MINUTE
    assert aside.recalled_end == part.window.start - SAVE
    assert await here.vcpus(30 * MINUTE) == 4


async def test_a_hold_for_which_others_give_way_costs_what_its_offer_says() -> None:
    """A bug: it was priced as beside those that it had put aside."""
    here = await Recalling().running()
    by_load = here._hold_part._policy = replace(
        POLICY, pricing=ByLoad(tariff=Tariff(rates=Rates(vcpu_hour=1.0)))
    )
    asked = in_advance(30 * MINUTE)
    view, now = await here.ledger.view(), here.clock.now()
    [offer] = offers_of(view, by_load, (asked.window,), (), now=now, before_others=True)
    part = await here.hold_other(asked)
    assert [each.rates for each in part.price] == [offer.rates]
    assert await here.vcpus(30 * MINUTE) == 4, "and nothing stays of it"


async def test_one_that_waits_puts_nobody_aside() -> None:
    here = await Recalling().running()
    window = in_advance(30 * MINUTE).window
    with pytest.raises(errors.NoCapacity):
        await here.hold_other(terms(4, window=window))
    assert (await here.part()).recalled_end is None


async def test_offers_say_what_could_be_had() -> None:
    here = await Recalling().running()
    view, now = await here.ledger.view(), here.clock.now()
    windows = tuple(
        Window(START + each, START + each + HOUR)
        for each in (timedelta(), SAVE + SECOND, HOUR - SECOND)
    )

    def vcpus(*, before_others: bool) -> list[int]:
        found = offers_of(view, POLICY, windows, (), now=now, before_others=before_others)
        return [sum(host.free.vcpus for host in each.hosts) for each in found]

    assert vcpus(before_others=False) == [0, 0, 0]
    assert vcpus(before_others=True) == [0, 8, 8]
    assert vcpus(before_others=False) == [0, 0, 0], "nothing stays of it"
