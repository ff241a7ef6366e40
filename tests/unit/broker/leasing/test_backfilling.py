"""Who may pass whom: on four nodes, a runs on three until 100, and b waits for all four."""

import pytest

from intertie.common.leasing.backfilling import Aggressive, Backfilling, Conservative
from tests.unit.broker.leasing.sites import Site

EASY, FREE_FOR_ALL = Aggressive(), Aggressive(protected=0)


def waiting_for_all(backfilling: Backfilling) -> Site:
    site = Site(backfilling=backfilling, suspension=None)
    site.submit(0, "a", 3, 100)
    site.submit(1, "b", 4, 100)
    return site


@pytest.mark.parametrize("backfilling", [EASY, Conservative()])
def test_who_is_done_before_the_first_can_start_passes_it(backfilling: Backfilling) -> None:
    site = waiting_for_all(backfilling)
    site.submit(2, "late", 1, 99)
    site.submit(2, "in time", 1, 98)
    assert site.to_the_end() == [
        "0 start a",
        "2 start in time",
        "100 end a",
        "100 end in time",
        "100 start b",
        "200 end b",
        "200 start late",
        "299 end late",
    ]


def test_aggressive_puts_off_the_second_and_conservative_does_not() -> None:
    """c waits for three nodes from 200; d would take one of four until 201, which leaves three:
    all may have it so, and e, which leaves two until 210, puts off c only."""

    def starts(backfilling: Backfilling) -> list[str]:
        site = Site(nodes=5, backfilling=backfilling, suspension=None)
        site.submit(0, "a", 3, 100)
        site.submit(1, "b", 4, 100)
        site.submit(2, "c", 4, 50)
        site.submit(3, "d", 1, 1000)
        site.submit(4, "e", 1, 90)
        return [said for said in site.to_the_end() if "start" in said]

    assert starts(EASY) == ["0 start a", "3 start d", "4 start e", "100 start b", "200 start c"]
    assert starts(Conservative()) == starts(EASY)


def test_conservative_protects_more_than_the_first() -> None:
    """On five nodes: a has three until 100; b wants three from then, c five from 200. d leaves b
    its three, so EASY lets it pass, but it would put off c by a hundred seconds."""

    def starts(backfilling: Backfilling) -> list[str]:
        site = Site(nodes=5, backfilling=backfilling, suspension=None)
        site.submit(0, "a", 3, 100)
        site.submit(1, "b", 3, 100)
        site.submit(2, "c", 5, 10)
        site.submit(3, "d", 2, 297)
        return [said for said in site.to_the_end() if "start" in said]

    assert starts(EASY) == ["0 start a", "3 start d", "100 start b", "300 start c"]
    assert starts(Conservative()) == ["0 start a", "100 start b", "200 start c", "210 start d"]
    assert starts(Aggressive(protected=2)) == starts(Conservative())


def test_with_none_protected_all_may_pass() -> None:
    site = waiting_for_all(FREE_FOR_ALL)
    site.submit(2, "late", 1, 500)
    assert site.said == ["0 start a", "2 start late"]


def test_conservative_puts_off_nobody_although_a_reservation_may_stop_who_passes() -> None:
    """With suspend, a start needs less than two minutes of free nodes. But b has a start at 400,
    and c, which could start at 1, would be in its way."""
    site = Site(backfilling=Conservative())
    site.submit(0, "a", 3, 400)
    site.submit(1, "b", 4, 100)
    site.submit(1, "c", 1, 1000)
    starts = [said for said in site.to_the_end() if "start" in said]
    assert starts == ["0 start a", "400 start b", "500 start c"]
