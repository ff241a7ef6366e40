"""What is given back, for how long, and that it is on record once."""

from datetime import datetime, timedelta

import pytest

from intertie.broker.convert import cluster_to_proto, part_to_proto
from intertie.broker.domain.account import Account
from intertie.broker.domain.archiving import RESTS, moves
from intertie.broker.domain.cluster import PartView
from intertie.broker.domain.cluster import view_of as cluster_view
from intertie.broker.domain.fleet import Fleet
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.price import at_agreed_rates
from intertie.broker.domain.refund_policy import RefundPolicy
from intertie.broker.domain.refunds import (
    MOST,
    MOST_AGAIN,
    MOST_OF_ONE,
    owed_at_end,
    with_breaches,
    with_end,
    within_price,
)
from intertie.broker.domain.stretch import Stretch
from intertie.broker.domain.usage import (
    due_of,
    next_period,
    price_during,
    refunded,
    refunds_since,
    settled,
)
from intertie.common.etcd.records import encode
from intertie.common.guarantees import GuaranteeKind, Measured
from intertie.common.intervals import Window
from intertie.common.spec import BandwidthTerm, DiskTerm
from intertie.common.tariff import Rates, part_hour
from intertie.common.values import replace
from tests.unit.broker import samples
from tests.unit.broker.samples import HOUR, NOW, facts, part, part_spec, workspace
from tests.unit.broker.standing import admitted, group, spec, view_of

FLEET = Fleet.of([facts("n1"), facts("n2")], samples.POLICY)
MINUTE = timedelta(minutes=1)
RATES = Rates(
    vcpu_hour=10, iops_hour=0.01, nic_mbit_s_hour=0.2, pair_mbit_s_hour=0.4, link_mbit_s_hour=0.1
)
POLICY = RefundPolicy()
WORST = RefundPolicy(factor=1000)


def lease() -> Part:
    one = workspace(
        disk=DiskTerm(guarantee_iops=300, cap_iops=400, cap_mib_s=10),
        nic=BandwidthTerm(guarantee_mbit_s=50),
    )
    spec = part_spec(one, pairs=(("w-0", "x-0", 20),), remote=("x-0",), link_mbit_s=20)
    agreed = Stretch(window=spec.window, kind="immediate", rates=RATES, hour=part_hour(RATES, spec))
    return part(spec=spec, price=(agreed,))


def price(of: Part) -> float:
    return sum(each.hour for each in of.price)


def iops(since: datetime | None, at: datetime, value: float = 100, **more: object) -> Measured:
    """Of the disk, of which 300 are promised."""
    said: dict[str, object] = {
        "kind": GuaranteeKind.DISK_IOPS,
        "source": "w-0",
        "value": value,
        "at": at,
        "backlogged": True,
        "below_since": since,
    }
    return Measured(**{**said, **more})  # type: ignore[arg-type]


def back(of: Part) -> list[float]:
    return [round(each.amount, 6) for each in of.refunds]


def test_below_for_longer_than_the_grace_gives_back_its_price_over_that_time() -> None:
    since = NOW + 10 * MINUTE
    early = iops(since, since + timedelta(seconds=59))
    assert with_breaches(lease(), [early], POLICY) == lease()
    found = with_breaches(lease(), [iops(since, since + 6 * MINUTE)], POLICY)
    [item] = found.refunds
    assert item.window == Window(since, since + 6 * MINUTE), "the grace itself too"
    assert (item.promised, item.measured, item.reason) == (300, 100, "GUARANTEE")
    assert item.amount == pytest.approx(300 * 0.01 / 10)


@pytest.mark.parametrize(
    ("kind", "more", "hour"),
    [
        ("NIC_BANDWIDTH", {"source": "", "target": "w-0", "network": "lan"}, 50 * 0.2 / 2),
        ("PAIR_BANDWIDTH", {"target": "x-0", "network": "lan"}, 20 * 0.4),
        (
            "LINK_BANDWIDTH",
            {"source": "north", "target": "south", "network": "lan"},
            20 * 0.1,
        ),
    ],
)
def test_each_direction_has_its_share(kind: str, more: dict[str, str], hour: float) -> None:
    """A bug: of a pair half of its price was given back where both directions were below."""
    below = iops(NOW, NOW + HOUR / 2, kind=GuaranteeKind[kind], **more)  # type: ignore[arg-type]
    [item] = with_breaches(lease(), [below], POLICY).refunds
    assert item.amount == pytest.approx(hour / 2)
    half = replace(POLICY, factor=0.5, lease_share=0.1)
    [item] = with_breaches(lease(), [below], half).refunds
    assert item.amount == pytest.approx((hour / 2 + price(lease()) / 10) / 2)


@pytest.mark.parametrize(
    "told",
    [
        iops(None, NOW + HOUR / 2),
        iops(NOW, NOW + HOUR / 2, backlogged=False),
        iops(NOW, NOW + HOUR / 2, kind=GuaranteeKind.DISK_THROUGHPUT),
        iops(NOW, NOW + HOUR / 2, source="w-9"),
        iops(NOW - HOUR, NOW),
    ],
    ids=["kept", "not asked for", "not promised", "not there", "before its window"],
)
def test_nothing_is_given_back_for(told: Measured) -> None:
    assert with_breaches(lease(), [told], POLICY).refunds == ()


def test_it_grows_while_it_goes_on_whoever_leads() -> None:
    """Nothing but the record is known to who goes on."""
    found = lease()
    for seconds in (60, 70, 80, 90, 120, 150, 150):
        told = iops(NOW, NOW + timedelta(seconds=seconds), value=seconds)
        found = with_breaches(found, [told], POLICY)
    [item] = found.refunds
    assert item.window == Window(NOW, NOW + timedelta(seconds=150))
    assert item.amount == pytest.approx(300 * 0.01 * 150 / 3600)
    assert item.measured == pytest.approx((60 * 60 + 30 * 90 + 30 * 120 + 30 * 150) / 150)
    again = with_breaches(found, [iops(NOW + 10 * MINUTE, NOW + 12 * MINUTE)], POLICY)
    assert len(again.refunds) == 2, "another time, another item"
    earlier = iops(NOW - MINUTE, NOW + timedelta(seconds=190))
    [same] = with_breaches(found, [earlier], POLICY).refunds
    assert same.window == Window(NOW, NOW + timedelta(seconds=190)), "no moment twice"


def test_promises_that_are_broken_again_and_again_leave_a_part_that_can_be_written() -> None:
    """A bug: each break had an item for ever, and what had too many could not be written, nor
    ended, any more."""
    found = lease()
    step = timedelta(seconds=80)
    for number in range(40):
        since = NOW + number * step
        before = found
        found = with_breaches(found, [iops(since, since + MINUTE, value=number)], POLICY)
        assert sum(back(found)) > sum(back(before)), "each counts"
    assert len(found.refunds) == MOST_OF_ONE
    assert sum(back(found)) == pytest.approx(300 * 0.01 * 40 / 60)
    newest = found.refunds[-1]
    assert newest.window == Window(NOW + 31 * step, NOW + 39 * step + MINUTE)
    more = with_breaches(found, [iops(NOW + 39 * step, NOW + 41 * step)], POLICY)
    assert sum(back(more)) == pytest.approx(300 * 0.01 * (39 + 160 / 60) / 60), "it goes on"


def test_however_many_promises_are_broken_the_part_can_be_written() -> None:
    """A bug: as above, with a few breaks each of very many directions."""
    spec = part_spec(
        *(workspace(index=n, disk=DiskTerm(guarantee_iops=9, cap_iops=9)) for n in range(1200))
    )
    agreed = Stretch(window=spec.window, kind="immediate", rates=RATES, hour=1e6)
    found = part(spec=spec, price=(agreed,))
    bare = len(encode(found))
    for since in (NOW, NOW + 10 * MINUTE):
        told = [iops(since, since + 2 * MINUTE, source=f"w-{n}") for n in range(400)]
        found = with_breaches(found, told, POLICY)
    assert len(found.refunds) == MOST_AGAIN
    again = [iops(NOW + HOUR / 2, NOW + HOUR, source=f"w-{n}") for n in range(1200)]
    found = with_breaches(found, again, POLICY)
    assert len(found.refunds) == MOST
    assert {each.source for each in found.refunds} == {f"w-{n}" for n in range(900)}
    ended = with_end(found.ending(now=NOW + HOUR / 2, reason="CANCELLED"), POLICY)
    assert len(ended.refunds) == MOST + 1
    assert len(encode(ended)) - bare < 350_000


def test_what_was_amended_gives_back_by_the_rates_of_its_time() -> None:
    agreed = lease().price[0]
    half = NOW + HOUR / 2
    dearer = replace(agreed, window=Window(half, NOW + HOUR), rates=RATES.times(2))
    found = replace(lease(), price=(replace(agreed, window=Window(NOW, half)), dearer))
    [item] = with_breaches(found, [iops(NOW, NOW + HOUR)], POLICY).refunds
    assert item.amount == pytest.approx(300 * 0.01 * 1.5)


def test_never_more_than_the_price() -> None:
    found = with_breaches(lease(), [iops(NOW, NOW + 2 * MINUTE)], WORST)
    found = with_breaches(found, [iops(NOW, NOW + 40 * MINUTE)], WORST)
    ended = with_end(found.ending(now=NOW + 40 * MINUTE, reason="WORKSPACE_FAILED"), WORST)
    assert sum(back(ended)) == pytest.approx(price(lease()))
    assert len(ended.refunds) == 2


def test_what_is_left_is_given_back_once_when_it_fails() -> None:
    ending = lease().ending(now=NOW + 15 * MINUTE, reason="WORKSPACE_FAILED")
    failed = with_end(ending, POLICY)
    [item] = failed.refunds
    assert (item.reason, item.window) == (
        "WORKSPACE_FAILED",
        Window(NOW + 15 * MINUTE, NOW + HOUR),
    )
    assert item.amount == pytest.approx(price(lease()) * 0.75)
    assert with_end(failed, POLICY) is failed
    assert with_end(failed.move(PartState.ENDED, now=NOW + HOUR / 2), POLICY).refunds == (item,)
    none = with_end(ending, replace(POLICY, failed_share=0.0))
    assert back(none) == [0.0], "said, so that nobody waits for it"
    assert owed_at_end(none) is None


def test_who_cancels_has_its_own_share_and_who_comes_to_the_end_gets_nothing() -> None:
    cancelled = lease().ending(now=NOW + HOUR / 2, reason="CANCELLED")
    found = with_end(cancelled, RefundPolicy(cancelled_share=0.5))
    assert back(found) == [pytest.approx(price(lease()) / 4)]
    over = lease().ending(now=NOW + HOUR, reason="WINDOW_OVER")
    assert with_end(over, POLICY) is over
    held = replace(lease(), state=PartState.HELD)
    assert with_end(held.move(PartState.RELEASED, now=NOW + MINUTE), POLICY).refunds == ()
    gratis = tuple(replace(each, hour=0.0) for each in cancelled.price)
    for free in (replace(cancelled, price=()), replace(cancelled, price=gratis)):
        assert with_end(free, POLICY) is free


def test_a_record_has_what_none_before_it_has() -> None:
    found = with_breaches(lease(), [iops(NOW, NOW + 10 * MINUTE)], POLICY)
    first, second = Window(NOW, NOW + 10 * MINUTE), Window(NOW + 10 * MINUTE, NOW + HOUR)
    account = Account(
        name=found.name, until=first.end, number=1, refunded=refunded(found, None, first)
    )
    assert refunds_since(found, None, first) == found.refunds
    assert refunds_since(found, account, second) == ()
    more = with_breaches(found, [iops(NOW, NOW + 25 * MINUTE)], POLICY)
    [rest] = refunds_since(more, account, second)
    assert rest.window == Window(NOW + 10 * MINUTE, NOW + 25 * MINUTE)
    assert rest.amount + found.refunds[0].amount == pytest.approx(more.refunds[0].amount)


def test_a_price_that_became_less_is_the_most_that_is_said_to_be_given_back() -> None:
    """A bug: what had been given back of the price of an hour stood when an earlier end cut that to
    a quarter of it."""
    found = with_breaches(lease(), [iops(NOW, NOW + 10 * MINUTE)], WORST)
    found = with_breaches(found, [iops(NOW + 12 * MINUTE, NOW + 14 * MINUTE)], WORST)
    assert within_price(found.refunds, found.price) == found.refunds
    quarter = Window(NOW, NOW + HOUR / 4)
    short = replace(found.spec, window=quarter)
    cut = replace(
        found, spec=short, price=at_agreed_rates(found.price, found.spec, short, now=NOW + HOUR / 4)
    )
    told = within_price(cut.refunds, cut.price)
    assert [each.amount for each in told] == [pytest.approx(price(lease()) / 4), 0]
    assert refunds_since(cut, None, quarter) == told
    said = part_to_proto(PartView(part=cut, workspaces=()))
    assert said.refund.amount == pytest.approx(said.price.amount)
    record, _ = admitted("one", spec(group("w")), view_of(FLEET, ()), now=NOW)
    shown = cluster_to_proto(cluster_view(record, cut, {}, {}, site="north"))
    assert shown.refund.amount == pytest.approx(shown.price.amount)
    longer = replace(cut, price=found.price)
    assert within_price(longer.refunds, longer.price) == found.refunds, (
        "nothing of it was taken away"
    )


def test_a_record_gives_back_no_more_than_records_charge_and_the_rest_is_in_a_later_one() -> None:
    """A bug: a record that is never changed had given back what a later end took off the price."""
    found = with_breaches(lease(), [iops(NOW, NOW + 10 * MINUTE)], WORST)
    first, second = Window(NOW, NOW + HOUR / 6), Window(NOW + HOUR / 6, NOW + HOUR)
    [item] = refunds_since(found, None, first)
    assert item.amount == pytest.approx(price(lease()) / 6)
    account = Account(
        name=found.name, until=first.end, number=1, refunded=refunded(found, None, first)
    )
    [rest] = refunds_since(found, account, second)
    assert rest.window == item.window == found.refunds[0].window
    assert item.amount + rest.amount == pytest.approx(price(lease()))
    over = replace(account, refunded=refunded(found, account, second))
    assert refunds_since(found, over, second) == ()


def test_records_of_a_part_add_up_to_its_price() -> None:
    made = replace(lease(), confirm_time=NOW + MINUTE)
    ended = made.ending(now=NOW + HOUR / 2, reason="CANCELLED")
    half = Window(NOW + MINUTE, NOW + HOUR / 4)
    rest = Window(NOW + HOUR / 4, NOW + HOUR / 2)
    terms = (*price_during(ended, half, first=True), *price_during(ended, rest, first=False))
    assert sum(each.amount for each in terms) == pytest.approx(price(made))
    assert terms[-1].window == Window(NOW + HOUR / 4, NOW + HOUR)


def test_the_last_record_waits_for_what_is_given_back() -> None:
    """A bug: for 2 minutes, and no record after it has what was still owed then."""
    ended = lease().ending(now=NOW + HOUR / 2, reason="CANCELLED")
    ended = ended.move(PartState.ENDED, now=NOW + HOUR / 2)
    assert due_of(ended, None, {}) is None
    assert due_of(with_end(ended, POLICY), None, {}) == NOW + HOUR / 2
    assert not settled(ended, None), "and it is not forgotten meanwhile"
    midnight = Account(name=ended.name, until=NOW + HOUR / 2, number=1)
    assert settled(with_end(ended, POLICY), midnight)


def test_one_that_ended_before_its_window_is_not_put_aside_before_its_refund_is_written() -> None:
    """A bug: no period of it is to be written down, so it was taken for done with."""
    ended = lease().ending(now=NOW - MINUTE, reason="CANCELLED")
    ended = ended.move(PartState.ENDED, now=NOW - MINUTE)
    assert next_period(ended, None) is None
    view = LedgerView(parts={ended.name: Versioned(value=ended, revision=1)})
    later = NOW - MINUTE + RESTS
    assert not settled(ended, None)
    assert list(moves(view, now=later)) == []
    given = with_end(ended, POLICY)
    assert given.refunds
    view = LedgerView(parts={ended.name: Versioned(value=given, revision=2)})
    assert [each.part.value for each in moves(view, now=later) if each.part] == [given]
