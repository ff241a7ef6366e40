"""What may happen to a part, and what never does."""

from datetime import timedelta
from itertools import product

import pytest

from intertie.broker.domain.part import NEXT, PartState
from intertie.common.errors import IllegalMove
from tests.unit.broker.samples import NOW, part


@pytest.mark.parametrize(("start", "to"), list(product(PartState, PartState)))
def test_a_part_moves_along_the_table_and_no_other_way(start: PartState, to: PartState) -> None:
    one = part("t1", start)
    if to in NEXT[start]:
        assert one.move(to, now=NOW).state is to
    else:
        with pytest.raises(IllegalMove):
            one.move(to, now=NOW)


def test_a_hold_ends_at_its_moment_and_not_before() -> None:
    held = part("t1", PartState.HELD, expire_time=NOW + timedelta(seconds=30))
    assert not held.expired(now=NOW + timedelta(seconds=29, microseconds=999_999))
    assert held.expired(now=NOW + timedelta(seconds=30))


def test_a_prepared_part_never_expires_but_comes_into_doubt() -> None:
    prepared = part("t1", PartState.HELD).move(PartState.PREPARED, now=NOW)
    late = NOW + timedelta(days=400)
    assert not prepared.expired(now=late)
    assert prepared.in_doubt(now=late)
    assert not prepared.in_doubt(now=NOW)


def test_the_first_reason_to_end_stands() -> None:
    ending = part().ending(now=NOW, reason="CANCELLED")
    again = ending.ending(now=NOW + timedelta(seconds=1), reason="WINDOW_OVER")
    assert (again.end_reason, again.end_requested_time) == ("CANCELLED", NOW)
    over = again.move(PartState.ENDED, now=NOW)
    assert over.end_reason == "CANCELLED"
    with pytest.raises(IllegalMove):
        part("t1", PartState.PREPARED).ending(now=NOW, reason="x")
