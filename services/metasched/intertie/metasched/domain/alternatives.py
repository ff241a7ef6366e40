"""Plans to choose from: of one problem, the best in each of several respects.

Each respect is another problem, which the planner solves as any other; no rule of the model knows
of it. All of them have as many workspaces of each group as the first.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import partial
from typing import Any, TypeVar

from intertie.common.values import replace
from intertie.metasched.domain.candidates import usable_sites
from intertie.metasched.domain.cheapest import cheaper, millionths
from intertie.metasched.domain.explain import explained
from intertie.metasched.domain.plan import Plan, is_sound
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.problem import GroupNeed, Problem, over

L = TypeVar("L")

QUESTIONS = 12
"""To the planner, at most; nearly always it is three or four."""


class Merit(Enum):
    """In what none of the other plans is better."""

    EARLIEST = "EARLIEST"
    CHEAPEST = "CHEAPEST"
    MOST_LOCAL = "MOST_LOCAL"
    """At the fewest sites."""
    MOST_RELIABLE = "MOST_RELIABLE"
    """See lost_with_a_site, and after that lost_with_a_host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    merits: tuple[Merit, ...]
    """At least one."""
    plan: Plan


class _Planner:
    """As many questions as may be asked."""

    def __init__(self, effort: float) -> None:
        self._effort = effort
        self._left = QUESTIONS

    def __call__(self, problem: Problem) -> Plan | None:
        """None, too, where too much was asked."""
        if not self._left:
            return None
        self._left -= 1
        return best_plan(problem, effort=self._effort)


@dataclass(frozen=True, slots=True)
class _Found:
    plan: Plan
    asked: Problem | None = None
    """Of what it is the best plan; None: it has its reasons already."""


def alternatives_of(
    problem: Problem, first: Plan, *, effort: float = 2.0
) -> tuple[Alternative, ...]:
    """The earliest first: that is `first`, the best plan of the problem, which has its reasons.

    Each is sound, and others are told only where they really differ. `effort` is for each of the
    QUESTIONS, as in planner.best_plan.
    """
    asked = _as_many(problem, first)
    ways, solve = (_more_local, _more_reliable, _cheaper), _Planner(effort)
    found = [_Found(first), *(each for way in ways for each in way(asked, first, solve))]
    told = _that_differ(asked, [each for each in found if is_sound(problem, each.plan)])
    merits: dict[int, list[Merit]] = {}
    for merit, rank in _RANKS.items():
        best = min(range(len(told)), key=lambda at: rank(asked, told[at].plan))
        merits.setdefault(best, []).append(merit)
    return tuple(
        Alternative(merits=tuple(of), plan=_with_reasons(asked, told[at], of))
        for at, of in merits.items()
    )


Lost = tuple[Fraction, ...]
"""Shares of groups, the largest first: less is lost where the largest that differs is smaller."""


def lost_with_a_site(problem: Problem, plan: Plan) -> Lost:
    """Of each group of two or more workspaces, the largest share that is at one site.

    Nothing is known of how often sites or hosts fail, and nothing is assumed: what counts is how
    much goes with one of them. A group of one goes with its site, wherever it is.
    """
    return _shares(problem, plan, _most_at_site)


def lost_with_a_host(problem: Problem, plan: Plan) -> Lost:
    """The same of one host, by what its sites are bound to: where they are not, they may put all
    that they have of a group on one."""
    return _shares(problem, plan, _most_on_host)


def _shares(problem: Problem, plan: Plan, most: Callable[[GroupNeed, Plan], int]) -> Lost:
    shares = (
        Fraction(most(group, plan), plan.count(group.name)) for group in _several(problem, plan)
    )
    return tuple(sorted(shares, reverse=True))


def _several(problem: Problem, plan: Plan) -> list[GroupNeed]:
    """Groups of which not all is lost, come what may."""
    return [group for group in problem.groups if plan.count(group.name) > 1]


def _most_at_site(group: GroupNeed, plan: Plan) -> int:
    return max(each.counts.get(group.name, 0) for each in plan.sites)


def _most_on_host(group: GroupNeed, plan: Plan) -> int:
    at_site, bound = _most_at_site(group, plan), plan.most_on_host(group.name, group.max_per_host)
    return min(at_site, bound or at_site)


def _start(problem: Problem, plan: Plan) -> int:
    return problem.windows.index(plan.window)


_RANKS: dict[Merit, Callable[[Problem, Plan], tuple[Any, ...]]] = {
    Merit.EARLIEST: lambda of, plan: (_start(of, plan), plan.taken, millionths(plan)),
    Merit.CHEAPEST: lambda of, plan: (millionths(plan), _start(of, plan), plan.taken),
    Merit.MOST_LOCAL: lambda of, plan: (plan.taken, _start(of, plan), millionths(plan)),
    Merit.MOST_RELIABLE: lambda of, plan: (
        lost_with_a_site(of, plan),
        lost_with_a_host(of, plan),
        _start(of, plan),
        millionths(plan),
    ),
}
"""Smaller is better."""


def _as_many(problem: Problem, plan: Plan) -> Problem:
    """With as many of each group as the plan has: with fewer it would be cheaper, and no choice."""
    groups = (
        replace(group, fewest=plan.count(group.name), most=plan.count(group.name))
        for group in problem.groups
    )
    return replace(problem, groups=tuple(groups))


def _that_differ(problem: Problem, found: Sequence[_Found]) -> list[_Found]:
    """Of those with the same start and the same counts at each site, the first, bound to hosts as
    the one that loses the least with one."""
    kept: dict[Any, _Found] = {}
    for each in found:
        plan = each.plan
        there = (part for part in plan.sites if part.counts)
        at = frozenset((part.site, *sorted(part.counts.items())) for part in there)
        before = kept.setdefault((plan.window, at), each)
        if lost_with_a_host(problem, plan) < lost_with_a_host(problem, before.plan):
            kept[plan.window, at] = replace(before, plan=_on_hosts_of(before.plan, plan))
    return list(kept.values())


def _on_hosts_of(plan: Plan, other: Plan) -> Plan:
    """The plan with its workspaces on hosts as in the other, which has as many at each site."""
    packings = {each.site: each.packing for each in other.sites}
    sites = (replace(each, packing=packings.get(each.site, ())) for each in plan.sites)
    return replace(plan, sites=tuple(sites), max_per_host=other.max_per_host)


def _with_reasons(problem: Problem, found: _Found, merits: Sequence[Merit]) -> Plan:
    """`optimal` is said of plans that are the best in all, not in one respect."""
    plan = found.plan
    if found.asked is not None:
        window = over(found.asked, [_start(found.asked, plan)])
        plan = replace(explained(window, plan), optimal=False, bound=None)
    if Merit.MOST_RELIABLE not in merits:
        return plan
    lost = [
        f"{_most_at_site(group, plan)} of {plan.count(group.name)} {group.name} go with a site"
        f" at most, {_most_on_host(group, plan)} with a host"
        for group in _several(problem, plan)
    ]
    return replace(plan, reasons=(*plan.reasons, *lost))


def _more_local(problem: Problem, first: Plan, solve: _Planner) -> Iterator[_Found]:
    """At as few sites as can be, whenever that is."""
    fewest = max(1, *(group.min_sites for group in problem.groups))
    fewer = range(first.taken - 1, fewest - 1, -1)
    found = _tightest(fewer, lambda most: replace(problem, max_sites=most), solve)
    yield from filter(None, [found])


def _cheaper(problem: Problem, first: Plan, solve: _Planner) -> Iterator[_Found]:
    """At the least cost, whenever and at however many sites that is."""
    for plan, asked in cheaper(problem, millionths(first), solve):
        yield _Found(plan, asked)


def _more_reliable(problem: Problem, first: Plan, solve: _Planner) -> Iterator[_Found]:
    """With as small a share of any group at one site as can be, whenever that is; and then, with as
    small a one on one host."""
    places = [len(usable_sites(problem, group)) for group in problem.groups]
    there = [_most_at_site(group, first) for group in problem.groups]
    found = _tightest(_caps(problem, places, below=there), partial(_at_site, problem), solve)
    plan, asked = (first, problem) if found is None else (found.plan, found.asked)
    assert asked is not None
    within = over(asked, [_start(asked, plan)])
    hosts = [
        sum(host.suits(group) for site in within.sites for host in site.offers[0].hosts)
        for group in within.groups
    ]
    there = [_most_on_host(group, plan) for group in within.groups]
    bound = _tightest(_caps(within, hosts, below=there), partial(_on_host, within), solve)
    if bound is not None:
        yield replace(bound, plan=_bound_to_hosts(within, bound.plan))
    elif found is not None:
        yield found


def _at_site(problem: Problem, caps: Sequence[int]) -> Problem:
    """With no more of each group at one site."""
    return _with_caps(problem, "max_per_site", caps)


def _on_host(problem: Problem, caps: Sequence[int]) -> Problem:
    """With no more of each group on one host."""
    return _with_caps(problem, "max_per_host", caps)


def _with_caps(problem: Problem, bound: str, caps: Sequence[int]) -> Problem:
    def capped(group: GroupNeed, cap: int) -> GroupNeed:
        changes: dict[str, Any] = {bound: min(cap, getattr(group, bound) or cap)}
        return replace(group, **changes)

    return replace(problem, groups=tuple(map(capped, problem.groups, caps)))


def _bound_to_hosts(problem: Problem, plan: Plan) -> Plan:
    """That holds its sites to what its packing shows."""
    most = {
        group.name: max(host.get(group.name, 0) for each in plan.sites for host in each.packing)
        for group in _several(problem, plan)
    }
    return replace(plan, max_per_host=most)


def _caps(
    problem: Problem, places: Sequence[int], *, below: Sequence[int]
) -> list[tuple[int, ...]]:
    """How many of each group may be at one place, if that is to be a smaller and smaller share of
    it, the loosest first; no less than where it is even over so many `places`. Those alone in which
    some group has less than `below`."""
    counts = [group.most for group in problem.groups]
    even = [-(-count // max(most, 1)) for count, most in zip(counts, places, strict=True)]
    largest = max(counts)
    levels = (
        tuple(max(k * count // largest, least) for count, least in zip(counts, even, strict=True))
        for k in range(largest - 1, 0, -1)
    )
    return [
        each
        for each in dict.fromkeys(levels)
        if any(cap < there for cap, there in zip(each, below, strict=True))
    ]


def _tightest(
    levels: Sequence[L], restated: Callable[[L], Problem], solve: _Planner
) -> _Found | None:
    """The plan of the last of the levels that has one, each being tighter than the one before; by
    halving."""
    found = None
    low, high = 0, len(levels)
    while low < high:
        middle = (low + high) // 2
        asked = restated(levels[middle])
        plan = solve(asked)
        if plan is None:
            high = middle
        else:
            found, low = _Found(plan, asked), middle + 1
    return found
