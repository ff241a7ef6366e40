"""Whatever is measured, by whichever leader it is seen and however a lease ends: no more is given
back than was agreed on, nothing of it is taken away again, no moment of a promise counts twice."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intertie.broker.domain import refunds
from intertie.broker.domain.account import Account
from intertie.broker.domain.guarantees import MeasuredDirection, MeasuredPart, measured_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.price import amount_of, at_agreed_rates, stretch_of
from intertie.broker.domain.refund_policy import RefundPolicy
from intertie.broker.domain.refunds import with_breaches, with_end, within_price
from intertie.broker.domain.stretch import Stretch
from intertie.broker.domain.usage import (
    charged_until,
    next_period,
    price_during,
    refunded,
    refunds_since,
)
from intertie.common.guarantees import GuaranteeKind, Measured
from intertie.common.intervals import Window
from intertie.common.spec import BandwidthTerm
from intertie.common.tariff import Rates, part_hour, room_of
from intertie.common.values import replace
from tests.unit.broker.samples import NOW, part, part_spec, workspace
from tests.unit.broker.test_refunds import lease, price

seconds = st.integers(-300, 4000)
policies = st.builds(
    RefundPolicy,
    grace=st.integers(0, 300).map(lambda each: timedelta(seconds=each)),
    factor=st.floats(0, 50),
    lease_share=st.floats(0, 2),
    failed_share=st.floats(0, 1),
    cancelled_share=st.floats(0, 1),
)


@st.composite
def told(draw: st.DrawFn) -> Measured:
    kind, source, target, network = draw(
        st.sampled_from(
            [
                (GuaranteeKind.DISK_IOPS, "w-0", "", ""),
                (GuaranteeKind.NIC_BANDWIDTH, "w-0", "", "lan"),
                (GuaranteeKind.NIC_BANDWIDTH, "", "w-0", "lan"),
                (GuaranteeKind.PAIR_BANDWIDTH, "w-0", "x-0", "lan"),
                (GuaranteeKind.LINK_BANDWIDTH, "north", "south", "lan"),
            ]
        )
    )
    at = draw(seconds)
    return Measured(
        kind=kind,
        source=source,
        target=target,
        network=network,
        value=draw(st.floats(0, 300)),
        at=NOW + timedelta(seconds=at),
        backlogged=True,
        below_since=NOW + timedelta(seconds=draw(st.integers(-600, at))),
    )


ends = st.sampled_from(["CANCELLED", "WORKSPACE_FAILED"])


@given(st.lists(told(), max_size=25), policies, ends)
def test_a_refund_is_at_most_the_price_and_only_grows(
    readings: list[Measured], policy: RefundPolicy, reason: str
) -> None:
    check(readings, policy, reason)


@given(st.lists(told(), max_size=25), policies, ends)
def test_and_so_it_is_where_a_part_carries_no_more_items(
    readings: list[Measured], policy: RefundPolicy, reason: str
) -> None:
    with pytest.MonkeyPatch.context() as few:
        few.setattr(refunds, "MOST_OF_ONE", 2)
        few.setattr(refunds, "MOST_AGAIN", 5)
        found = check(readings, policy, reason)
    assert len(found.refunds) <= 5 + 4 + 1


def check(readings: list[Measured], policy: RefundPolicy, reason: str) -> Part:
    found = lease()
    readings = sorted(readings, key=lambda each: each.at)
    for each in readings:
        before, found = found, with_breaches(found, [each], policy)
        grown(before, found)
        assert with_breaches(found, [each], policy) is found, "told twice, written once"
    end = NOW + timedelta(seconds=1800)
    before, found = found, with_end(found.ending(now=end, reason=reason), policy)
    grown(before, found)
    assert len(found.refunds) == len(before.refunds) + 1
    apart(found)
    return found


def grown(before: Part, after: Part) -> None:
    assert sum(each.amount for each in after.refunds) <= price(after) + 1e-9
    for old, new in zip(before.refunds, after.refunds, strict=False):
        assert new.amount >= old.amount >= 0
        assert new.window.start == old.window.start
        assert new.window.end >= old.window.end
    assert len(after.refunds) >= len(before.refunds)


def apart(of: Part) -> None:
    items = [each for each in of.refunds if each.kind]
    for number, one in enumerate(items):
        for other in items[:number]:
            assert one.subject != other.subject or not one.window.overlaps(other.window)


rate = st.floats(0, 5)


@given(
    ends=st.sampled_from(["both here", "one here"]),
    mbit_s=st.integers(1, 100),
    nic=st.integers(1, 100),
    rates=st.builds(Rates, pair_mbit_s_hour=rate, nic_mbit_s_hour=rate, link_mbit_s_hour=rate),
    below=st.sets(st.sampled_from(["PAIR", "NIC", "LINK"]), min_size=1),
)
def test_a_promise_that_is_below_all_ways_all_the_time_gives_back_its_price(
    ends: str, mbit_s: int, nic: int, rates: Rates, below: set[str]
) -> None:
    """All directions that the site measures, of what it charges for, and no more than that. Of a
    link it sees what it sends, and the other half of the price is of what it takes."""
    here = ["w-0", "w-1"] if ends == "both here" else ["w-0"]
    other = "w-1" if ends == "both here" else "x-0"
    spec = part_spec(
        *(workspace(index=n, nic=BandwidthTerm(guarantee_mbit_s=nic)) for n in range(len(here))),
        pairs=(("w-0", other, mbit_s),),
        remote=() if ends == "both here" else ("x-0",),
        link_mbit_s=0 if ends == "both here" else mbit_s,
    )
    hour = part_hour(rates, spec)
    agreed = Stretch(window=spec.window, kind="immediate", rates=rates, hour=hour)
    links = 0 if ends == "both here" else mbit_s * rates.link_mbit_s_hour
    prices = {
        "PAIR": len(here) * mbit_s * rates.pair_mbit_s_hour,
        "NIC": len(here) * nic * rates.nic_mbit_s_hour,
        "LINK": links,
    }
    assert hour == pytest.approx(prices["PAIR"] + prices["NIC"] + 2 * links)
    macs = {each.label: each.nics[0].mac for each in spec.workspaces} | {"x-0": "02:00:00:00:ff:00"}
    pairs = [("w-0", other), (other, "w-0")]
    directions = {
        "PAIR": [("PAIR_BANDWIDTH", macs[a], macs[b]) for a, b in pairs],
        "NIC": [("NIC_BANDWIDTH", *way) for a in here for way in ((macs[a], ""), ("", macs[a]))],
        "LINK": [("LINK_BANDWIDTH", "", "south")],
    }
    told = MeasuredPart(
        at=spec.window.end,
        directions=tuple(
            MeasuredDirection(
                kind=GuaranteeKind[kind],
                network="lan",
                source=source,
                target=target,
                value=0,
                backlogged=True,
                below_since=spec.window.start,
            )
            for each in sorted(below)
            for kind, source, target in directions[each]
        ),
    )
    placed = tuple(Placed(workspace=each, host="n1") for each in here)
    found = part(spec=spec, price=(agreed,), placed=placed, gateway="n1")
    found = with_breaches(found, measured_of(found, {"n1": told}), RefundPolicy())
    back = sum(each.amount for each in found.refunds)
    assert back == pytest.approx(sum(prices[each] for each in below))
    assert back <= hour * (1 + 1e-9)


happens = st.one_of(
    st.tuples(st.just("below"), st.integers(1, 900)),
    st.tuples(st.just("end"), st.integers(0, 3600)),
    st.tuples(st.just("record"), st.just(0)),
)


@given(st.lists(st.tuples(st.integers(1, 600), happens), max_size=15), policies, ends)
def test_records_give_back_no_more_than_they_charge_however_the_price_changes(
    events: list[tuple[int, tuple[str, int]]], policy: RefundPolicy, reason: str
) -> None:
    """Each record is for ever, and the price becomes less with each end that comes earlier. All of
    them say what the part says in the end, also of what others had made room for."""
    found, now = lease(), NOW
    asked = replace(found.price[0].rates, give_way_vcpu_hour=3.0)
    agreed = stretch_of(found.window, "immediate", asked, found.spec, room_of(asked, 1, 0))
    found = replace(found, price=(agreed,))
    account: Account | None = None
    charged = back = rooms = 0.0

    def record() -> None:
        nonlocal account, charged, back, rooms
        while (period := next_period(found, account)) and period.end <= now:
            terms = price_during(found, period, first=account is None)
            charged += sum(each.amount for each in terms)
            rooms += sum(each.room.amount for each in terms if each.room is not None)
            back += sum(each.amount for each in refunds_since(found, account, period))
            assert back <= charged + 1e-9
            account = Account(
                name=found.name,
                until=period.end,
                number=1,
                refunded=refunded(found, account, period),
            )

    for seconds, (what, value) in events:
        now += timedelta(seconds=seconds)
        if now >= found.window.end:
            break
        if what == "below":
            since = now - timedelta(seconds=value)
            below = Measured(
                kind=GuaranteeKind.DISK_IOPS,
                source="w-0",
                value=0,
                at=now,
                backlogged=True,
                below_since=since,
            )
            found = with_breaches(found, [below], policy)
        elif what == "end":
            end = min(now + timedelta(seconds=value + 1), found.window.end)
            window = Window(NOW, end)
            spec = replace(found.spec, window=window)
            charges = charged_until(found, account, now=now)
            price_now = at_agreed_rates(found.price, found.spec, spec, now=now)
            found = replace(found, spec=spec, charged=charges, price=price_now)
        record()
        assert (
            sum(each.amount for each in within_price(found.refunds, found.price))
            <= amount_of(found.price) + 1e-9
        )
    now = min(now + timedelta(seconds=1), found.window.end)
    found = with_end(found.ending(now=now, reason=reason), policy)
    now = found.window.end
    record()
    assert charged == pytest.approx(amount_of(found.price))
    assert rooms == pytest.approx(3.0 * ((found.window.end - NOW) / timedelta(hours=1)))
    assert back == pytest.approx(
        sum(each.amount for each in within_price(found.refunds, found.price))
    )
