"""Whatever the problem: what is found without the model keeps every rule, is never better than the
best that the model knows, and no bound is above that."""

from datetime import timedelta
from itertools import combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from intertie.common.quantities import Vector
from intertie.common.spec import AffinityKind
from intertie.common.tariff import Rates
from intertie.common.values import replace
from intertie.metasched.domain.construct import Begun, constructed
from intertie.metasched.domain.improve import improve
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.problem import (
    Affinity,
    Cut,
    GroupNeed,
    HostRoom,
    ImageFound,
    LatencyLimit,
    LinkRoom,
    Offer,
    Problem,
    Promise,
    Site,
)
from intertie.metasched.domain.solver import solve
from tests.property.test_plan import assert_no_worse_with_more, free_together, rank
from tests.unit.metasched.problems import IMAGES, OTHER_DIGEST, window

OTHERS = {"guest": ImageFound(digest=OTHER_DIGEST, virtual_mib=64)}
STEPS, TINY = 400, 1e-5


@st.composite
def hosts(draw: st.DrawFn) -> HostRoom:
    return HostRoom(
        free=Vector(
            vcpus=draw(st.integers(1, 6)),
            memory_mib=draw(st.integers(2, 8)),
            disk_mib=512,
            uplink_mbit_s=draw(st.sampled_from([30, 200, 200])),
        ),
        hypervisors=frozenset({"qemu"}),
    )


@st.composite
def needs(draw: st.DrawFn, name: str, sites: tuple[str, ...]) -> GroupNeed:
    fewest = draw(st.sampled_from([1, 1, 2, 3]))
    return GroupNeed(
        name=name,
        fewest=fewest,
        most=fewest + draw(st.sampled_from([0, 0, 2])),
        need=Vector(vcpus=draw(st.integers(0, 2)), memory_mib=1, disk_mib=64),
        image="guest",
        architecture="x86_64",
        hypervisor="any",
        networks=draw(st.sampled_from([("lan",), ("lan",), ("lan",), ("lan", "other"), ()])),
        allow_sites=draw(st.sampled_from([(), (), (), (), sites[:1], sites[-1:]])),
        max_per_site=draw(st.sampled_from([0, 0, 0, 0, 0, 1, 2])),
        max_per_host=draw(st.sampled_from([0, 0, 0, 0, 0, 1])),
        min_sites=draw(st.sampled_from([0, 0, 0, 0, 0, 2])),
    )


@st.composite
def related(draw: st.DrawFn, names: tuple[str, ...]) -> tuple[Affinity, ...]:
    """Mostly apart; contradictions too, which no plan keeps."""
    some = st.sampled_from([names, names[:2], names[-2:], names[:1]])
    kinds = st.sampled_from([AffinityKind.APART, AffinityKind.APART, AffinityKind.TOGETHER])
    return tuple(draw(st.lists(st.builds(Affinity, groups=some, kind=kinds), max_size=2)))


@st.composite
def routed(draw: st.DrawFn) -> Problem:
    """Of sites with few links between them, most of which forward, and groups of which most are
    to be apart."""
    sites = ("a", "b", "c", "d", "e")[: draw(st.integers(2, 5))]
    links: dict[str, dict[str, LinkRoom]] = {name: {} for name in sites}
    beside = set(pairwise(sites)) | draw(
        st.sets(st.sampled_from(list(combinations(sites, 2))), max_size=3)
    )
    for one, two in sorted(beside):
        for here, there in ((one, two), (two, one)):
            links[here][there] = LinkRoom(
                egress_mbit_s=draw(st.sampled_from([5, 30, 80])),
                ingress_mbit_s=draw(st.sampled_from([30, 80])),
                latency=timedelta(milliseconds=draw(st.sampled_from([1, 2, 5]))),
            )
    slots = draw(st.sampled_from([1, 1, 2]))
    prices = st.sampled_from([0.0, 0.0, 0.5, 1.0])
    images = st.sampled_from([*[IMAGES] * 8, OTHERS, {}])
    drawn = []
    for name in sites:
        first = Offer(
            hosts=tuple(draw(st.lists(hosts(), min_size=1, max_size=2))),
            links=links[name],
            images=draw(images),
            rates=Rates(
                vcpu_hour=draw(prices),
                link_mbit_s_hour=draw(prices),
                give_way_vcpu_hour=draw(prices),
                give_way_memory_gib_hour=draw(prices) * 1024,
            ),
            free_together=draw(free_together()),
        )
        later = [replace(first, hosts=(draw(hosts()),)) for _ in range(slots - 1)]
        drawn.append(
            Site(
                name=name,
                offers=(first, *later),
                forwards=draw(st.sampled_from([True, True, True, False])),
            )
        )
    names = ("x", "y", "z")[: draw(st.integers(2, 3))]
    any_name = st.sampled_from(names)
    promises = st.builds(
        Promise, a=any_name, b=any_name, network=st.just("lan"), mbit_s=st.integers(1, 8)
    )
    limits = st.builds(
        LatencyLimit,
        a=any_name,
        b=any_name,
        network=st.just("lan"),
        most=st.sampled_from([timedelta(milliseconds=ms) for ms in (3, 8)]),
    )
    places = st.tuples(any_name, st.sampled_from(sites))
    cuts = st.builds(
        Cut,
        start=st.just(window(0).start),
        counts=st.dictionaries(places, st.integers(1, 3), min_size=1, max_size=2),
        onwards=st.booleans(),
    )
    return Problem(
        groups=tuple(draw(needs(name, sites)) for name in names),
        sites=tuple(drawn),
        windows=tuple(window(slot) for slot in range(slots)),
        promises=tuple(draw(st.lists(promises, min_size=1, max_size=3))),
        limits=draw(st.sampled_from([(), (), ()]) | st.tuples(limits)),
        max_sites=draw(st.sampled_from([0, 0, 0, 0, 2])),
        affinities=draw(related(names)),
        max_cost=draw(st.sampled_from([None, None, None, 2.0, 8.0])),
        cuts=draw(st.sampled_from([(), (), ()]) | st.tuples(cuts)),
    )


def plan_of(begun: Begun) -> Plan:
    search = begun.search
    assert search.best is not None
    return search.board.plan(search.best, optimal=False, bound=None)


@settings(max_examples=150, deadline=None)
@given(routed())
def test_a_plan_over_routes_keeps_every_rule(given_problem: Problem) -> None:
    plan = solve(given_problem)
    if plan is not None:
        assert check(given_problem, plan) == ()


def assert_improved_by_the_rules(given_problem: Problem, *, steps: int) -> None:
    """What is put together, and what is made of it."""
    begun = constructed(given_problem, steps=steps)
    if begun is None:
        return
    assert check(given_problem, plan_of(begun)) == ()
    cost = begun.search.cost
    improve(begun.search, steps=2 * steps, patience=20)
    assert begun.search.cost <= cost
    assert check(given_problem, plan_of(begun)) == ()


@settings(max_examples=250, deadline=None)
@given(routed())
def test_what_is_put_together_and_improved_keeps_every_rule(given_problem: Problem) -> None:
    assert_improved_by_the_rules(given_problem, steps=STEPS)


@settings(max_examples=100, deadline=None)
@given(routed())
def test_nothing_is_better_than_the_best_and_no_bound_above_it(given_problem: Problem) -> None:
    best = solve(given_problem)
    begun = constructed(given_problem, steps=STEPS)
    if best is None:
        assert begun is None
        return
    if begun is None or not best.optimal:
        return
    plan, search = plan_of(begun), begun.search
    assert rank(given_problem, best) <= rank(given_problem, plan)
    if rank(given_problem, best) == rank(given_problem, plan):
        assert best.cost <= plan.cost + TINY
    if begun.whole and begun.slot == 0:
        assert search.best is not None
        least = search.bound() - search.board.site_cost
        bound = search.board.plan(search.best, optimal=False, bound=least).bound
        assert bound is not None
        assert bound <= best.cost + TINY


@settings(max_examples=100, deadline=None)
@given(routed())
def test_more_capacity_never_makes_the_best_plan_worse(given_problem: Problem) -> None:
    plan = best_plan(given_problem)
    if plan is None:
        return
    assert check(given_problem, plan) == ()
    assert_no_worse_with_more(given_problem, plan, best_plan)


@settings(max_examples=50, deadline=None)
@given(routed())
def test_the_same_is_found_again(given_problem: Problem) -> None:
    assert best_plan(given_problem) == best_plan(given_problem)
