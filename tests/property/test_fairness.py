"""Dominant-resource fairness between tenants that wait: what it promises, and no more.

Leases are whole, so nobody has exactly as much as anybody else, and nothing is said of envy. What
is promised is about turns. Shares are counted here as fractions, from the leases, and nobody asks
the plug-in what it thinks.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace as changed
from fractions import Fraction

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from intertie.common.leasing.backfilling import Aggressive, Backfilling, Conservative
from intertie.common.leasing.fairness import DominantResource, InUse
from intertie.common.leasing.free_nodes import FreeNodes, OnNodes
from intertie.common.leasing.lease import Lease
from intertie.common.leasing.order import FirstCome, MostHeldUp, Order, ShortestFirst
from intertie.common.leasing.requests import BestEffort
from intertie.common.quantities import Vector

NOW = 100_000
PATIENCE_S = 64
"""A power of two, as are the capacities: shares and waits are exact, so ties are ties."""
CAPACITY = Vector(vcpus=16, memory_mib=64, disk_mib=32)
FAIR = DominantResource(patience_s=PATIENCE_S)
ORDERS: list[Order] = [FirstCome(), ShortestFirst(), MostHeldUp()]

vectors = st.builds(
    Vector,
    vcpus=st.integers(0, 16),
    memory_mib=st.integers(0, 64),
    disk_mib=st.integers(0, 32),
)
usage = st.dictionaries(st.sampled_from("abc"), vectors)


@st.composite
def waiting(draw: st.DrawFn, *, at_once: bool = False) -> list[Lease]:
    """No two come at the same moment, unless all do."""
    count = draw(st.integers(0, 12))
    waits = draw(
        st.lists(st.integers(0, 3 * PATIENCE_S), min_size=count, max_size=count, unique=True)
    )
    return [
        Lease(
            request=BestEffort(
                name=f"l{number:02}",
                nodes=1,
                duration_s=draw(st.integers(1, 100)),
                tenant=draw(st.sampled_from("abc")),
                takes=draw(vectors),
            ),
            submit_s=NOW - (0 if at_once else wait),
        )
        for number, wait in enumerate(waits)
    ]


def line(leases: list[Lease], has: dict[str, Vector], order: Order = ORDERS[0]) -> list[Lease]:
    in_use = InUse(capacity=CAPACITY, by_tenant=has)
    return FAIR.line(leases, lambda each: order.rank(each, NOW), NOW, in_use)


def share(amounts: Vector) -> Fraction:
    have = dict(CAPACITY.items())
    return max(Fraction(amount, have[name]) for name, amount in amounts.items() if have[name])


def shares_before(found: list[Lease], has: dict[str, Vector]) -> list[dict[str, Fraction]]:
    """What each tenant has when each of the line has its turn."""
    counted = defaultdict(Vector, has)
    shares = []
    for lease in found:
        shares.append({tenant: share(counted[tenant]) for tenant in "abc"})
        counted[lease.request.tenant] += lease.request.takes
    return shares


@given(waiting(), usage, st.sampled_from(ORDERS), st.randoms())
def test_all_are_in_line_in_their_tenants_order_however_they_were_given(
    leases: list[Lease], has: dict[str, Vector], order: Order, chance: object
) -> None:
    found = line(leases, has, order)
    assert sorted(each.request.name for each in found) == [each.request.name for each in leases]
    for tenant in "abc":
        own = [each for each in found if each.request.tenant == tenant]
        assert own == sorted(own, key=lambda each: (order.rank(each, NOW), each.submit_s))
    shuffled = list(leases)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert line(shuffled, has, order) == found


@given(waiting(at_once=True), usage)
def test_of_those_that_came_together_the_tenant_that_has_least_is_next(
    leases: list[Lease], has: dict[str, Vector]
) -> None:
    """So nobody with leases left is behind another by more than that one's last lease."""
    found = line(leases, has)
    for turn, shares in enumerate(shares_before(found, has)):
        left = {each.request.tenant for each in found[turn:]}
        least = min(min(shares[tenant], Fraction(1)) for tenant in left)
        assert min(shares[found[turn].request.tenant], Fraction(1)) == least


@given(waiting(), usage)
def test_who_has_waited_longer_by_patience_goes_first_whatever_anybody_has(
    leases: list[Lease], has: dict[str, Vector]
) -> None:
    found = line(leases, has)
    for place, lease in enumerate(found):
        for before in found[:place]:
            assert before.submit_s <= lease.submit_s + PATIENCE_S


@given(waiting(), usage, st.data())
def test_to_have_waited_longer_never_makes_a_lease_later(
    leases: list[Lease], has: dict[str, Vector], data: st.DataObject
) -> None:
    assume(leases)
    which = data.draw(st.integers(0, len(leases) - 1))
    earlier_s = data.draw(st.integers(1, 2 * PATIENCE_S))
    older = list(leases)
    older[which] = changed(leases[which], submit_s=leases[which].submit_s - earlier_s)

    def place(among: list[Lease]) -> int:
        return [each.request.name for each in line(among, has)].index(leases[which].request.name)

    assert place(older) <= place(leases)


@given(waiting(), usage, st.data())
def test_to_have_more_never_makes_another_tenants_lease_later(
    leases: list[Lease], has: dict[str, Vector], data: st.DataObject
) -> None:
    """What one tenant has, or has picked for it, only ever helps others."""
    more = {**has, "a": has.get("a", Vector()) + data.draw(vectors)}
    others = [each.request.name for each in leases if each.request.tenant != "a"]

    def places(found: list[Lease]) -> dict[str, int]:
        return {each.request.name: at for at, each in enumerate(found)}

    before, after = places(line(leases, has)), places(line(leases, more))
    assert all(after[name] <= before[name] for name in others)


NODES, LONGEST_S = 4, 6


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, NODES), st.integers(1, LONGEST_S)), min_size=1, max_size=8),
    st.integers(0, 12),
    st.integers(1, NODES),
    st.sampled_from([Aggressive(), Conservative()]),
)
def test_whoever_fits_an_empty_site_begins_within_a_bound_whatever_others_ask_for(
    flood: list[tuple[int, int]], every_s: int, wide: int, backfilling: Backfilling
) -> None:
    """A tenant that has much already asks for a lease, others go on asking for ever. Before it are
    at most those that came up to `patience_s` after it, one after another."""
    fair = DominantResource(patience_s=10)
    asked = Lease(request=_request("wide", wide, LONGEST_S, "much"), submit_s=0)
    line_up, number, now = [asked], 0, 0
    running: dict[Lease, int] = {}
    bound: int | None = None
    while asked in line_up:
        for nodes, duration_s in flood if now % (every_s + 1) == 0 else ():
            number += 1
            request = _request(f"f{number:04}", nodes, duration_s, f"t{number % 3}")
            line_up.append(Lease(request=request, submit_s=now))
        if now == fair.patience_s:
            bound = now + (len(line_up) + 1) * LONGEST_S
        assert bound is None or now <= bound
        running = {lease: end for lease, end in running.items() if end > now}
        has = {"much": Vector(vcpus=10 * NODES)}
        for lease in running:
            tenant = lease.request.tenant
            has[tenant] = has.get(tenant, Vector()) + lease.request.takes
        in_use = InUse(capacity=Vector(vcpus=NODES), by_tenant=has)
        order = fair.line(line_up, lambda each: each.submit_s, now, in_use)
        spans = [(0, end, lease.nodes) for lease, end in running.items()]
        for lease in backfilling.starts(
            order,
            OnNodes(FreeNodes(now, NODES, spans)),
            OnNodes(FreeNodes(now, NODES, spans)),
            lambda each: each.request.duration_s,
            lambda each: each.request.duration_s,
            now,
        ):
            line_up.remove(lease)
            running[lease] = now + lease.request.duration_s
        now += 1


def _request(name: str, nodes: int, duration_s: int, tenant: str) -> BestEffort:
    takes = Vector(vcpus=nodes)
    return BestEffort(name=name, nodes=nodes, duration_s=duration_s, tenant=tenant, takes=takes)
