"""Pure: how much may be sent by when."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intertie.common.transfer import TransferGrant
from intertie.common.values import replace
from intertie.imagestore.domain.pacing import BURST_S, MESSAGE_BYTES, Pace, Paces, message_bytes
from tests.unit.common_rpc.authority import NOW

GRANT = TransferGrant(
    digest=f"b3:{'a' * 64}",
    source_site="north",
    target_site="south",
    mbit_s=8,
    begin_time=NOW,
    end_time=NOW + timedelta(hours=1),
    sign_time=NOW,
    tenant="demo",
    tx="t1",
)


@pytest.mark.parametrize(("mbit_s", "size"), [(1, 6_250), (20, 125_000), (10_000, MESSAGE_BYTES)])
def test_messages_are_short_where_the_rate_is_low(mbit_s: int, size: int) -> None:
    assert message_bytes(mbit_s) == size


@given(
    mbit_s=st.integers(1, 2_000),
    asked=st.lists(
        st.tuples(
            st.sampled_from((0.0, 0.0, 0.0, 0.03, 0.7)) | st.floats(0, 1),
            st.sampled_from((1.0, 1.0, 0.5)) | st.floats(0.01, 1),
            st.sampled_from((0.0, 0.0, 0.3)),
        ),
        min_size=1,
        max_size=60,
    ),
)
def test_within_any_time_no_more_than_the_rate_and_a_burst(
    mbit_s: int, asked: list[tuple[float, float, float]]
) -> None:
    """Whoever asks when, for how much, and is woken up how late."""
    pace, most = Pace(mbit_s), message_bytes(mbit_s)
    now_s, sent = 1000.0, []
    for idle_s, share, late_s in asked:
        now_s += idle_s
        size = max(1, int(share * most))
        while wait_s := pace.wait_s(size, now_s):
            now_s += wait_s + late_s
        sent.append((now_s, size))
    for first in range(len(sent)):
        total = 0
        for at_s, size in sent[first:]:
            total += size
            within_s = at_s - sent[first][0] + BURST_S + 2e-6
            assert total <= mbit_s * 125_000 * within_s + 1


def test_who_was_away_does_not_make_up_for_it() -> None:
    pace = Pace(8)
    for now_s in (1.0, 9.0):
        waits_s = [pace.wait_s(50_000, now_s) for _ in range(3)]
        assert waits_s == pytest.approx([0, 0, 0.05])


def test_who_is_woken_up_late_sends_no_more_at_once() -> None:
    pace = Pace(8)
    while not (wait_s := pace.wait_s(50_000, 1.0)):
        pass
    late_s = 1.0 + wait_s + 0.3
    assert [pace.wait_s(50_000, late_s) for _ in range(3)] == pytest.approx([0, 0, 0.05])


def test_a_message_longer_than_a_burst_goes_when_nothing_else_does() -> None:
    pace = Pace(1)
    assert [pace.wait_s(125_000, 1.0) for _ in range(2)] == pytest.approx([0, 1])
    assert pace.wait_s(125_000, 2.0) == 0


def test_two_streams_of_one_reservation_have_one_rate() -> None:
    paces = Paces()
    again = replace(GRANT, sign_time=NOW + timedelta(seconds=5))
    assert paces.of(GRANT, now=NOW) is paces.of(again, now=NOW)
    others: tuple[dict[str, Any], ...] = (
        {"tx": "t2"},
        {"tenant": "x"},
        {"target_site": "west"},
        {"digest": "b3:"},
    )
    for other in others:
        assert paces.of(replace(GRANT, **other), now=NOW) is not paces.of(GRANT, now=NOW)


def test_the_grant_that_was_signed_last_says_the_rate() -> None:
    paces = Paces()
    pace = paces.of(GRANT, now=NOW)
    paces.of(replace(GRANT, mbit_s=4, sign_time=NOW + timedelta(seconds=5)), now=NOW)
    assert paces.of(GRANT, now=NOW).mbit_s == 4
    assert pace.mbit_s == 4


def test_what_has_run_out_is_forgotten() -> None:
    paces = Paces()
    pace = paces.of(GRANT, now=NOW)
    assert paces.of(GRANT, now=NOW + timedelta(hours=1)) is not pace
