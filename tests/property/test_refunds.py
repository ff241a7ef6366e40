"""Whatever is measured, by whichever leader it is seen and however a lease ends: no more is given
back than was agreed on, nothing of it is taken away again, no moment of a promise counts twice."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intertie.broker.domain import refunds
from intertie.broker.domain.part import Part
from intertie.broker.domain.refund_policy import RefundPolicy
from intertie.broker.domain.refunds import with_breaches, with_end
from intertie.common.guarantees import GuaranteeKind, Measured
from tests.unit.broker.samples import NOW
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
