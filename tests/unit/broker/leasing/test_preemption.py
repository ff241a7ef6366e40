"""Who gives way, to reservations and to each other."""

from collections.abc import Sequence

import pytest

from intertie.common.errors import FieldInvalid
from intertie.common.leasing.lease import Lease, State
from intertie.common.leasing.order import FirstCome, MostHeldUp, ShortestFirst
from intertie.common.leasing.preemption import FarInOrder, LastInOrder, LeastDone
from intertie.common.leasing.requests import BestEffort
from tests.unit.broker.leasing.sites import Site


def lease(name: str, nodes: int, *, submit_s: int = 0, since_s: int | None = None) -> Lease:
    """Of 1,000 s; it runs since `since_s`."""
    made = Lease(request=BestEffort(name=name, nodes=nodes, duration_s=1000), submit_s=submit_s)
    if since_s is not None:
        made.move(State.RUNNING, since_s)
    return made


def names(leases: Sequence[Lease]) -> list[str]:
    return [one.request.name for one in leases]


def by_submit(one: Lease) -> float:
    return FirstCome().rank(one, 100)


def test_the_last_give_way_and_none_that_is_not_needed() -> None:
    """The last has one node, the one before it four: those are enough alone."""
    running = [
        lease("a", 4, submit_s=1, since_s=1),
        lease("b", 4, submit_s=2, since_s=2),
        lease("c", 1, submit_s=3, since_s=3),
    ]
    assert names(LastInOrder().for_reservation(running, 1, by_submit, 100)) == ["c"]
    assert names(LastInOrder().for_reservation(running, 4, by_submit, 100)) == ["b"]
    assert names(LastInOrder().for_reservation(running, 5, by_submit, 100)) == ["c", "b"]
    assert len(LastInOrder().for_reservation(running, 99, by_submit, 100)) == 3


def test_the_least_done_give_way() -> None:
    running = [lease("old", 2, submit_s=9, since_s=10), lease("new", 2, submit_s=1, since_s=90)]
    assert names(LeastDone().for_reservation(running, 2, by_submit, 100)) == ["new"]


def test_a_short_lease_has_a_long_one_suspended_and_is_not_suspended_by_it() -> None:
    """b has a fifth of what a has left at 100, and waits for 10 s of suspending."""
    site = Site(order=ShortestFirst(), preemption=FarInOrder(factor=4, least_run_s=60), review_s=30)
    site.submit(0, "a", 4, 600)
    site.submit(100, "b", 1, 100)
    assert site.to_the_end() == [
        "0 start a",
        "100 suspend a",
        "110 suspended a",
        "110 start b",
        "210 end b",
        "210 resume a",
        "220 resumed a",
        "720 end a",
    ]


@pytest.mark.parametrize(("factor", "least_run_s"), [(6.0, 60), (4.0, 101)])
def test_who_is_not_far_behind_or_has_just_started_is_left_alone(
    factor: float, least_run_s: int
) -> None:
    site = Site(
        order=ShortestFirst(), preemption=FarInOrder(factor=factor, least_run_s=least_run_s)
    )
    site.submit(0, "a", 4, 600)
    site.submit(100, "b", 1, 100)
    assert site.said == ["0 start a"]


def test_numbers_with_which_leases_would_suspend_each_other_for_ever_are_refused() -> None:
    with pytest.raises(FieldInvalid, match="factor"):
        FarInOrder(factor=0.5)
    with pytest.raises(FieldInvalid, match="least_run_s"):
        FarInOrder(least_run_s=0)


def test_who_has_waited_too_long_goes_before_the_shortest() -> None:
    order = ShortestFirst(patience_s=50)
    assert order.rank(lease("a", 1, submit_s=60), 100) == 1000
    assert order.rank(lease("b", 1, submit_s=50), 100) == 0


def test_who_is_held_up_goes_first_whatever_it_has_asked_for() -> None:
    order = MostHeldUp()
    waits = lease("waits", 1)
    assert order.rank(waits, 500) < order.rank(waits, 100) < order.rank(waits, 0)
    ran = lease("ran", 1, since_s=0)
    assert order.rank(ran, 500) > order.rank(ran, 100)
