"""What a site asks for room that others make: in offers, in what is agreed on, and beside a
budget. Its hosts have eight vCPUs together."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from intertie.api.types.v1 import price_pb2
from intertie.broker.domain.account import Account
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.giving_way import (
    allotted_before_others,
    asked_before_others,
    draft_within_budget,
)
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.offers import Offer, offers_of
from intertie.broker.domain.price import MOST, amount_of, asked_for, shortened, terms_of
from intertie.broker.domain.pricing import ByLoad, Flat
from intertie.broker.domain.stretch import Stretch
from intertie.broker.domain.tariff import ADVANCE, Tariff
from intertie.broker.site_proto import offer_to_proto
from intertie.common.errors import NoCapacity
from intertie.common.etcd.records import decode, encode
from intertie.common.intervals import Window
from intertie.common.names import ClusterName
from intertie.common.price import PriceTerm, rooms_said
from intertie.common.quantities import Vector
from intertie.common.rpc.price_proto import price_fields, price_from_proto
from intertie.common.spec import LeaseTerms, Placement, normalise
from intertie.common.tariff import Rates, RoomMade, rooms_together
from intertie.common.values import replace
from intertie.metasched.convert_parts import offer_from_proto
from tests.unit.broker.line import name_of
from tests.unit.broker.samples import HOUR, NOW, POLICY, part_spec, workspace
from tests.unit.broker.standing import group, spec
from tests.unit.broker.test_giving_way import LATER, SAVE, running

MEMORY = 4096
RATES = Rates(vcpu_hour=1, give_way_vcpu_hour=1.6, give_way_memory_gib_hour=8)
ASKS = replace(POLICY, pricing=Flat(tariff=Tariff(rates=RATES)))
SAVED = LATER + SAVE
QUICK = LATER + timedelta(seconds=9)
"""When three on a host are saved: one leaves the others room for one more on each."""


def window(start: datetime = SAVED) -> Window:
    return Window(start, start + HOUR)


def offered(here: LedgerView, *, before_others: bool = True, policy: Policy = ASKS) -> Offer:
    [offer] = offers_of(here, policy, (window(),), (), now=LATER, before_others=before_others)
    return offer


def held(here: LedgerView, count: int, *, vcpus: int = 1) -> Stretch:
    """What is agreed on for so many workspaces, from when others are saved."""
    asked = part_spec(*(workspace(index=n, vcpus=vcpus) for n in range(count)), window=window())
    found, aside = allotted_before_others(asked, here, ASKS, tenant="demo", now=LATER, alone=True)
    return asked_before_others(found.spec, aside, here, ASKS, now=LATER)


def test_an_offer_says_what_is_free_while_nobody_gives_way_where_something_is_asked() -> None:
    here = running(6)
    offer = offered(here)
    assert sum(host.free.vcpus for host in offer.hosts) == 8
    assert offer.free_together is not None
    assert (offer.free_together.vcpus, offer.free_together.memory_mib) == (2, MEMORY - 6 * 128)
    told = offer_from_proto(offer_to_proto(offer))
    assert told.free_together == Vector(vcpus=2, memory_mib=MEMORY - 6 * 128)
    assert told.rates == RATES
    assert offered(here, before_others=False).free_together is None
    assert offered(here, policy=POLICY).free_together is None
    plain = offer_to_proto(offered(here, policy=POLICY))
    assert not plain.HasField("free_together")
    by_kind = Tariff(kinds={ADVANCE: RATES})
    assert offered(here, policy=replace(POLICY, pricing=Flat(tariff=by_kind))).free_together


def test_what_is_taken_beyond_that_is_charged_beside_the_rest() -> None:
    asked = held(running(6), 4)
    assert asked.room == RoomMade(vcpus=2, memory_mib=0, amount=3.2)
    assert asked.hour == 4 + 3.2
    assert asked.rates == RATES


def test_nobody_is_paid_for_who_does_not_give_way() -> None:
    asked = held(running(6), 2)
    assert (asked.room, asked.hour) == (None, 2)


def test_where_enough_is_free_in_all_who_gives_way_costs_nothing() -> None:
    """Two are free on each host, and one workspace takes four."""
    here = running(4)
    asked = held(here, 1, vcpus=4)
    assert (asked.room, asked.hour) == (None, 4)


def test_it_is_dearer_with_the_rest_where_prices_go_by_load() -> None:
    by_load = replace(POLICY, pricing=ByLoad(tariff=Tariff(rates=RATES), surcharge=1.0))
    here = running(6)
    busy = part_spec(workspace(), window=window())
    asked = asked_for(busy, here, by_load, now=LATER, free=Vector(memory_mib=1024))
    assert asked.room is not None
    assert asked.room.amount == asked.rates.give_way_vcpu_hour == pytest.approx(1.6 * 1.75)


def test_terms_and_records_of_usage_add_up() -> None:
    asked = held(running(6), 4)
    half = Window(SAVED, SAVED + HOUR / 2)
    rest = Window(SAVED + HOUR / 2, SAVED + HOUR)
    [whole] = terms_of((asked,), "north")
    parts = [*terms_of((asked,), "north", half), *terms_of((asked,), "north", rest)]
    assert whole.amount == pytest.approx(7.2)
    assert whole.room == RoomMade(vcpus=2, memory_mib=0, amount=3.2)
    assert sum(each.amount for each in parts) == pytest.approx(whole.amount)
    assert rooms_together(each.room for each in parts) == whole.room
    assert list(rooms_said([whole])) == ["2 vCPUs of best-effort leases at north give way: +3.20"]


def test_the_wire_has_it_only_where_it_is() -> None:
    [term] = terms_of((held(running(6), 4),), "north")
    price = price_pb2.Price(**price_fields([term]) or {})
    assert price_from_proto(price) == (term,)
    [plain] = terms_of((held(running(6), 2),), "north")
    told = price_pb2.Price(**price_fields([plain]) or {})
    assert not told.terms[0].HasField("room_made")
    assert price_from_proto(told) == (plain,)


@pytest.mark.parametrize(
    ("vcpus", "memory_mib", "said"),
    [
        (1, 0, "1 vCPU of best-effort leases at b gives way: +0.50"),
        (0, 512, "512 MiB of memory of best-effort leases at b gives way: +0.50"),
        (
            1,
            512,
            "1 vCPU and 512 MiB of memory of best-effort leases at b give way: +0.50",
        ),
    ],
)
def test_it_is_said_in_words(vcpus: int, memory_mib: int, said: str) -> None:
    room = RoomMade(vcpus=vcpus, memory_mib=memory_mib, amount=0.5)
    term = PriceTerm(site="b", window=window(), amount=1.0, room=room)
    assert list(rooms_said([term, replace(term, room=None)])) == [said]


def test_the_least_amount_is_not_said_to_be_nothing() -> None:
    room = RoomMade(vcpus=1, memory_mib=0, amount=0.00042)
    term = PriceTerm(site="b", window=window(), amount=1.0, room=room)
    assert next(rooms_said([term])).endswith("+0.00042")


def test_of_stretches_that_become_one_it_is_what_it_was_in_all() -> None:
    asked = held(running(6), 4)
    many = tuple(
        replace(
            asked,
            window=Window(SAVED + n * HOUR, SAVED + (n + 1) * HOUR),
            room=RoomMade(vcpus=n, memory_mib=0, amount=float(n)) if n else None,
        )
        for n in range(MOST + 2)
    )
    account = Account(name="", until=many[-2].window.end, number=1)
    fewer = shortened(many, account)
    assert len(fewer) == MOST
    assert fewer[0].room == RoomMade(vcpus=2, memory_mib=0, amount=1.0)
    before, after = terms_of(many, "north"), terms_of(fewer, "north")
    in_all = rooms_together(each.room for each in after)
    assert in_all is not None
    assert (in_all.vcpus, in_all.amount) == (MOST + 1, sum(range(MOST + 2)))
    assert [each.room for each in before[3:]] == [each.room for each in after[1:]]
    assert amount_of(fewer) == pytest.approx(amount_of(many))


def test_where_nothing_is_asked_nothing_of_it_is_on_record() -> None:
    plain = asked_for(part_spec(workspace()), running(), POLICY, now=LATER)
    assert b"room" not in encode(plain)
    assert b"give_way" not in encode(plain)
    asked = held(running(6), 4)
    assert decode(Stretch, encode(asked)) == asked


def within_budget(max_cost: float, **lease: Any) -> tuple[datetime, float, int]:
    """When four begin at a site of which two are free, what they cost, and how many give way."""
    terms = LeaseTerms(duration=HOUR, **lease)
    asked = replace(spec(group(count=4), lease=terms), placement=Placement(max_cost=max_cost))
    asked = normalise(asked, now=LATER)
    name = ClusterName.parse(name_of("urgent"))
    found, price = draft_within_budget(name, "urgent", asked, running(6), ASKS, now=LATER)
    return found.draft.start, round(amount_of((price,)), 6), len(found.aside)


def test_a_site_alone_says_what_of_a_price_above_the_budget_is_for_others() -> None:
    assert within_budget(7.2) == (QUICK, 7.2, 1)
    with pytest.raises(NoCapacity) as refused:
        within_budget(7.0)
    [short] = refused.value.shortfalls
    assert short.message == (
        "north alone costs 7.2, and the budget is 7;"
        " 2 vCPUs of best-effort leases at north give way: +3.20"
    )


def test_it_begins_later_where_nobody_gives_way_then_and_the_budget_is_for_that() -> None:
    ends = NOW + 4 * HOUR
    assert within_budget(7.2, max_delay=4 * HOUR) == (QUICK, 7.2, 1)
    assert within_budget(7.0, max_delay=4 * HOUR) == (ends, 4.0, 0)
    with pytest.raises(NoCapacity, match=r"costs 7\.2"):
        within_budget(3.0, max_delay=4 * HOUR)
