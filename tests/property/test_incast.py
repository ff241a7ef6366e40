"""The receiver's share against senders that ask for anything: a fluid model of one downlink.

Senders take what they are given or what they want, whichever is less, one step late in part; the
downlink lets through what it has. The receiver sees what came, and never what was lost.
"""

from __future__ import annotations

from math import ceil, log2

from hypothesis import given
from hypothesis import strategies as st

from intertie.nodeagent.domain.incast import FULL_SHARE, LEAST_SHARE, Crowd, Downlink, judge

CAPACITY = 1_000_000
UNLIMITED = 10 * CAPACITY

demands = st.lists(st.integers(min_value=0, max_value=CAPACITY), min_size=1, max_size=40)
promises = st.integers(min_value=1, max_value=int(0.6 * CAPACITY))
late = st.floats(min_value=0, max_value=1)
"""Of an interval: so much of it was still sent by the share before."""
shares = st.floats(min_value=log2(LEAST_SHARE), max_value=-0.001).map(lambda e: CAPACITY * 2**e)
"""Small ones as often as large ones."""
crowds = st.builds(Crowd, share_kbit=st.none() | shares, settling=st.booleans())
arrivals = st.floats(min_value=0, max_value=CAPACITY) | st.just(float(CAPACITY))


class Link:
    """`offered` is what is sent towards it, of which it carries its capacity at most."""

    def __init__(self, promised: int, late: float, crowd: Crowd) -> None:
        self.promised = promised
        self._downlink = Downlink(capacity_kbit=CAPACITY, promised_kbit=promised)
        self.late = late
        self.crowd = crowd
        self._before = crowd
        self.offered = 0.0

    def step(self, wanted: list[int]) -> None:
        """One interval."""
        old, new = (
            self.promised + sum(min(each, crowd.share_kbit or UNLIMITED) for each in wanted)
            for crowd in (self._before, self.crowd)
        )
        self.offered = new
        arrived = min(self.late * old + (1 - self.late) * new, CAPACITY)
        self._before = self.crowd
        self.crowd = judge(self.crowd, arrived, self._downlink)


@given(demands, promises, late)
def test_soon_no_more_is_sent_than_arrives_and_the_downlink_is_still_used(
    wanted: list[int], promised: int, late: float
) -> None:
    link = Link(promised, late, Crowd())
    most = min(promised + sum(wanted), FULL_SHARE * CAPACITY)
    for _ in range(6 + 2 * ceil(log2(len(wanted)))):
        link.step(wanted)
    assert link.offered <= CAPACITY, "what was promised arrives"
    for _ in range(30):
        link.step(wanted)
    offered = []
    for _ in range(10):
        link.step(wanted)
        offered.append(link.offered)
    assert max(offered) <= CAPACITY, "what was promised arrives"
    assert min(offered) >= 0.85 * most, "and the others have nearly all that is left"


@given(crowds, promises, late)
def test_once_nobody_floods_any_more_nobody_is_held_back(
    crowd: Crowd, promised: int, late: float
) -> None:
    link = Link(promised, late, crowd)
    link.promised = 0  # of what is promised nothing is sent either
    doublings = ceil(log2(CAPACITY / (crowd.share_kbit or CAPACITY)))
    for _ in range(3 + 2 * doublings):
        link.step([])
    assert link.crowd.share_kbit is None


@given(crowds, arrivals, promises)
def test_nobody_is_ever_stopped(crowd: Crowd, arrived: float, promised: int) -> None:
    downlink = Downlink(capacity_kbit=CAPACITY, promised_kbit=promised)
    share = judge(crowd, arrived, downlink).share_kbit
    assert share is None or 0.999 * CAPACITY * LEAST_SHARE <= share < CAPACITY


@given(crowds, arrivals)
def test_where_nothing_is_promised_nobody_is_held_back(crowd: Crowd, arrived: float) -> None:
    downlink = Downlink(capacity_kbit=CAPACITY, promised_kbit=0)
    assert judge(crowd, arrived, downlink).share_kbit is None


@given(shares, promises)
def test_more_arriving_never_raises_the_share(share: float, promised: int) -> None:
    downlink = Downlink(capacity_kbit=CAPACITY, promised_kbit=promised)
    crowd = Crowd(share_kbit=share)
    found = [
        judge(crowd, arrived * CAPACITY / 20, downlink).share_kbit or CAPACITY
        for arrived in range(21)
    ]
    assert found == sorted(found, reverse=True)
