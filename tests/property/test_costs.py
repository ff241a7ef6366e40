"""Whatever is asked for: what the planner says it costs is what the sites come to."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.price import stretch_of
from intertie.broker.domain.site_caps import with_site_defaults
from intertie.common.names import workspace_label
from intertie.common.quantities import Vector
from intertie.common.spec import (
    Allocation,
    BandwidthTerm,
    ClusterSpec,
    DiskTerm,
    Environment,
    Group,
    LeaseTerms,
    Network,
    PairTerm,
    layout,
    normalise,
)
from intertie.common.tariff import RATES, Rates, room_made, taken_by
from intertie.metasched.domain.costs import room_made_at, site_hour
from intertie.metasched.domain.parts import part_specs
from intertie.metasched.domain.plan import LinkPlan, Plan
from intertie.metasched.domain.problem import Offer, Problem, problem_of
from intertie.metasched.domain.site_plan import SitePlan
from tests.unit.metasched.problems import NOW, window

SITES = ("north", "south")
DEFAULT_IOPS, DEFAULT_MIB_S = 500, 100
amount = st.integers(0, 50)


@st.composite
def allocations(draw: st.DrawFn, pairs: list[str]) -> Allocation:
    return Allocation(
        vcpus=draw(st.integers(1, 8)),
        memory_mib=draw(st.integers(128, 8192)),
        disk_mib=draw(st.integers(128, 8192)),
        disk=DiskTerm(guarantee_iops=draw(amount), guarantee_mib_s=draw(amount)),
        nic=BandwidthTerm(guarantee_mbit_s=draw(amount)),
        pairs=tuple(
            PairTerm(group=peer, bandwidth=BandwidthTerm(guarantee_mbit_s=draw(st.integers(1, 9))))
            for peer in pairs
        ),
    )


@st.composite
def placed(draw: st.DrawFn) -> tuple[ClusterSpec, Plan]:
    counts = {
        site: {name: draw(st.integers(0, 3)) for name in ("head", "worker")} for site in SITES
    }
    counts["north"]["head"] += 1
    counts["south"]["worker"] += 1
    towards = draw(st.lists(st.sampled_from(["head", "worker"]), unique=True))
    spec = ClusterSpec(
        groups=tuple(
            Group(
                name=name,
                count=sum(each[name] for each in counts.values()),
                environment=Environment(image="guest"),
                allocation=draw(allocations(towards if name == "head" else [])),
            )
            for name in ("head", "worker")
        ),
        networks=tuple(
            Network(name=name, subnet=f"10.{number}.0.0/16") for number, name in enumerate(["lan"])
        ),
        lease=LeaseTerms(duration=timedelta(hours=1)),
    )
    spec = normalise(spec, now=NOW)
    plan = Plan(
        window=window(),
        sites=tuple(
            SitePlan(site=site, counts={name: n for name, n in counts[site].items() if n})
            for site in SITES
        ),
        images={"head": "b3:" + "1" * 64, "worker": "b3:" + "2" * 64},
    )
    return spec, plan


def links_of(problem: Problem, plan: Plan) -> tuple[LinkPlan, ...]:
    """Counted pair by pair."""
    mbit_s = 0
    site_of = plan.site_of()
    for promise in problem.promises:
        ends = {
            frozenset((a, b))
            for a in labels(plan, promise.a)
            for b in labels(plan, promise.b)
            if site_of[a] != site_of[b]
        }
        mbit_s += promise.mbit_s * len(ends)
    return tuple(
        LinkPlan(from_site=one, to_site=two, network="lan", mbit_s=mbit_s, latency=timedelta())
        for one, two in (SITES, SITES[::-1])
        if mbit_s
    )


def labels(plan: Plan, group: str) -> list[str]:
    return [workspace_label(group, index) for index in range(plan.count(group))]


@given(
    given_=placed(),
    rates=st.fixed_dictionaries({name: st.floats(0, 2) for name in RATES}),
    free=st.none() | st.builds(Vector, vcpus=st.integers(0, 40), memory_mib=st.integers(0, 40_000)),
)
def test_plan_and_parts_cost_the_same(
    given_: tuple[ClusterSpec, Plan], rates: dict[str, float], free: Vector | None
) -> None:
    """With what is asked for room that others make, where so much is `free` while they do not."""
    spec, plan = given_
    asked = Rates(**rates)
    offer = Offer(
        rates=asked,
        default_iops=DEFAULT_IOPS,
        default_mib_s=DEFAULT_MIB_S,
        free_together=free,
    )
    problem = problem_of(spec, (plan.window,), {site: [offer] for site in SITES})
    links = links_of(problem, plan)
    plan = Plan(window=plan.window, sites=plan.sites, links=links, images=plan.images)
    totals = {group.name: plan.count(group.name) for group in spec.groups}
    where = layout("uid", spec, totals, plan.site_of(), "one")
    parts = part_specs("metascheds/m/tenants/t/clusters/one", "uid", spec, plan, where)
    for site in plan.sites:
        policy = Policy(
            site=site.site,
            hosts=(),
            default_disk_cap_iops=DEFAULT_IOPS,
            default_disk_cap_mib_s=DEFAULT_MIB_S,
        )
        traffic = links[0].mbit_s if links else 0
        planned = site_hour(problem, problem.site(site.site), 0, site.counts, totals, traffic)
        part = with_site_defaults(parts[site.site], policy)
        room = room_made(asked, taken_by(part), free) if free is not None else None
        held = stretch_of(part.window, "immediate", asked, part, room)
        assert planned == pytest.approx(held.hour)
        assert room_made_at(problem, problem.site(site.site), 0, site.counts) == room
