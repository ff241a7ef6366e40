"""What a user may get wrong that takes the whole cluster to judge: which field is named, and with
which remedy. What is wrong in one allocation or environment is in `test_term_rules`."""

from datetime import timedelta
from typing import Any

import pytest

from intertie.common.spec import (
    BandwidthTerm,
    ClusterSpec,
    GroupPlacement,
    Kind,
    LatencyBound,
    LeaseTerms,
    Network,
    PairTerm,
    Placement,
)
from intertie.common.values import replace
from tests.unit.common.builders import (
    NOW,
    Change,
    check_refused,
    check_taken,
    group,
    in_allocation,
    in_group,
    named,
)

HOUR = timedelta(hours=1)


def with_networks(*networks: Network) -> Change:
    return lambda spec: replace(spec, networks=networks)


def in_subnet(subnet: str) -> Change:
    return with_networks(Network(name="net", subnet=subnet))


def with_lease(**fields: Any) -> Change:
    return lambda spec: replace(spec, lease=LeaseTerms(**fields))


def with_latency(*groups: str, bound: timedelta = timedelta(milliseconds=5)) -> Change:
    term = LatencyBound(groups=groups, max_latency=bound)
    return with_networks(Network(name="net", subnet="10.1.0.0/24", latency=(term,)))


def with_pairs(*pairs: PairTerm) -> Change:
    return in_allocation(pairs=pairs)


def pair(group: str, network: str = "", guarantee: int = 1, cap: int = 0) -> PairTerm:
    term = BandwidthTerm(guarantee_mbit_s=guarantee, cap_mbit_s=cap)
    return PairTerm(group=group, network=network, bandwidth=term)


def in_turn(*changes: Change) -> Change:
    def change(spec: ClusterSpec) -> ClusterSpec:
        for each in changes:
            spec = each(spec)
        return spec

    return change


def with_budget(cost: float) -> Change:
    return lambda spec: replace(spec, placement=Placement(max_cost=cost))


NET, SIDE = Network(name="net", subnet="10.1.0.0/24"), Network(name="side", subnet="10.2.0.0/24")
G1, N0, LEASE = "spec.groups[1]", "spec.networks[0]", "spec.lease"
A, E, P = f"{G1}.allocation", f"{G1}.environment", f"{G1}.placement"
KEYS = f"{E}.contextualization.ssh_authorized_keys"

WRONG: list[tuple[str, Change, str, str]] = [
    # groups
    ("no groups", lambda s: replace(s, groups=()), "spec.groups", "at least one"),
    (
        "1001 groups",
        lambda s: replace(s, groups=tuple(group(f"g{i}", 1) for i in range(1001))),
        "spec.groups",
        "at most 1000",
    ),
    (
        "10001 workspaces",
        lambda s: in_group(1, count=10_000)(in_subnet("10.0.0.0/8")(s)),
        "spec.groups",
        "at most 10000",
    ),
    ("empty name", in_group(1, name=""), f"{G1}.name", "give a name"),
    ("upper case", in_group(1, name="Worker"), f"{G1}.name", "a-z"),
    ("no label", in_group(1, name="a_b"), f"{G1}.name", "a-z"),
    ("not ASCII", in_group(1, name="wörker"), f"{G1}.name", "a-z"),
    ("64 characters", in_group(1, name="x" * 64), f"{G1}.name", "at most 63"),
    ("too long with index", in_group(1, name="x" * 62), f"{G1}.name", "63"),
    ("same name", in_group(1, name="head"), f"{G1}.name", "another name"),
    ("no count", in_group(1, count=0), f"{G1}.count", "say how many"),
    ("negative count", in_group(1, count=-1), f"{G1}.count", "from 1"),
    ("absurd count", in_group(1, count=2**31 - 1), f"{G1}.count", "10000"),
    ("count and range", in_group(1, min_count=1), f"{G1}.count", "the one or the others"),
    ("max alone", in_group(1, count=0, max_count=3), f"{G1}.min_count", "from 1"),
    ("max below min", in_group(1, count=0, min_count=3, max_count=2), f"{G1}.max_count", "from 3"),
    # pairs
    ("pair, no group", with_pairs(pair("")), f"{A}.pairs[0].group", "give a name"),
    ("pair, unknown group", with_pairs(pair("wrker")), f"{A}.pairs[0].group", "head, worker"),
    ("pair, unknown network", with_pairs(pair("worker", "no")), f"{A}.pairs[0].network", "net"),
    (
        "pair, no promise",
        with_pairs(pair("worker", guarantee=0)),
        f"{A}.pairs[0].bandwidth.guarantee_mbit_s",
        "left out",
    ),
    (
        "pair, cap below guarantee",
        with_pairs(pair("worker", guarantee=5, cap=4)),
        f"{A}.pairs[0].bandwidth.cap_mbit_s",
        "raise it",
    ),
    ("pair from both ends", with_pairs(pair("head")), f"{A}.pairs[0]", "give it once"),
    (
        "pair twice",
        with_pairs(pair("worker"), pair("worker", "net")),
        f"{A}.pairs[1]",
        "give it once",
    ),
    (
        "pair, which network",
        with_networks(NET, SIDE),
        "spec.groups[0].allocation.pairs[0].network",
        "net, side",
    ),
    (
        "pair without a common network",
        in_turn(
            with_networks(NET, SIDE),
            in_group(0, networks=("net",)),
            in_group(1, networks=("side",)),
        ),
        "spec.groups[0].allocation.pairs[0].group",
        "put it on one",
    ),
    # networks
    ("unknown network", in_group(1, networks=("nte",)), f"{G1}.networks[0]", "known: net"),
    ("network twice", in_group(1, networks=("net", "net")), f"{G1}.networks[1]", "another"),
    ("two of a name", with_networks(NET, NET), "spec.networks[1].name", "another name"),
    (
        "overlap",
        with_networks(NET, Network(name="wide", subnet="10.1.0.0/16")),
        "spec.networks[1].subnet",
        "of its own",
    ),
    ("network no label", with_networks(Network(name="A", subnet="")), f"{N0}.name", "a-z"),
    ("no subnet", in_subnet(""), f"{N0}.subnet", "10.1.0.0/24"),
    ("no subnet at all", in_subnet("ten/24"), f"{N0}.subnet", "10.1.0.0/24"),
    ("no prefix", in_subnet("10.1.0.0"), f"{N0}.subnet", "prefix length"),
    ("prefix 33", in_subnet("10.1.0.0/33"), f"{N0}.subnet", "no IPv4 subnet"),
    ("a netmask", in_subnet("10.1.0.0/255.255.0.0"), f"{N0}.subnet", "prefix length"),
    ("IPv6", in_subnet("fd00::/64"), f"{N0}.subnet", "not IPv4"),
    ("host bits", in_subnet("10.1.0.1/24"), f"{N0}.subnet", "write 10.1.0.0/24"),
    ("too large", in_subnet("0.0.0.0/0"), f"{N0}.subnet", "/8"),
    ("multicast", in_subnet("224.0.0.0/24"), f"{N0}.subnet", "multicast"),
    ("loopback", in_subnet("127.0.0.0/8"), f"{N0}.subnet", "loopback"),
    ("link-local", in_subnet("169.254.1.0/24"), f"{N0}.subnet", "link-local"),
    ("reserved", in_subnet("250.0.0.0/24"), f"{N0}.subnet", "reserved"),
    ("too small", in_subnet("10.1.0.0/29"), f"{N0}.subnet", "larger"),
    ("too small by one", in_group(1, count=246), f"{N0}.subnet", "245 workspaces"),
    # latency
    ("one group", with_latency("head"), f"{N0}.latency[0].groups", "name two"),
    ("unknown group", with_latency("head", "x"), f"{N0}.latency[0].groups[1]", "head, worker"),
    (
        "no latency at all",
        with_latency("head", "worker", bound=timedelta()),
        f"{N0}.latency[0].max_latency",
        "more than 0 s",
    ),
    (
        "latency to a group off the network",
        in_turn(
            with_latency("head", "worker"),
            lambda s: replace(s, networks=(*s.networks, SIDE)),
            in_group(0, allocation=group("x").allocation),
            in_group(1, networks=("side",)),
        ),
        f"{N0}.latency[0].groups[1]",
        "known: head",
    ),
    # lease
    (
        "start in the past",
        with_lease(start_time=NOW - timedelta(seconds=61)),
        f"{LEASE}.start_time",
        "as soon as possible",
    ),
    (
        "start too far ahead",
        with_lease(start_time=NOW + timedelta(days=367)),
        f"{LEASE}.start_time",
        "366 days",
    ),
    (
        "duration and end",
        with_lease(duration=HOUR, end_time=NOW + HOUR),
        f"{LEASE}.duration",
        "one of them",
    ),
    ("no duration", with_lease(duration=timedelta()), f"{LEASE}.duration", "more than 0 s"),
    ("negative duration", with_lease(duration=-HOUR), f"{LEASE}.duration", "more than 0 s"),
    ("absurd duration", with_lease(duration=timedelta(days=367)), f"{LEASE}.duration", "366"),
    (
        "end before start",
        with_lease(start_time=NOW + 2 * HOUR, end_time=NOW + HOUR),
        f"{LEASE}.end_time",
        "after the start",
    ),
    ("end in the past", with_lease(end_time=NOW), f"{LEASE}.end_time", "ahead"),
    (
        "end too far",
        with_lease(end_time=NOW + timedelta(days=367)),
        f"{LEASE}.end_time",
        "366 days",
    ),
    ("negative delay", with_lease(max_delay=-HOUR), f"{LEASE}.max_delay", "from 0 s"),
    ("waits, no kind", with_lease(max_wait=HOUR), f"{LEASE}.max_wait", "goes only with a kind"),
    (
        "cancellable, no kind",
        with_lease(cancellable=True),
        f"{LEASE}.cancellable",
        "goes only with a kind",
    ),
    (
        "best effort, from a start",
        with_lease(kind=Kind.BEST_EFFORT, start_time=NOW + HOUR),
        f"{LEASE}.start_time",
        "starts when there is room",
    ),
    (
        "best effort, to an end",
        with_lease(kind=Kind.BEST_EFFORT, end_time=NOW + HOUR),
        f"{LEASE}.end_time",
        "for how long it runs",
    ),
    (
        "best effort, put off",
        with_lease(kind=Kind.BEST_EFFORT, max_delay=HOUR),
        f"{LEASE}.max_delay",
        "leave it out",
    ),
    (
        "waits for years",
        with_lease(kind=Kind.BEST_EFFORT, max_wait=timedelta(days=367)),
        f"{LEASE}.max_wait",
        "366 days",
    ),
    (
        "no deadline",
        with_lease(kind=Kind.DEADLINE),
        f"{LEASE}.deadline",
        "by when it has to be done",
    ),
    (
        "a deadline, no kind",
        with_lease(deadline=NOW + 2 * HOUR),
        f"{LEASE}.deadline",
        "goes only with kind DEADLINE",
    ),
    (
        "a deadline, best effort",
        with_lease(kind=Kind.BEST_EFFORT, deadline=NOW + 2 * HOUR),
        f"{LEASE}.deadline",
        "goes only with kind DEADLINE",
    ),
    (
        "a deadline too early",
        with_lease(
            kind=Kind.DEADLINE, duration=2 * HOUR, deadline=NOW + 2 * HOUR - timedelta(seconds=1)
        ),
        f"{LEASE}.deadline",
        f"give {(NOW + 2 * HOUR).isoformat()} or later, or a shorter duration",
    ),
    (
        "a deadline next year",
        with_lease(kind=Kind.DEADLINE, deadline=NOW + timedelta(days=367)),
        f"{LEASE}.deadline",
        "366 days",
    ),
    (
        "a deadline, from a start",
        with_lease(kind=Kind.DEADLINE, deadline=NOW + 3 * HOUR, start_time=NOW + HOUR),
        f"{LEASE}.start_time",
        "does not go with DEADLINE",
    ),
    (
        "a deadline, and waits",
        with_lease(kind=Kind.DEADLINE, deadline=NOW + 3 * HOUR, max_wait=HOUR),
        f"{LEASE}.max_wait",
        "does not go with DEADLINE",
    ),
    (
        "a deadline, cancellable",
        with_lease(kind=Kind.DEADLINE, deadline=NOW + 3 * HOUR, cancellable=True),
        f"{LEASE}.cancellable",
        "does not go with DEADLINE",
    ),
    # placement
    (
        "allowed and denied",
        in_group(1, placement=GroupPlacement(allow_sites=("a", "b"), deny_sites=("b",))),
        f"{P}.deny_sites[0]",
        "allowed too",
    ),
    (
        "site no label",
        in_group(1, placement=GroupPlacement(allow_sites=("A",))),
        f"{P}.allow_sites[0]",
        "a-z",
    ),
    (
        "site twice",
        in_group(1, placement=GroupPlacement(deny_sites=("a", "a"))),
        f"{P}.deny_sites[1]",
        "there already",
    ),
    (
        "negative bound",
        in_group(1, placement=GroupPlacement(max_per_host=-1)),
        f"{P}.max_per_host",
        "from 0",
    ),
    (
        "more sites than workspaces",
        in_group(1, placement=GroupPlacement(min_sites=4)),
        f"{P}.min_sites",
        "at most 3",
    ),
    (
        "more sites than allowed",
        in_group(1, placement=GroupPlacement(min_sites=2, allow_sites=("a",))),
        f"{P}.min_sites",
        "at most 1",
    ),
    (
        "too few to a site",
        in_group(1, placement=GroupPlacement(max_per_site=1, allow_sites=("a", "b"))),
        f"{P}.max_per_site",
        "room for 2",
    ),
    (
        "negative sites",
        lambda s: replace(s, placement=Placement(max_sites=-1)),
        "spec.placement.max_sites",
        "from 0",
    ),
    *(
        (f"a budget of {cost}", with_budget(cost), "spec.placement.max_cost", "from 0")
        for cost in (-0.01, 1e9 + 1, float("inf"), float("nan"))
    ),
    (
        "a budget of what waits",
        in_turn(with_lease(kind=Kind.BEST_EFFORT), with_budget(3.0)),
        "spec.placement.max_cost",
        "or the kind",
    ),
]


@pytest.mark.parametrize(("change", "field", "remedy"), named(WRONG))
def test_is_refused(change: Change, field: str, remedy: str) -> None:
    check_refused(change, field, remedy)


RIGHT: list[tuple[str, Change]] = [
    ("as it is", lambda spec: spec),
    ("fills its subnet", in_group(1, count=244)),
    ("10000 workspaces", in_turn(in_subnet("10.0.0.0/8"), in_group(1, count=9_999))),
    ("a range", in_group(1, count=0, min_count=1, max_count=4)),
    ("no network", lambda s: in_group(0, allocation=group("x").allocation)(with_networks()(s))),
    ("start a moment ago", with_lease(start_time=NOW - timedelta(seconds=60))),
    ("a window", with_lease(start_time=NOW + HOUR, end_time=NOW + 2 * HOUR)),
    ("a deadline", with_lease(kind=Kind.DEADLINE, duration=HOUR, deadline=NOW + HOUR)),
    ("latency within a group", with_latency("worker", "worker")),
    ("pair within a group", with_pairs(pair("worker"))),
    ("two networks, named", lambda s: in_group(0, networks=("net",))(with_networks(NET, SIDE)(s))),
]


@pytest.mark.parametrize("change", named(RIGHT))
def test_is_taken_and_stays_right_when_normalised(change: Change) -> None:
    check_taken(change)
