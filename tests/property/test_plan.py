"""Whatever the problem: a plan keeps every rule, and more capacity never makes it worse."""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from intertie.common.quantities import Vector
from intertie.common.spec import AffinityKind
from intertie.common.tariff import Rates
from intertie.common.values import replace
from intertie.metasched.domain.explain import explained, shortfalls
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.problem import (
    Affinity,
    GroupNeed,
    HostRoom,
    LatencyLimit,
    LinkRoom,
    Offer,
    Problem,
    Promise,
    Site,
)
from intertie.metasched.domain.rooms import Solver
from intertie.metasched.domain.solver import solve
from tests.unit.metasched.problems import IMAGES, window

SITES = ("a", "b", "c")
small = st.integers(0, 4)


@st.composite
def needs(draw: st.DrawFn, name: str) -> GroupNeed:
    fewest = draw(st.integers(1, 3))
    return GroupNeed(
        name=name,
        fewest=fewest,
        most=fewest + draw(st.integers(0, 2)),
        need=Vector(vcpus=draw(st.integers(1, 2)), memory_mib=draw(st.integers(1, 3)), disk_mib=64),
        image="guest",
        architecture="x86_64",
        hypervisor=draw(st.sampled_from(["any", "any", "kvm"])),
        networks=draw(st.sampled_from([("lan",), ("lan",), ("other",), ()])),
        deny_sites=draw(st.sampled_from([(), (), ("a",)])),
        max_per_site=draw(st.integers(0, 3)),
        max_per_host=draw(st.integers(0, 2)),
        min_sites=draw(st.integers(0, 2)),
    )


@st.composite
def hosts(draw: st.DrawFn) -> HostRoom:
    return HostRoom(
        free=Vector(
            vcpus=draw(small),
            memory_mib=draw(st.integers(0, 8)),
            disk_mib=draw(st.sampled_from([64, 128, 512])),
            iops=draw(st.sampled_from([0, 10, 30, 90])),
            uplink_mbit_s=draw(st.integers(0, 30)),
        ),
        hypervisors=draw(st.sampled_from([frozenset({"qemu"}), frozenset({"qemu", "kvm"})])),
    )


@st.composite
def offers(draw: st.DrawFn, site: str) -> Offer:
    return Offer(
        hosts=tuple(draw(st.lists(hosts(), max_size=2))),
        links={
            peer: LinkRoom(
                egress_mbit_s=draw(st.integers(0, 40)),
                ingress_mbit_s=draw(st.integers(0, 40)),
                latency=timedelta(milliseconds=draw(st.sampled_from([1, 5]))),
            )
            for peer in SITES
            if peer != site and draw(st.sampled_from([True, True, True, False]))
        },
        images=draw(st.sampled_from([IMAGES, IMAGES, IMAGES, {}])),
        rates=Rates(
            vcpu_hour=draw(st.sampled_from([0.0, 0.5])),
            pair_mbit_s_hour=draw(st.sampled_from([0.0, 0.0, 0.01])),
            link_mbit_s_hour=draw(st.sampled_from([0.0, 0.0, 0.01])),
            give_way_vcpu_hour=draw(st.sampled_from([0.0, 0.0, 0.3])),
            give_way_memory_gib_hour=draw(st.sampled_from([0.0, 0.0, 51.2])),
        ),
        default_iops=draw(st.sampled_from([0, 10])),
        free_together=draw(free_together()),
    )


@st.composite
def free_together(draw: st.DrawFn) -> Vector | None:
    """Nothing of it, or less than hosts have with others out of the way, or more."""
    if draw(st.booleans()):
        return None
    return Vector(vcpus=draw(st.integers(0, 6)), memory_mib=draw(st.integers(0, 12)))


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    slots = draw(st.integers(1, 2))
    sites = []
    for name in SITES[: draw(st.integers(1, 3))]:
        first = draw(offers(name))
        rest = [replace(first, hosts=draw(offers(name)).hosts) for _ in range(slots - 1)]
        sites.append(Site(name=name, offers=(first, *rest)))
    groups = tuple(draw(needs(name)) for name in ("head", "worker")[: draw(st.integers(1, 2))])
    names = st.sampled_from([each.name for each in groups])
    promises = st.builds(
        Promise, a=names, b=names, network=st.just("lan"), mbit_s=st.integers(1, 12)
    )
    limits = st.builds(
        LatencyLimit,
        a=names,
        b=names,
        network=st.just("lan"),
        most=st.just(timedelta(milliseconds=2)),
    )
    return Problem(
        groups=groups,
        sites=tuple(sites),
        windows=tuple(window(slot) for slot in range(slots)),
        promises=tuple(draw(st.lists(promises, max_size=2))),
        limits=tuple(draw(st.lists(limits, max_size=1))),
        max_sites=draw(st.integers(0, 2)),
        affinities=draw(affinities([each.name for each in groups])),
        max_cost=draw(st.sampled_from([None, None, None, 1.0, 2.5])),
    )


@st.composite
def affinities(draw: st.DrawFn, names: list[str]) -> tuple[Affinity, ...]:
    """Seldom; of groups alone, and of both. No two of one kind: each has a field."""
    groups = st.sampled_from([tuple(names), tuple(names[:1])])
    kinds = draw(
        st.sampled_from([(), (), (), *((kind,) for kind in AffinityKind), (*AffinityKind,)])
    )
    return tuple(Affinity(groups=draw(groups), kind=kind, field=kind.value) for kind in kinds)


def rank(given: Problem, plan: Plan) -> tuple[int, int, int]:
    """Smaller is better: as the planner's objective has it, down to the number of sites."""
    placed = sum(plan.count(group.name) for group in given.groups)
    taken = sum(bool(each.counts) for each in plan.sites)
    return -placed, given.windows.index(plan.window), taken


def with_more(given: Problem) -> Problem:
    more = Vector(vcpus=1, memory_mib=1, disk_mib=64, uplink_mbit_s=5)
    return replace(
        given,
        sites=tuple(
            replace(
                site,
                offers=tuple(
                    replace(
                        offer,
                        hosts=tuple(replace(h, free=h.free + more) for h in offer.hosts),
                        links={
                            peer: replace(
                                link,
                                egress_mbit_s=link.egress_mbit_s + 5,
                                ingress_mbit_s=link.ingress_mbit_s + 5,
                            )
                            for peer, link in offer.links.items()
                        },
                    )
                    for offer in site.offers
                ),
            )
            for site in given.sites
        ),
    )


@settings(max_examples=150, deadline=None)
@given(problems())
def test_a_plan_keeps_every_rule(given_problem: Problem) -> None:
    plan = solve(given_problem)
    if plan is not None:
        assert check(given_problem, plan) == ()
        assert explained(given_problem, plan).reasons


def assert_no_worse_with_more(given: Problem, plan: Plan, solver: Solver) -> None:
    """`plan` is what the solver has found; nothing is said of one that may not be the best."""
    if plan.optimal:
        better_problem = with_more(given)
        better = solver(better_problem)
        assert better is not None
        assert rank(better_problem, better) <= rank(given, plan)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_more_capacity_never_makes_a_plan_worse(given_problem: Problem) -> None:
    plan = solve(given_problem)
    if plan is not None:
        assert_no_worse_with_more(given_problem, plan, solve)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_what_does_not_fit_is_explained(given_problem: Problem) -> None:
    if solve(given_problem) is None:
        found = shortfalls(given_problem)
        assert found
        assert all(str(each) for each in found)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_the_check_counts_what_it_is_given(given_problem: Problem) -> None:
    """One workspace more than was planned, on a host that was not told of it, is found."""
    plan = solve(given_problem)
    if plan is None:
        return
    first = plan.sites[0]
    name = next(iter(first.counts))
    swollen = replace(first, counts={**first.counts, name: first.counts[name] + 1})
    assert check(given_problem, replace(plan, sites=(swollen, *plan.sites[1:])))
