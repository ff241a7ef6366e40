"""Other terms for a part of a co-allocation: held, prepared, decided; and what stands meanwhile."""

from __future__ import annotations

from datetime import timedelta

import pytest

from intertie.broker.domain.part import PartState
from intertie.common.errors import (
    AmendPending,
    DecisionPending,
    DomainError,
    FieldInvalid,
    HoldExpired,
    NoCapacity,
    PartOver,
    RoleDenied,
    TermsStale,
)
from intertie.common.intervals import Window
from intertie.common.part_spec import PartSpec, Transfer
from intertie.common.values import replace
from tests.fakes.clock import START
from tests.unit.broker.renegotiation import (
    ABORT,
    HOUR,
    META,
    PART,
    Site,
    terms,
)
from tests.unit.broker.samples import DIGEST


async def test_growth_is_counted_beside_what_stands_and_no_host_hears_of_it() -> None:
    site = await Site().up()
    before = await site.wanted()
    receipt = await site.hold(terms(3, hours=2))
    part = await site.part()
    assert (receipt.state, receipt.terms, receipt.tx) == (PartState.PREPARED, 1, "a1")
    assert (part.state, part.terms, part.spec) == (PartState.CONFIRMED, 0, PART.spec)
    assert [await site.vcpus(), await site.vcpus(1.5 * HOUR)] == [3, 3]
    assert await site.wanted() == before
    assert part.amend is not None
    assert part.amend.placed[0] == PART.placed[0]


async def test_commit_puts_the_new_terms_in_force_and_hosts_are_told() -> None:
    site = await Site().up()
    await site.wanted()
    await site.hold(terms(3, hours=2))
    part = await site.commit()
    assert (part.terms, part.tx, part.amend) == (1, "a1", None)
    assert len(part.spec.workspaces) == 3
    assert part.window.end == START + 2 * HOUR
    assert sum((await site.wanted()).values()) == 3
    assert await site.commit() == await site.part()


@pytest.mark.parametrize("how", ["abort", "expire", "release"])
async def test_what_is_let_go_leaves_the_part_as_it_was(how: str) -> None:
    site = await Site().up()
    before = await site.part()
    await site.hold(terms(3), prepare=how == "abort")
    if how == "abort":
        await site.resolve(ABORT)
    elif how == "expire":
        await site.clock.advance(29)
        await site.expire.sweep()
        assert (await site.part()).amend is not None
        await site.clock.advance(1)
        await site.expire.sweep()
    else:
        await site.release("a1")
        assert await site.release("a1") == before
    assert await site.part() == before
    assert await site.vcpus() == 1
    with pytest.raises(PartOver):
        await site.hold(terms(3), prepare=how == "abort")
    with pytest.raises(PartOver):
        await site.prepare()


async def test_what_is_not_there_is_refused_and_the_old_terms_stand() -> None:
    site = await Site().up()
    with pytest.raises(NoCapacity) as refused:
        await site.hold(terms(1, vcpus=5))
    assert [(each.host, each.wanted, each.available) for each in refused.value.shortfalls] == [
        ("n1", 4, 3)
    ]
    assert await site.part() == PART


async def test_transfers_stand_whatever_other_terms_say() -> None:
    """In time they are before all windows, and those of an amend name none."""
    until = PART.window.start
    brought = Transfer(
        digest=DIGEST,
        size_bytes=1,
        from_site="south",
        to_site="north",
        mbit_s=1,
        window=Window(until - timedelta(minutes=1), until),
    )
    site = await Site(replace(PART, spec=replace(PART.spec, transfers=(brought,)))).up()
    await site.hold(terms(2), prepare=True)
    amend = (await site.part()).amend
    assert amend is not None
    assert amend.spec.transfers == (brought,)
    await site.resolve(site.commit_of())
    assert (await site.part()).spec.transfers == (brought,)


async def test_others_do_not_get_what_is_held() -> None:
    site = await Site().up()
    await site.hold(terms(8))
    other = replace(PART.path, part_id="t2")
    with pytest.raises(NoCapacity):
        await site.hold(terms(1), "t2", name=other, replaces=None)
    await site.resolve(ABORT)
    await site.hold(terms(1), "t3", name=replace(other, part_id="t3"), replaces=None)


async def test_what_is_prepared_goes_by_its_decision_alone() -> None:
    site = await Site().up()
    await site.hold(terms(2), prepare=False)
    assert (await site.prepare()).state is PartState.PREPARED
    assert (await site.prepare()).state is PartState.PREPARED
    await site.clock.advance(40)
    await site.expire.sweep()
    for refused in (site.release(), site.release("a1"), site.hold(terms(2), "a2")):
        with pytest.raises(DecisionPending):
            await refused
    await site.in_doubt.sweep()
    assert (site.register.asked, (await site.part()).bound) == (1, True)
    site.register.decision = ABORT
    await site.in_doubt.sweep()
    assert await site.part() == PART


async def test_a_site_asks_only_when_the_time_to_decide_is_over() -> None:
    site = await Site().up()
    await site.hold(terms(2))
    site.register.decision = site.commit_of()
    await site.clock.advance(19)
    await site.in_doubt.sweep()
    assert (await site.part()).terms == 0
    await site.clock.advance(1)
    await site.in_doubt.sweep()
    assert (await site.part()).terms == 1


async def test_in_doubt_it_does_not_end_by_its_window_and_held_growth_does() -> None:
    site = await Site().up()
    await site.hold(terms(1, hours=2), prepare=False, ttl=timedelta(minutes=10))
    assert await site.wanted() == {"n1": 1}
    await site.clock.advance(3601)
    site.alive()
    await site.reconcile.sweep()
    part = await site.part()
    assert (part.end_reason, part.amend) == ("WINDOW_OVER", None)

    site = await Site().up()
    await site.hold(terms(1, hours=2))
    assert await site.wanted() == {"n1": 1}
    await site.clock.advance(3601)
    site.alive()
    await site.reconcile.sweep()
    assert (await site.part()).end_requested_time is None
    late = await site.commit()
    assert (late.terms, late.end_reason) == (1, "WORKSPACE_FAILED")


async def test_an_abort_after_the_old_end_ends_it_by_its_window() -> None:
    site = await Site().up()
    await site.hold(terms(1, hours=2))
    await site.wanted()
    await site.clock.advance(3601)
    await site.resolve(ABORT)
    await site.reconcile.sweep()
    assert (await site.part()).end_reason == "WINDOW_OVER"


async def test_what_a_commit_gives_up_is_free_when_hosts_have_obeyed() -> None:
    site = await Site(replace(PART, spec=terms(1, vcpus=3), generation=0)).up()
    await site.wanted()
    await site.hold(terms(1, vcpus=1, hours=2))
    assert await site.vcpus() == 3
    await site.commit()
    assert [await site.vcpus(), await site.vcpus(1.5 * HOUR)] == [3, 1]
    await site.wanted()
    site.obey()
    await site.wanted()
    assert await site.vcpus() == 1


async def test_of_two_amends_one_is_refused_with_what_its_coordinator_can_do() -> None:
    site = await Site().up()
    await site.hold(terms(2), prepare=False)
    with pytest.raises(AmendPending):
        await site.hold(terms(3), "a2")
    with pytest.raises(AmendPending):
        await site.shrink(terms(1))
    await site.prepare()
    await site.commit()
    with pytest.raises(TermsStale) as stale:
        await site.hold(terms(3), "a2")
    assert (stale.value.replaces, stale.value.terms) == (0, 1)
    with pytest.raises(TermsStale):
        await site.shrink(terms(1), base=2)
    await site.hold(terms(3), "a2", replaces=1)


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (replace(terms(), cluster_uid="another"), FieldInvalid),
        (replace(terms(), window=Window(START + HOUR / 2, START + HOUR)), FieldInvalid),
        (terms(disk_mib=64), FieldInvalid),
        (terms(environment={"timezone": "Europe/Oslo"}), FieldInvalid),
    ],
)
async def test_what_other_terms_may_not_be(spec: PartSpec, error: type[DomainError]) -> None:
    site = await Site().up()
    with pytest.raises(error):
        await site.hold(spec)
    assert await site.part() == PART


async def test_a_part_that_ends_takes_no_terms_and_what_is_held_goes_with_it() -> None:
    site = await Site().up()
    await site.hold(terms(2), prepare=False)
    assert (await site.release()).amend is None
    assert await site.vcpus() == 1
    for refused in (site.hold(terms(2), "a2"), site.prepare(), site.shrink(terms(1))):
        with pytest.raises(PartOver):
            await refused


async def test_a_hold_that_ran_out_is_not_prepared() -> None:
    site = await Site().up()
    await site.hold(terms(2), prepare=False)
    await site.clock.advance(30)
    with pytest.raises(HoldExpired):
        await site.prepare()


async def test_another_coordinator_may_not() -> None:
    site = await Site(replace(PART, coordinator="spiffe://x.intertie/metasched")).up()
    with pytest.raises(RoleDenied):
        await site.hold(terms(2))


async def test_the_same_hold_again_gets_the_same_receipt_also_when_it_is_in_force() -> None:
    site = await Site().up()
    order = site.order(terms(2))
    first = site.notary.open((await site._hold(order, META))[1]).body
    again = site.notary.open((await site._hold(order, META))[1]).body
    assert replace(again, sign_time=first.sign_time) == first
    await site.commit()
    late = site.notary.open((await site._hold(order, META))[1]).body
    assert (late.tx, late.terms, late.state) == ("a1", 1, PartState.PREPARED)
