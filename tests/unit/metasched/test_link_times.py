"""Ways over links before a start, and when something can be over them."""

from intertie.metasched.domain.link_times import NEVER, LinkTimes, soonest
from tests.unit.metasched.staging import Links, staged

MINUTE = 60_000_000
BITS = 8_388_608


def times(*spans: Links, forwards: tuple[str, ...] = ("m",)) -> LinkTimes:
    """Of sites a, b, m and n, by number 0 to 3, over spans of five minutes."""
    given = staged(dict.fromkeys("abmn", 0), list(spans), [], forwards=forwards, starts=(1,))
    return LinkTimes(given)


def test_the_widest_way_goes_over_sites_that_forward_only() -> None:
    """Over n it would be wider."""
    links = {("a", "b"): 5, ("a", "m"): 10, ("m", "b"): 10, ("a", "n"): 20, ("n", "b"): 20}
    given = times(links)
    found = given.widest(given.least(0, 1), [0], 1)
    assert found is not None
    assert (found[0], found[1][0]) == (10, (0, 2, 1))
    alone = times(links, forwards=())
    assert alone.widest(alone.least(0, 1), [0], 1) == (5, ((0, 1), (alone.out[0][0][1],)))


def test_the_cheapest_way_goes_over_sites_that_forward_only_and_is_wide_enough() -> None:
    links = {("a", "b"): 5, ("a", "m"): 10, ("m", "b"): 10, ("a", "n"): 20, ("n", "b"): 20}
    given = times(links)
    free = given.least(0, 1)
    ways = [given.cheapest(free, [0], 1, least=least) for least in (5, 6, 11)]
    assert [way and way[0] for way in ways] == [(0, 1), (0, 2, 1), None]
    assert given.cheapest(free, [0, 3], 1, least=11) is not None


def test_ways_to_all_sites_go_over_usable_links() -> None:
    links = {("a", "b"): 5, ("a", "m"): 10, ("m", "b"): 10, ("b", "n"): 5}
    given = times(links)
    usable = [free >= 10 for free in given.free[0]]
    found = given.ways([0], usable)
    assert [way and way[1][0] for way in found] == [(0,), (0, 2, 1), (0, 2), None]


def test_what_is_free_over_several_spans_is_the_least_of_them() -> None:
    given = times({("a", "b"): 30}, {("a", "b"): 10}, {("a", "b"): 20})
    link = given.out[0][0][1]
    moments = [(0, 5), (0, 6), (5, 10), (10, 15), (9, 11)]
    found = [given.least(b * MINUTE, e * MINUTE)[link] for b, e in moments]
    assert found == [30, 10, 10, 20, 10]


def test_what_is_taken_at_one_time_is_added_and_what_is_not_is_not() -> None:
    given = times({("a", "b"): 30})
    link = given.out[0][0][1]
    taken = {link: [(0, 10, 7), (10, 20, 9), (15, 30, 5)]}
    moments = [(0, 10), (0, 20), (0, 11), (12, 15), (30, 40), (29, 31)]
    assert [given.less(*each, taken)[link] for each in moments] == [23, 16, 21, 21, 30, 25]


def test_the_soonest_over_one_link_waits_where_that_is_quicker() -> None:
    given = times({("a", "b"): 1}, {("a", "b"): 100}, {("a", "b"): 100})
    link = given.out[0][0][1]
    assert given.alone_us(link, 1) == BITS
    assert given.alone_us(link, 100) == 5 * MINUTE + BITS
    assert given.alone_us(link, 7_153) == NEVER


def test_what_comes_over_all_links_comes_together() -> None:
    given = times({("a", "b"): 10, ("m", "b"): 20}, {("a", "b"): 100})
    assert given.enters_us(1, 30) == BITS
    assert given.enters_us(1, 1_200) == 5 * MINUTE + -(-(1_200 * BITS - 300 * 30_000_000) // 100)
    assert given.enters_us(1, 100_000) == NEVER


def test_it_is_not_sent_before_what_could_be_done_sooner_begins_later() -> None:
    """1 Mbit/s from 0 on, 100 from 5 s on: it begins when that is sooner."""
    path = ((0, 1), (0,))

    def free(begin_us: int, end_us: int) -> tuple[int, tuple[tuple[int, ...], tuple[int, ...]]]:
        return (1 if begin_us < 5_000_000 else 100), path

    assert soonest(1, [0, 5_000_000], [5_000_000, MINUTE], free) == (
        5_000_000,
        5_000_000 + BITS // 100 + 1,
        100,
        path,
    )
    assert soonest(1, [0], [5_000_000, MINUTE], free) == (0, BITS, 1, path)
    assert soonest(1, [0], [5_000_000], free) is None
