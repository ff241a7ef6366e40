"""Which workspace goes where, and why it does not fit."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intertie.broker.domain.amounts import amounts_of
from intertie.broker.domain.board import Room
from intertie.broker.domain.placement import place
from intertie.common.errors import NoCapacity, Shortfall
from intertie.common.part_spec import PartSpec, PartWorkspace
from intertie.common.quantities import Vector
from intertie.common.spec import BandwidthTerm
from tests.unit.broker.samples import WHOLE, facts, part_spec, workspace


def rooms(*free: Vector) -> dict[str, Room]:
    return {
        f"n{number}": Room(facts=facts(f"n{number}"), free=each)
        for number, each in enumerate(free, start=1)
    }


def hosts_of(spec: PartSpec, given_rooms: Mapping[str, Room]) -> dict[str, str]:
    return {each.workspace: each.host for each in place(spec, given_rooms, site="north")}


def short(spec: PartSpec, given_rooms: Mapping[str, Room]) -> tuple[Shortfall, ...]:
    with pytest.raises(NoCapacity) as refused:
        place(spec, given_rooms, site="north")
    return refused.value.shortfalls


def workers(count: int, **changes: object) -> tuple[PartWorkspace, ...]:
    return tuple(workspace("w", index, **changes) for index in range(count))


def test_a_group_is_spread() -> None:
    found = hosts_of(part_spec(*workers(4)), rooms(WHOLE, WHOLE))
    assert sorted(found.values()) == ["n1", "n1", "n2", "n2"]


def test_what_spreading_would_waste_is_filled() -> None:
    """Spread, the two small ones would leave no host with room for the large one."""
    spec = part_spec(workspace("s", 0), workspace("s", 1), workspace("l", 0, vcpus=4))
    found = hosts_of(spec, rooms(WHOLE, WHOLE))
    assert found["s-0"] == found["s-1"] != found["l-0"]


def test_what_is_greedy_to_a_fault_is_found_by_search() -> None:
    """Largest first, 3 and 3 go apart, and then 2, 2, 2 do not fit into 4 and 2."""
    sizes = {"a": 3, "b": 3, "c": 2, "d": 2, "e": 2}
    spec = part_spec(*(workspace(name, 0, vcpus=size) for name, size in sizes.items()))
    six = Vector(
        vcpus=6, memory_mib=9999, disk_mib=9999, iops=9999, throughput_mib_s=9999, uplink_mbit_s=1
    )
    found = hosts_of(spec, rooms(six, six))
    assert found["a-0"] == found["b-0"] != found["c-0"] == found["d-0"] == found["e-0"]


def test_pairs_come_together_when_the_uplink_has_no_room() -> None:
    spec = part_spec(*workers(2), pairs=(("w-0", "w-1", 500),))
    found = hosts_of(spec, rooms(WHOLE, WHOLE))
    assert found["w-0"] == found["w-1"]


def test_a_pair_with_another_site_always_takes_uplink() -> None:
    spec = part_spec(workspace(), pairs=(("w-0", "v-0", 500),), remote=("v-0",))
    [found] = short(spec, rooms(WHOLE))
    assert (found.resource, found.wanted, found.available) == ("uplink", 500, 400)


def test_at_most_so_many_a_host() -> None:
    found = hosts_of(part_spec(*workers(2, max_per_host=1)), rooms(WHOLE, WHOLE))
    assert set(found.values()) == {"n1", "n2"}
    [refused] = short(part_spec(*workers(3, max_per_host=1)), rooms(WHOLE, WHOLE))
    assert (refused.resource, refused.wanted, refused.available) == ("hosts", 3, 2)


def test_a_hypervisor_that_no_host_has() -> None:
    spec = part_spec(workspace(environment={"hypervisor": "kvm"}))
    [refused] = short(spec, rooms(WHOLE))
    assert refused.resource == "policy"
    assert "kvm" in refused.message


def test_no_promise_where_it_cannot_be_enforced() -> None:
    lame = {
        "n1": Room(
            facts=facts("n1", missing=("HTB is not there: bandwidth is not guaranteed",)),
            free=WHOLE,
        )
    }
    assert hosts_of(part_spec(*workers(2)), lame)
    nic = BandwidthTerm(guarantee_mbit_s=1)
    for spec in (
        part_spec(workspace(nic=nic)),
        part_spec(*workers(2), pairs=(("w-0", "w-1", 1),)),
    ):
        [refused] = short(spec, lame)
        assert refused.resource == "policy"
        assert "HTB is not there" in refused.message


def test_no_host_is_alive() -> None:
    [refused] = short(part_spec(workspace()), {})
    assert refused.resource == "hosts"


def test_one_that_no_host_can_take_says_the_largest_room() -> None:
    less = WHOLE - Vector(vcpus=1, memory_mib=1024)
    [refused] = short(part_spec(workspace(memory_mib=3000)), rooms(less, WHOLE))
    assert (refused.resource, refused.wanted, refused.available) == ("memory", 3000, 2048)
    assert "largest free on one host is 2048 MiB" in refused.message


def test_all_together_are_too_many() -> None:
    [refused] = short(part_spec(*workers(9)), rooms(WHOLE, WHOLE))
    assert (refused.resource, refused.wanted, refused.available) == ("vcpus", 9, 8)


def test_each_fits_and_so_does_the_sum_but_they_do_not_pack() -> None:
    spec = part_spec(*(workspace(name, 0, vcpus=3) for name in "ab"), workspace("c", 0, vcpus=2))
    [refused] = short(spec, rooms(WHOLE, WHOLE))
    assert (refused.resource, refused.group) == ("vcpus", "c")
    assert (refused.wanted, refused.available) == (2, 1)


def test_what_is_short_is_looked_for_where_the_bound_leaves_a_place() -> None:
    """A bug: with room left on a host that had its one worker already, nothing was said to be
    short at all."""
    spec = part_spec(workspace("a", 0, vcpus=4), *workers(2, max_per_host=1))
    [refused] = short(spec, rooms(WHOLE, WHOLE))
    assert (refused.resource, refused.group) == ("vcpus", "w")
    assert (refused.wanted, refused.available) == (1, 0)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(64, 1500)), min_size=1, max_size=8),
    nic=st.integers(0, 120),
    pairs=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(1, 200))),
    bound=st.integers(0, 3),
)
def test_whatever_is_placed_no_host_is_overfull(
    sizes: list[tuple[int, int]], nic: int, pairs: list[tuple[int, int, int]], bound: int
) -> None:
    spec = part_spec(
        *(
            workspace(
                "w",
                index,
                vcpus=vcpus,
                memory_mib=memory,
                max_per_host=bound,
                nic=BandwidthTerm(guarantee_mbit_s=nic),
            )
            for index, (vcpus, memory) in enumerate(sizes)
        ),
        pairs=tuple(
            (f"w-{a}", f"w-{b}", mbit_s)
            for a, b, mbit_s in pairs
            if a != b and max(a, b) < len(sizes)
        ),
    )
    try:
        found = hosts_of(spec, rooms(WHOLE, WHOLE, WHOLE))
    except NoCapacity as refused:
        found_short = refused.shortfalls
        assert found_short
        return
    use = amounts_of(spec, found, "")
    for host in ("n1", "n2", "n3"):
        for name, most in WHOLE.items():
            assert use.get(f"host/{host}/{name}", 0) <= most
        assert not bound or list(found.values()).count(host) <= bound


def test_hosts_that_could_run_one_more_and_may_not_are_named_as_what_is_short() -> None:
    """A bug: where only some hosts can promise bandwidth, and those had as many of the group as
    may be on one, the refusal itself failed."""
    spec = part_spec(
        *workers(3, max_per_host=1),
        pairs=(("w-1", "v-0", 5), ("w-2", "v-0", 5)),
        remote=("v-0",),
    )
    able = rooms(WHOLE, WHOLE, WHOLE)
    for host in ("n1", "n3"):
        able[host] = Room(facts=facts(host, missing=("HTB is not there",)), free=WHOLE)
    [refused] = short(spec, able)
    assert (refused.resource, refused.group, refused.available) == ("hosts", "w", 0)
    assert "w-2 has 1 of w already" in refused.message


def test_a_host_that_shrank_under_what_it_had_keeps_nobody_from_the_others() -> None:
    """A bug: nothing at all was placed at a site as long as one of its hosts had less than was
    promised of it."""
    shrunk = Vector(vcpus=-2, memory_mib=2048, disk_mib=8192, iops=2000, throughput_mib_s=400)
    found = hosts_of(part_spec(*workers(2)), rooms(shrunk, WHOLE))
    assert set(found.values()) == {"n2"}
