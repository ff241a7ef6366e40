"""What a lease costs: by resource, by kind, by load, stretch by stretch."""

from datetime import timedelta

import pytest

from intertie.broker.domain.account import Account
from intertie.broker.domain.fleet import Fleet
from intertie.broker.domain.load import load_of
from intertie.broker.domain.offers import Offer, offers_of
from intertie.broker.domain.price import (
    MOST,
    amended,
    amount_of,
    applied,
    asked_for,
    at_agreed_rates,
    shortened,
    stretch_of,
)
from intertie.broker.domain.pricing import ByLoad, Flat
from intertie.broker.domain.stretch import Stretch
from intertie.broker.domain.tariff import ADVANCE, IMMEDIATE, Tariff, kind_of
from intertie.common.etcd.records import encode
from intertie.common.intervals import Window
from intertie.common.spec import BandwidthTerm, DiskTerm
from intertie.common.tariff import RATES, Rates, RoomMade, part_hour, room_of
from intertie.common.values import replace
from tests.unit.broker.samples import HOUR, NOW, POLICY, facts, part, part_spec, workspace
from tests.unit.broker.standing import view_of

EACH = Rates(
    vcpu_hour=1,
    memory_gib_hour=10,
    disk_gib_hour=100,
    link_mbit_s_hour=1e3,
    iops_hour=1e4,
    throughput_mib_s_hour=1e5,
    nic_mbit_s_hour=1e6,
    pair_mbit_s_hour=1e7,
    give_way_vcpu_hour=1e8,
    give_way_memory_gib_hour=1e9,
)
"""A digit each."""
DEAR = Rates(vcpu_hour=5)
BY_KIND = Tariff(rates=Rates(vcpu_hour=2), kinds={ADVANCE: Rates(vcpu_hour=1), "other": DEAR})
LATER = Window(NOW + HOUR, NOW + 2 * HOUR)
QUARTER = Window(NOW, NOW + HOUR / 4)
FLEET = Fleet.of([facts("n1"), facts("n2")], POLICY)
EMPTY = view_of(FLEET, ())


def test_every_resource_has_its_price() -> None:
    one = workspace(
        vcpus=2,
        memory_mib=3 * 1024,
        disk_mib=4 * 1024,
        disk=DiskTerm(cap_iops=5, cap_mib_s=6),
        nic=BandwidthTerm(guarantee_mbit_s=7),
    )
    spec = part_spec(one, pairs=(("w-0", "x-0", 8),), remote=("x-0",), link_mbit_s=3)
    # Both halves of the link, and this site's end of the pair.
    assert part_hour(EACH, spec) == 2 + 30 + 400 + 2 * 3e3 + 5e4 + 6e5 + 7e6 + 8e7
    assert room_of(EACH, 3, 4096) == RoomMade(vcpus=3, memory_mib=4096, amount=3e8 + 4e9)
    assert room_of(EACH, 0, -1) is None
    for name in RATES:
        alone = Rates(**{name: getattr(EACH, name)})
        if name.startswith("give_way"):
            assert part_hour(alone, spec) == 0, "it is asked for by itself"
            assert room_of(alone, 3, 4096)
        else:
            assert 0 < part_hour(alone, spec) < part_hour(EACH, spec), name


def test_both_ends_of_a_pair_that_are_here_are_charged_wherever_they_are() -> None:
    spec = part_spec(workspace(), workspace(index=1), pairs=(("w-0", "w-1", 8),))
    assert part_hour(Rates(pair_mbit_s_hour=1), spec) == 16


@pytest.mark.parametrize(
    ("lead", "kind"),
    [
        (timedelta(), IMMEDIATE),
        (timedelta(seconds=-30), IMMEDIATE),
        (timedelta(minutes=1), IMMEDIATE),
        (timedelta(minutes=1, seconds=1), ADVANCE),
    ],
)
def test_a_lease_that_begins_later_is_an_advance_reservation(lead: timedelta, kind: str) -> None:
    assert kind_of(Window(NOW + lead, NOW + HOUR), now=NOW) == kind


def test_a_kind_has_its_own_tariff_or_that_of_all() -> None:
    flat = Flat(tariff=BY_KIND)
    asked = {kind: flat.rates(kind, LATER, _never).vcpu_hour for kind in (ADVANCE, "x", "other")}
    assert asked == {ADVANCE: 1, "x": 2, "other": 5}


def _never() -> float:
    raise AssertionError("a flat price asks for no load")


def test_load_is_of_the_scarcest_resource_over_the_window() -> None:
    """2 of 8 vCPUs and 128 of 4096 MiB over the first hour; nothing after it."""
    busy = view_of(FLEET, (part(spec=part_spec(workspace(vcpus=2))),))
    assert load_of(busy, POLICY, Window(NOW, NOW + HOUR), now=NOW) == pytest.approx(0.25)
    assert load_of(busy, POLICY, Window(NOW, NOW + 3 * HOUR), now=NOW) == pytest.approx(0.25)
    assert load_of(busy, POLICY, LATER, now=NOW) == 0
    assert load_of(view_of(Fleet.of([facts("n9")], POLICY), ()), POLICY, LATER, now=NOW) == 0, (
        "not admitted"
    )


def test_a_fuller_site_asks_more_and_offers_what_it_asks() -> None:
    policy = replace(POLICY, pricing=ByLoad(tariff=BY_KIND, surcharge=2))
    spec = part_spec(workspace())
    busy = view_of(FLEET, (part(spec=part_spec(workspace(vcpus=2))),))
    for view, factor in ((EMPTY, 1.0), (busy, 1.5)):
        asked = asked_for(spec, view, policy, now=NOW)
        [offer] = offers_of(view, policy, (spec.window,), (), now=NOW)
        assert asked.rates == offer.rates == Rates(vcpu_hour=2 * factor)
        assert _asked(offer) == {ADVANCE: factor, "other": 5 * factor}
        assert offer.pricing == "by_load"
    # The same window later in the day is asked at the tariff of its kind.
    [offer] = offers_of(busy, policy, (LATER,), (), now=NOW)
    assert offer.rates == Rates(vcpu_hour=1)


def _asked(offer: Offer) -> dict[str, float]:
    return {kind: rates.vcpu_hour for kind, rates in offer.kinds.items()}


def test_the_past_stays_at_the_old_price() -> None:
    policy = replace(POLICY, pricing=Flat(tariff=Tariff(rates=Rates(vcpu_hour=1))))
    two = part_spec(workspace(vcpus=2))
    first = asked_for(two, EMPTY, policy, now=NOW)
    assert amount_of((first,)) == 2
    dearer = replace(POLICY, pricing=Flat(tariff=Tariff(rates=Rates(vcpu_hour=3))))
    longer = part_spec(workspace(vcpus=4), window=Window(NOW, NOW + 2 * HOUR))
    agreed = amended(
        (first,), part_spec(workspace(vcpus=2)), longer, EMPTY, dearer, now=NOW + HOUR / 2
    )
    assert [each.window.end for each in agreed] == [NOW + HOUR / 2, NOW + 2 * HOUR]
    assert amount_of(agreed) == pytest.approx(2 / 2 + 12 * 1.5)
    assert amount_of(agreed, Window(NOW, NOW + HOUR)) == pytest.approx(1 + 6)

    shorter = part_spec(workspace(vcpus=4), window=Window(NOW, NOW + HOUR))
    again = amended(agreed, longer, shorter, EMPTY, dearer, now=NOW + HOUR * 3 / 4)
    assert amount_of(again) == pytest.approx(1 + 6)


def test_an_end_that_is_heard_of_late_is_the_end_of_the_price_too() -> None:
    """A bug: what was agreed without this site, and heard of after the new end, was charged until
    it was heard."""
    policy = replace(POLICY, pricing=Flat(tariff=Tariff(rates=Rates(vcpu_hour=1))))
    first = asked_for(part_spec(workspace()), EMPTY, policy, now=NOW)
    whole, short = part_spec(workspace()), part_spec(workspace(), window=QUARTER)
    [late] = at_agreed_rates((first,), whole, short, now=NOW + HOUR / 2)
    assert late == replace(first, window=short.window)
    assert at_agreed_rates((first,), whole, short, now=NOW + HOUR / 4) == (late,)
    assert amount_of(at_agreed_rates((first,), whole, short, now=NOW + HOUR / 8)) == amount_of(
        (late,)
    )


def test_terms_that_are_changed_before_the_start_replace_those_before() -> None:
    policy = replace(POLICY, pricing=Flat(tariff=BY_KIND))
    before = part_spec(workspace(), window=LATER)
    first = asked_for(before, EMPTY, policy, now=NOW)
    [agreed] = amended(
        (first,),
        before,
        part_spec(workspace(vcpus=2), window=LATER),
        EMPTY,
        policy,
        now=NOW + HOUR * 0.999,
    )
    assert (agreed.window, agreed.kind, agreed.hour) == (LATER, ADVANCE, 2), "its kind stays"


def test_a_part_that_is_amended_for_ever_can_be_written_for_ever() -> None:
    """A bug: each Update had a stretch for ever, and a part with too many could not be written,
    nor ended, any more. What no record has yet stays as it was agreed."""
    spec = part_spec(workspace(), window=Window(NOW, NOW + 5000 * HOUR))
    agreed: tuple[Stretch, ...] = ()
    account: Account | None = None
    whole = 0.0
    for number in range(3 * MOST):
        now = NOW + number * HOUR
        rates = Rates(vcpu_hour=number, iops_hour=number / 7)
        agreed = applied(agreed, spec, [stretch_of(spec.window, "immediate", rates, spec)], now=now)
        assert shortened(agreed, None) == agreed, "nothing is written down"
        before, agreed = agreed, shortened(agreed, account)
        assert amount_of(agreed) == pytest.approx(amount_of(before))
        until = account.until if account else NOW
        assert [each for each in agreed if each.window.start >= until] == [
            each for each in before if each.window.start >= until
        ]
        whole += agreed[-1].hour
        if number % 20 == 19:  # and the record of the last five hours is late
            account = Account(name="p", until=now - 5 * HOUR, number=number)
    assert len(agreed) == MOST
    assert len(encode(agreed)) < 50_000
    assert amount_of(agreed, Window(NOW, NOW + 3 * MOST * HOUR)) == pytest.approx(whole)
    assert part_hour(agreed[0].rates, spec) == pytest.approx(agreed[0].hour)


def test_a_part_of_before_prices_has_one_for_what_is_to_come() -> None:
    spec = part_spec(workspace())
    [agreed] = amended((), spec, spec, EMPTY, POLICY, now=NOW + HOUR / 2)
    assert agreed.window == Window(NOW + HOUR / 2, NOW + HOUR)
