"""Who starts in one round beside those that start one after another, by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from intertie.common.leasing.backfilling import Aggressive
from intertie.common.leasing.lease import Lease
from intertie.common.leasing.requests import BestEffort
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.problem import Offer, Problem
from intertie.metasched.domain.rooms import Rooms
from intertie.metasched.domain.rounds import MOST_SOLVED, Start, round_of
from intertie.metasched.domain.taken import Taken, less
from tests.unit.metasched.problems import group, link, linked, offer, problem, promise, window

Sites = Mapping[str, Offer | Sequence[Offer]]


def solve(asked: Problem) -> Plan | None:
    return best_plan(asked, effort=0.2)


def asks(sites: Sites, count: int, *at: str, **more: Any) -> Problem:
    """So many workspaces of one vCPU, at those sites."""
    return problem([group(fewest=count, allow_sites=at, **more)], sites)


def looked(asked: Mapping[str, Problem]) -> tuple[list[str], list[Start], Rooms]:
    """Who would start one after another, and who does."""
    line = [
        Lease(request=BestEffort(name=name, nodes=1, duration_s=3600), submit_s=number)
        for number, name in enumerate(asked)
    ]
    slots = len(next(iter(asked.values())).windows)
    rooms = Rooms(asked, [window(slot).start for slot in range(slots)], solve)
    begun = Aggressive().starts(
        line, rooms, rooms.untaken(), lambda _: 3600, lambda _: 3600, rooms.now_s
    )
    names = [each.request.name for each in begun]
    return names, round_of(line, begun, rooms), rooms


def names(starts: Sequence[Start]) -> list[str]:
    return [each.lease.request.name for each in starts]


def where(start: Start, rooms: Rooms) -> set[str]:
    taken = rooms.taken_now(start.lease)
    assert taken is not None
    return set(taken.plan.site_names)


TWO = {"a": offer(4), "b": offer(4)}
"""Of sites that are alike the planner takes the last."""


def test_one_that_is_as_well_off_elsewhere_leaves_its_site_to_one_that_is_not() -> None:
    asked = {"any": asks(TWO, 2), "only-b": asks(TWO, 4, "b")}
    one_by_one, starts, rooms = looked(asked)
    assert one_by_one == ["any"]
    assert names(starts) == ["any", "only-b"]
    assert [where(each, rooms) for each in starts] == [{"a"}, {"b"}]


def test_whoever_begins_first_leaves_what_the_others_are_to_get() -> None:
    asked = {"any": asks(TWO, 2), "only-b": asks(TWO, 4, "b")}
    _, (first, last), _ = looked(asked)
    assert [each.lease for each in first.leaves] == ["only-b"]
    assert last.leaves == ()
    plan = solve(less(asked["any"], first.leaves))
    assert plan is not None
    assert plan.site_names == ("a",)


def test_where_all_start_one_after_another_each_has_its_best_plan() -> None:
    _, starts, rooms = looked({"one": asks(TWO, 4), "two": asks(TWO, 4)})
    assert names(starts) == ["one", "two"]
    assert [each.leaves for each in starts] == [(), ()]
    assert rooms.solved == 2


@pytest.mark.parametrize(
    ("sites", "counts"),
    [
        ({"a": offer(4, price=1.01), "b": offer(4, price=1)}, (2, 2)),
        ({"a": offer(2), "b": offer(4)}, (2, 4)),
        (linked({"a": offer(1), "b": offer(4), "c": offer(1)}, link()), (2, 2)),
    ],
    ids=["dearer", "fewer of it", "more sites"],
)
def test_nobody_is_worse_off_for_somebody_behind(sites: Sites, counts: tuple[int, int]) -> None:
    """But for that there is room for both."""
    asked = {"any": problem([group("worker", *counts)], sites), "only-b": asks(sites, 4, "b")}
    one_by_one, starts, rooms = looked(asked)
    assert one_by_one == names(starts) == ["any"]
    assert where(starts[0], rooms) == {"b"}
    least = problem([group("worker", 2)], sites)
    assert solve(less(least, [_taken(asked["only-b"])])) is not None


def _taken(asked: Problem) -> Taken:
    plan = solve(asked)
    assert plan is not None
    return Taken("only-b", plan.window, plan, asked)


def test_what_is_kept_for_who_is_first_stays_so() -> None:
    """`wide` gets four of each in five minutes, of which b has three now; nobody gets those."""
    sites = {"a": [offer(5), offer(5)], "b": [offer(3), offer(4)]}
    wide = problem(
        [group("left", 4, allow_sites=("a",)), group("right", 4, allow_sites=("b",))],
        linked(sites, link()),
    )
    asked = {"wide": wide, "any": asks(sites, 1), "only-b": asks(sites, 1, "b")}
    one_by_one, starts, _ = looked(asked)
    assert one_by_one == names(starts) == ["any"]


def test_who_is_first_may_start_beside_those_that_passed_it() -> None:
    """What was kept for it is then nobody's. `third` stays where it can be alone."""
    for spare, started in ((2, ["any", "third"]), (3, ["any", "first", "third"])):
        sites = {"a": [offer(spare)], "b": [offer(4)]}
        asked = {"any": asks(sites, 2), "first": asks(sites, 4, "b"), "third": asks(sites, 1, "a")}
        one_by_one, starts, rooms = looked(asked)
        assert one_by_one == ["any", "third"]
        assert names(starts) == started
    assert [where(each, rooms) for each in starts] == [{"a"}, {"b"}, {"a"}]
    left = [[taken.lease for taken in each.leaves] for each in starts]
    assert left == [["first", "third"], ["third"], []]


def test_what_was_kept_for_one_that_starts_after_all_is_kept_for_the_next() -> None:
    """When `first` starts, `second` is the first that waits, and gets three of c in five minutes,
    of which `last` would take two now."""
    sites = linked({"a": offer(3), "b": [offer(4), offer(8)], "c": [offer(2), offer(3)]}, link())
    sites["a"] = sites["a"] * 2
    second = [group("left", 4, allow_sites=("b",)), group("right", 2, allow_sites=("c",))]
    asked = {
        "any": asks(sites, 2, "a", "b"),
        "first": asks(sites, 4, "b"),
        "second": problem(second, sites),
        "other": asks(sites, 1, "a", "c"),
        "last": asks(sites, 2, "c"),
    }
    one_by_one, starts, _ = looked(asked)
    assert one_by_one == ["any", "other"]
    assert names(starts) == ["any", "first", "other"]
    del asked["second"]
    assert names(looked(asked)[1]) == ["any", "first", "other", "last"]


def test_whoever_has_room_once_another_starts_after_all_starts_too() -> None:
    """What was kept at e for `first`, which starts at d now, kept `second` from it. That has room
    as all others are, though where it would rather be, none of them could be moved to make more."""
    sites = {
        "a": [offer(2)] * 2,
        "b": [offer(6), offer(8)],
        "c": [offer(1, price=1)] * 2,
        "d": [offer(4, price=2)] * 2,
        "e": [offer(2), offer(4)],
    }
    sites = linked(sites, link())
    first = [group("left", 6, allow_sites=("b",)), group("right", 4, allow_sites=("d", "e"))]
    second = [group("left", 1, allow_sites=("a", "b", "c")), group("right", 2, allow_sites=("e",))]
    asked = {
        "any": asks(sites, 2, "a", "b"),
        "first": problem(first, sites),
        "second": problem(second, sites),
    }
    one_by_one, starts, rooms = looked(asked)
    assert one_by_one == ["any"]
    assert names(starts) == ["any", "first", "second"]
    assert [where(each, rooms) for each in starts] == [{"a"}, {"b", "d"}, {"c", "e"}]


def test_who_could_start_later_may_start_now_instead() -> None:
    """What is kept for it until then is its own."""
    sites = {"a": [offer(2), offer(2)], "b": [offer(4), offer(8)]}
    one_by_one, starts, rooms = looked({"any": asks(sites, 2), "first": asks(sites, 4, "b")})
    assert one_by_one == ["any"]
    assert [where(each, rooms) for each in starts] == [{"a"}, {"b"}]


def test_the_other_may_be_at_the_same_sites_but_more_of_it_at_one() -> None:
    sites = linked({"a": offer(4), "b": offer(4)}, link())
    most = asks(sites, 4, max_per_site=3)
    plan = solve(most)
    assert plan is not None
    full = max(plan.sites, key=lambda each: each.counts["worker"])
    assert full.counts["worker"] == 3
    one_by_one, starts, rooms = looked({"most": most, "only": asks(sites, 3, full.site)})
    assert one_by_one == ["most"]
    assert names(starts) == ["most", "only"]
    moved = rooms.taken_now(starts[0].lease)
    assert moved is not None
    assert moved.plan.count("worker", full.site) == 1


def test_links_are_left_too() -> None:
    """`pair` goes over one of two links, and to one that `far` cannot do without."""
    sites = linked({"a": offer(2), "b": offer(1), "c": offer(2)}, link(10))

    def over(*ends: str) -> Problem:
        groups = [group("head", allow_sites=("a",)), group("worker", allow_sites=ends)]
        return problem(groups, sites, promises=[promise("head", "worker", 10)])

    one_by_one, starts, rooms = looked({"pair": over("b", "c"), "far": over("c")})
    assert one_by_one == ["pair"]
    assert [where(each, rooms) for each in starts] == [{"a", "b"}, {"a", "c"}]


def test_the_other_may_go_where_the_best_plan_of_the_lease_would_have_been() -> None:
    """`both` needs all of c and one more; alone it would take that at b, to which `any` has to go
    then."""
    sites = linked({"a": offer(1), "b": offer(1), "c": offer(3)}, link())
    groups = [group("left", 3, allow_sites=("c",)), group("right", 1, allow_sites=("a", "b"))]
    asked = {"any": asks(sites, 1, "b", "c"), "both": problem(groups, sites)}
    alone = solve(asked["both"])
    assert alone is not None
    assert alone.site_names == ("b", "c")
    one_by_one, starts, rooms = looked(asked)
    assert one_by_one == ["any"]
    assert [where(each, rooms) for each in starts] == [{"b"}, {"a", "c"}]


def test_no_more_is_solved_than_is_said() -> None:
    """Each of those that cannot start is tried with each of those that do, until that is over."""
    many = {f"s{number}": offer(2) for number in range(7)}
    asked = {f"any{number}": asks(many, 1) for number in range(7)}
    tight = {name: asks(many, 2, name) for name in many}
    before = looked(asked)[2].solved
    _, starts, rooms = looked(asked | tight)
    assert len(starts) > len(asked)
    assert rooms.solved <= before + len(tight) + MOST_SOLVED + 2
