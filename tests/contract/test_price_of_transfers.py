"""What a plan says that transfers cost is what their sites agree on, and what records add up to."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from intertie.broker.domain.account import Account
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import Part
from intertie.broker.domain.price import amount_of, asked_for, sent_for
from intertie.broker.domain.pricing import Flat
from intertie.broker.domain.refund_policy import RefundPolicy
from intertie.broker.domain.refunds import with_end
from intertie.broker.domain.tariff import Tariff
from intertie.broker.domain.usage import is_final, next_period, price_during
from intertie.common.intervals import Window
from intertie.common.names import ClusterName, Parent
from intertie.common.quantities import Vector
from intertie.common.spec import ClusterSpec, DiskTerm, GroupPlacement, layout
from intertie.common.tariff import Rates
from intertie.common.values import replace
from intertie.metasched.domain.bringing import as_held, spans_before, with_images_brought
from intertie.metasched.domain.parts import part_specs
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.planned import planned
from intertie.metasched.domain.problem import (
    HostRoom,
    ImageFound,
    LinkRoom,
    Offer,
    Problem,
    problem_of,
)
from tests.unit.broker.samples import NOW, POLICY, part
from tests.unit.metasched.world import spec

S = timedelta(seconds=1)
HOUR = timedelta(hours=1)
UID = "0123456789ab"
NAME = ClusterName(Parent("metascheds/meta", "demo"), "c1")
GUEST = ImageFound(digest="b3:" + "1" * 64, size_bytes=900_000_000, virtual_mib=64)
RATES = {
    "north": Rates(vcpu_hour=0.04, link_mbit_s_hour=0.003, disk_gib_hour=0.001),
    "south": Rates(vcpu_hour=0.02, link_mbit_s_hour=0.0007, memory_gib_hour=0.01),
}
ROOM = Vector(
    vcpus=64,
    memory_mib=65536,
    disk_mib=65536,
    iops=100000,
    throughput_mib_s=100000,
    uplink_mbit_s=1000,
)
CAPPED = DiskTerm(cap_iops=100, cap_mib_s=10)


def asked(max_cost: float = 0.0) -> ClusterSpec:
    """At south, which lacks the image."""
    wanted = spec(2)
    groups = tuple(
        replace(
            each,
            allocation=replace(each.allocation, disk=CAPPED),
            placement=GroupPlacement(allow_sites=("south",)),
        )
        for each in wanted.groups
    )
    placement = replace(wanted.placement, max_cost=max_cost)
    return replace(wanted, groups=groups, placement=placement)


def problem(wanted: ClusterSpec, start: datetime) -> Problem:
    window = Window(start, start + HOUR)
    link = LinkRoom(egress_mbit_s=37, ingress_mbit_s=41, latency=S / 1000)
    host = HostRoom(free=ROOM, hypervisors=frozenset({"qemu"}))
    offers = {
        site: (
            Offer(
                hosts=(host,),
                links={peer: link},
                images={"guest": GUEST} if site == "north" else {},
                rates=RATES[site],
            ),
        )
        for site, peer in (("north", "south"), ("south", "north"))
    }
    spans = spans_before((window,), NOW + 10 * S)
    before = {site: [each.links for each in of] for site, of in offers.items()}
    return with_images_brought(problem_of(wanted, (window,), offers), spans, before)


def plan_of(wanted: ClusterSpec) -> Plan | None:
    tried = problem(wanted, NOW + HOUR)
    found = planned(tried, effort=1.0)
    return as_held(tried, found) if found is not None else None


def held(plan: Plan) -> dict[str, Part]:
    """As their sites agree on them."""
    wanted, found = asked(), {}
    laid = layout(UID, wanted, {"head": 1, "worker": 2}, plan.site_of(), "c1")
    for site, each in part_specs(str(NAME), UID, wanted, plan, laid).items():
        policy = replace(POLICY, site=site, pricing=Flat(tariff=Tariff(rates=RATES[site])))
        price = asked_for(each, LedgerView(), policy, now=NOW)
        sent = sent_for(each.transfers, price.rates, price.kind)
        found[site] = part(spec=each, price=(price,), sent=sent)
    return found


def the_plan() -> Plan:
    plan = plan_of(asked())
    assert plan is not None
    assert [(each.from_site, each.to_site) for each in plan.transfers] == [("north", "south")]
    return plan


def test_a_plan_costs_what_its_sites_agree_on_and_who_only_sends_is_paid() -> None:
    plan = the_plan()
    parts = held(plan)
    told = {each.site: each.cost for each in plan.sites}
    assert told == pytest.approx({site: amount_of(each.agreed) for site, each in parts.items()})
    assert plan.cost == pytest.approx(sum(told.values()))
    (sent,) = plan.transfers
    hours = (sent.end - sent.begin) / HOUR
    assert told["north"] == pytest.approx(sent.mbit_s * hours * 0.003)
    assert sent.cost == pytest.approx(sent.mbit_s * hours * (0.003 + 0.0007))
    assert told["south"] > sent.mbit_s * hours * 0.0007


def test_a_budget_has_to_be_enough_for_what_is_sent() -> None:
    cost = the_plan().cost
    assert plan_of(asked(cost * 1.001)) is not None
    assert plan_of(asked(cost * 0.999)) is None


@pytest.mark.parametrize("site", ["north", "south"])
def test_records_add_up_to_the_price(site: str) -> None:
    whole = held(the_plan())[site]
    account: Account | None = None
    told = 0.0
    while period := next_period(whole, account):
        terms = price_during(whole, period, first=account is None)
        told += sum(each.amount for each in terms)
        final = is_final(whole, period)
        account = Account(name=whole.name, until=period.end, number=1)
        assert final or period.end < whole.window.end
    assert told == pytest.approx(amount_of(whole.agreed))


@pytest.mark.parametrize("sent", [0.0, 0.25, 1.0])
def test_what_was_not_sent_when_it_ended_is_given_back_with_the_rest(sent: float) -> None:
    """Also of a lease that ends before its window."""
    whole = held(the_plan())["north"]
    (window,) = (each.window for each in whole.sent)
    ended = whole.ending(now=window.start + sent * window.duration, reason="CANCELLED")
    items = with_end(ended, RefundPolicy(cancelled_share=1.0)).refunds
    gets = sum(each.amount for each in items)
    assert gets == pytest.approx((1 - sent) * amount_of(whole.sent))
