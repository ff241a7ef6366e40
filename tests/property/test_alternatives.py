"""Whatever the problem: each of the plans to choose from is sound, and none beats another in what
that is told to be the best in. Of what is simple enough to be counted out, there is no better."""

from datetime import timedelta
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from intertie.metasched.domain.alternatives import Alternative, Merit, alternatives_of
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.problem import Problem
from tests.property.test_plan import problems, with_more
from tests.unit.metasched.problems import group, link, linked, offer, problem

EPSILON = 1e-6


def at_sites(plan: Plan) -> dict[str, dict[str, int]]:
    return {each.site: dict(each.counts) for each in plan.sites if each.counts}


def shares_at_a_site(plan: Plan) -> list[float]:
    """The largest of each group of two or more, counted here; the largest first."""
    totals: dict[str, int] = {}
    for here in at_sites(plan).values():
        for name, count in here.items():
            totals[name] = totals.get(name, 0) + count
    found = (
        max(here.get(name, 0) for here in at_sites(plan).values()) / total
        for name, total in totals.items()
        if total > 1
    )
    return sorted(found, reverse=True)


def by(merit: Merit, found: tuple[Alternative, ...]) -> Plan:
    (plan,) = (each.plan for each in found if merit in each.merits)
    return plan


@settings(max_examples=100, deadline=None)
@given(problems())
def test_each_is_sound_and_the_best_in_what_it_is_told_for(drawn: Problem) -> None:
    given_problem = with_more(with_more(drawn))  # most as they are drawn have no plan
    first = best_plan(given_problem, effort=0.5)
    if first is None:
        return
    found = alternatives_of(given_problem, first, effort=0.5)
    plans = [each.plan for each in found]
    for plan in plans:
        assert check(given_problem, plan) == ()
        for each in given_problem.groups:
            assert plan.count(each.name) == first.count(each.name)
    assert len({(plan.window, str(at_sites(plan))) for plan in plans}) == len(plans)
    assert by(Merit.EARLIEST, found) == plans[0]
    assert plans[0].window.start == min(plan.window.start for plan in plans) == first.window.start
    assert by(Merit.CHEAPEST, found).cost <= min(plan.cost for plan in plans) + EPSILON
    assert len(at_sites(by(Merit.MOST_LOCAL, found))) == min(len(at_sites(p)) for p in plans)
    safest = by(Merit.MOST_RELIABLE, found)
    assert shares_at_a_site(safest) == min(map(shares_at_a_site, plans))
    for site in safest.sites:
        for name, most in safest.max_per_host.items():
            assert all(host.get(name, 0) <= most for host in site.packing)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 5),
    st.lists(
        st.tuples(
            st.sampled_from([0.1, 0.5, 1.0]), st.lists(st.integers(0, 5), min_size=2, max_size=2)
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_there_is_no_better_than_what_can_be_counted_out(
    wanted: int, sites: list[tuple[float, list[int]]]
) -> None:
    """One group of one vCPU each; a site has one host, with so much free in each of two windows."""
    offers = {
        f"s{at}": [offer(free, price=price) for free in windows]
        for at, (price, windows) in enumerate(sites)
    }
    given_problem = problem([group(fewest=wanted)], linked(offers, link()))
    ways = [
        (slot, counts)
        for slot in range(2)
        for counts in product(range(wanted + 1), repeat=len(sites))
        if sum(counts) == wanted
        and all(count <= free[slot] for count, (_, free) in zip(counts, sites, strict=True))
    ]
    first = best_plan(given_problem)
    assert (first is not None) == bool(ways)
    if first is None:
        return
    found = alternatives_of(given_problem, first)
    hour = timedelta(hours=1)
    prices = [price for price, _ in sites]
    least = min(sum(c * p for c, p in zip(counts, prices, strict=True)) for _, counts in ways)
    assert by(Merit.CHEAPEST, found).window.duration == hour
    assert abs(by(Merit.CHEAPEST, found).cost - least) < EPSILON
    starts = given_problem.windows
    assert starts.index(by(Merit.EARLIEST, found).window) == min(slot for slot, _ in ways)
    fewest = min(sum(map(bool, counts)) for _, counts in ways)
    assert len(at_sites(by(Merit.MOST_LOCAL, found))) == fewest
    if wanted > 1:
        share = min(max(counts) for _, counts in ways) / wanted
        assert abs(shares_at_a_site(by(Merit.MOST_RELIABLE, found))[0] - share) < EPSILON
