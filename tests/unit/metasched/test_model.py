"""The planner on instances small enough to solve by hand: one test a rule."""

from datetime import timedelta

from intertie.common.quantities import Vector
from intertie.common.values import replace
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.problem import Cut, ImageFound, LatencyLimit, Problem
from intertie.metasched.domain.solver import solve
from tests.unit.metasched.problems import (
    OTHER_DIGEST,
    group,
    link,
    linked,
    offer,
    problem,
    promise,
    room,
    window,
)


def planned(given: Problem) -> Plan:
    plan = solve(given)
    assert plan is not None
    assert check(given, plan) == ()
    return plan


def test_all_workspaces_go_where_there_is_room() -> None:
    plan = planned(problem([group(fewest=3)], {"north": offer(2), "south": offer(4)}))
    assert {each.site: dict(each.counts) for each in plan.sites} == {"south": {"worker": 3}}


def test_nothing_is_planned_where_the_fewest_do_not_fit() -> None:
    assert solve(problem([group(fewest=7)], linked({"a": offer(2), "b": offer(4)}, link()))) is None


def test_as_many_as_fit_are_planned_up_to_the_most() -> None:
    plan = planned(
        problem([group(fewest=1, most=9)], linked({"a": offer(2), "b": offer(4)}, link()))
    )
    assert plan.count("worker") == 6
    small = planned(problem([group(fewest=1, most=3)], {"a": offer(8)}))
    assert small.count("worker") == 3


def test_totals_that_do_not_pack_do_not_count() -> None:
    halves = problem([group(vcpus=2, fewest=2)], {"a": offer(3, 1)})
    assert solve(halves) is None
    assert planned(problem([group(vcpus=2, fewest=2)], {"a": offer(2, 2)}))


def test_every_dimension_of_a_host_counts() -> None:
    need = Vector(
        vcpus=1, memory_mib=100, disk_mib=100, iops=10, throughput_mib_s=5, uplink_mbit_s=7
    )
    for short in ("memory_mib", "disk_mib", "iops", "throughput_mib_s", "uplink_mbit_s"):
        exact = {name: value for name, value in need.items() if name != "vcpus"}
        fits = problem([group(need=need)], {"a": offer(room(1, **exact))})
        tight = problem(
            [group(need=need)], {"a": offer(room(1, **{**exact, short: exact[short] - 1}))}
        )
        assert planned(fits)
        assert solve(tight) is None, short


def test_a_disk_without_terms_counts_by_the_sites_default() -> None:
    host = replace(offer(room(9, iops=1000, throughput_mib_s=300)), default_iops=500)
    assert planned(problem([group(fewest=1, most=9)], {"a": host})).count("worker") == 2
    host = replace(host, default_iops=0, default_mib_s=100)
    assert planned(problem([group(fewest=1, most=9)], {"a": host})).count("worker") == 3
    own = group(fewest=1, most=9, need=Vector(vcpus=1, disk_mib=64, iops=100))
    assert planned(problem([own], {"a": replace(host, default_iops=500)})).count("worker") == 3


def test_allow_and_deny_name_the_sites() -> None:
    sites = {"a": offer(4), "b": offer(4), "c": offer(4)}
    assert planned(problem([group(allow_sites=("b",))], sites)).site_names == ("b",)
    denied = group(deny_sites=("a", "b"))
    assert planned(problem([denied], sites)).site_names == ("c",)
    assert solve(problem([group(allow_sites=("z",))], sites)) is None


def test_groups_pinned_to_one_site_each_are_placed_there() -> None:
    head, worker = group("head", allow_sites=("a",)), group(fewest=2, allow_sites=("b",))
    plan = planned(problem([head, worker], linked({"a": offer(9), "b": offer(9)}, link())))
    assert (plan.count("head", "a"), plan.count("worker", "b")) == (1, 2)


def test_no_more_of_a_group_on_a_host_or_at_a_site_than_its_bounds() -> None:
    assert solve(problem([group(fewest=3, max_per_host=1)], {"a": offer(9, 9)})) is None
    plan = planned(
        problem([group(fewest=3, max_per_site=2)], linked({"a": offer(9), "b": offer(9)}, link()))
    )
    assert sorted(plan.count("worker", site) for site in "ab") == [1, 2]


def test_a_group_is_spread_over_at_least_so_many_sites() -> None:
    sites = linked({"a": offer(9), "b": offer(9), "c": offer(9)}, link())
    assert len(planned(problem([group(fewest=3, min_sites=2)], sites)).sites) == 2
    assert solve(problem([group(fewest=3, min_sites=2)], sites, max_sites=1)) is None


def test_a_cluster_is_at_no_more_sites_than_it_may() -> None:
    sites = linked({"a": offer(2), "b": offer(2), "c": offer(2)}, link())
    assert planned(problem([group(fewest=5)], sites)).site_names == ("a", "b", "c")
    assert solve(problem([group(fewest=5)], sites, max_sites=2)) is None


def test_a_site_without_the_image_takes_none() -> None:
    sites = {"a": offer(9, images={}), "b": offer(1)}
    assert planned(problem([group()], sites)).site_names == ("b",)
    assert solve(problem([group(fewest=2)], sites)) is None


def test_a_disk_holds_its_image() -> None:
    large = {"guest": ImageFound(digest=OTHER_DIGEST, virtual_mib=513)}
    assert solve(problem([group()], {"a": offer(9, images=large)})) is None


def test_one_group_runs_one_content_although_sites_use_one_name_for_two() -> None:
    other = {"guest": ImageFound(digest=OTHER_DIGEST, virtual_mib=64)}
    sites = linked({"a": offer(2), "b": offer(2, images=other)}, link())
    assert solve(problem([group(fewest=3)], sites)) is None
    two = problem([group("x", fewest=2), group("y", fewest=2)], sites)
    assert len(set(planned(two).images.values())) == 2


def test_hypervisor_and_architecture_must_suit() -> None:
    hosts = offer(room(9, hypervisors=frozenset({"qemu"})), room(1, hypervisors=frozenset({"kvm"})))
    assert planned(problem([group(hypervisor="kvm")], {"a": hosts}))
    assert solve(problem([group(hypervisor="kvm", fewest=2)], {"a": hosts})) is None
    assert solve(problem([group()], {"a": offer(room(9, architecture="aarch64"))})) is None


def test_promises_between_sites_fit_the_link_in_both_directions() -> None:
    head, worker = group("head", allow_sites=("a",)), group(fewest=3, allow_sites=("b",))
    for mbit_s, fits in ((90, True), (89, False)):
        sites = linked({"a": offer(9), "b": offer(9)}, link(mbit_s))
        given = problem([head, worker], sites, promises=(promise("head", "worker", 30),))
        plan = solve(given)
        assert (plan is not None) is fits
        if plan:
            assert [(each.from_site, each.to_site, each.mbit_s) for each in plan.links] == [
                ("a", "b", 90),
                ("b", "a", 90),
            ]
    for one, two in ((link(90), link(89)), (link(90), link(90, ingress=89))):
        narrow = {"a": offer(9, links={"b": one}), "b": offer(9, links={"a": two})}
        given = problem([head, worker], narrow, promises=(promise("head", "worker", 30),))
        assert solve(given) is None


def test_a_link_decides_how_a_group_is_divided() -> None:
    """6 workers, 3 vCPUs a site and a head: 3 pairs cross, or 2, by what the link gives."""
    head, worker = group("head", allow_sites=("a",)), group(fewest=1, most=6)
    for mbit_s, at_b in ((100, 3), (20, 2), (19, 1), (9, 0)):
        sites = linked({"a": offer(4), "b": offer(3)}, link(mbit_s))
        given = problem([head, worker], sites, promises=(promise("worker", "head", 10),))
        assert planned(given).count("worker", "b") == at_b


def test_promises_within_a_group_count_each_pair_once() -> None:
    for mbit_s, fits in ((40, True), (39, False)):
        sites = linked({"a": offer(2), "b": offer(2)}, link(mbit_s))
        given = problem([group(fewest=4)], sites, promises=(promise("worker", "worker", 10),))
        assert (solve(given) is not None) is fits  # 2 x 2 pairs of 10


def test_pairs_take_uplink_only_between_hosts() -> None:
    pair = (promise("worker", "worker", 100),)
    together = problem([group(fewest=2)], {"a": offer(room(2, uplink_mbit_s=0))}, promises=pair)
    assert planned(together)
    for uplink, fits in ((100, True), (99, False)):
        host = room(1, uplink_mbit_s=uplink)
        apart = problem([group(fewest=2)], {"a": offer(host, host)}, promises=pair)
        assert (solve(apart) is not None) is fits


def test_sites_without_a_link_share_no_network() -> None:
    sites = {"a": offer(2), "b": offer(2)}
    assert solve(problem([group(fewest=3)], sites)) is None
    assert planned(problem([group(fewest=3, networks=())], sites))
    one_sided = {"a": offer(2, links={"b": link()}), "b": offer(2)}
    assert solve(problem([group(fewest=3)], one_sided)) is None


def test_groups_with_a_latency_bound_are_not_farther_apart() -> None:
    head, worker = group("head", allow_sites=("a",)), group(allow_sites=("b",))
    sites = linked({"a": offer(9), "b": offer(9)}, link(ms=5))
    for most_ms, fits in ((5, True), (4, False)):
        limit = LatencyLimit(
            a="head", b="worker", network="lan", most=timedelta(milliseconds=most_ms)
        )
        assert (solve(problem([head, worker], sites, limits=(limit,))) is not None) is fits


def test_a_bound_within_a_group_keeps_it_together() -> None:
    sites = linked({"a": offer(2), "b": offer(3)}, link(ms=5))
    limit = LatencyLimit(a="worker", b="worker", network="lan", most=timedelta(milliseconds=1))
    plan = planned(problem([group(fewest=2, most=9)], sites, limits=(limit,)))
    assert plan.count("worker", "b") == plan.count("worker") == 3


def test_the_longer_of_two_declared_latencies_counts() -> None:
    head, worker = group("head", allow_sites=("a",)), group(allow_sites=("b",))
    sites = {"a": offer(9, links={"b": link(ms=1)}), "b": offer(9, links={"a": link(ms=9)})}
    limit = LatencyLimit(a="head", b="worker", network="lan", most=timedelta(milliseconds=5))
    assert solve(problem([head, worker], sites, limits=(limit,))) is None


def test_it_starts_as_early_as_everything_fits_at_once() -> None:
    sites = linked(
        {"a": [offer(1), offer(2), offer(2)], "b": [offer(2), offer(1), offer(2)]}, link()
    )
    assert planned(problem([group(fewest=3)], sites)).window == window(0)
    assert planned(problem([group(fewest=4)], sites)).window == window(2)


def test_more_workspaces_come_before_an_earlier_start() -> None:
    plan = planned(problem([group(fewest=1, most=2)], {"a": [offer(1), offer(2)]}))
    assert (plan.count("worker"), plan.window) == (2, window(1))


def test_fewer_sites_come_before_less_cost() -> None:
    sites = linked({"a": offer(2, price=1), "b": offer(1, price=0)}, link())
    assert planned(problem([group(fewest=2)], sites)).site_names == ("a",)


def test_of_like_plans_the_cheaper_is_taken() -> None:
    plan = planned(
        problem([group(fewest=2)], {"a": offer(2, price=0.5), "b": offer(2, price=0.25)})
    )
    assert (plan.site_names, plan.cost) == (("b",), 0.5)


def test_what_a_site_refused_is_not_asked_again_at_that_start() -> None:
    cut = Cut(start=window(0).start, counts={("worker", "a"): 2})
    sites = linked({"a": [offer(4)] * 2, "b": [offer(1)] * 2}, link())
    plan = planned(problem([group(fewest=2)], sites, cuts=(cut,)))
    assert (plan.count("worker", "a"), plan.window) == (1, window(0))
    later = planned(problem([group(fewest=3)], sites, cuts=(cut,)))
    assert (later.count("worker", "a"), later.window) == (3, window(1))


def test_a_group_of_which_none_is_wanted_any_more_has_pairs_with_nobody() -> None:
    """As where all of it stands already, and one asks what is short beyond that."""
    none = [replace(group("head"), fewest=0, most=0), group(fewest=2)]
    pairs = (promise("worker", "head", 10),)
    assert planned(problem(none, {"a": offer(2)}, promises=pairs)).count("worker") == 2


def test_the_same_problem_gives_the_same_plan() -> None:
    sites = linked({name: offer(3, 3) for name in "abc"}, link())
    given = problem([group(fewest=7)], sites, promises=(promise("worker", "worker", 1),))
    assert solve(given) == solve(given)
