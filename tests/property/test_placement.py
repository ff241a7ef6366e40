"""Placement at the cost that large sites need decides what plain placement decides."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from intertie.broker.domain.board import Board, Room
from intertie.broker.domain.ledger import pair_mbit_s
from intertie.broker.domain.placement import place
from intertie.common.errors import NoCapacity
from intertie.common.part_spec import PairPromise, PartSpec, PartWorkspace
from intertie.common.quantities import Vector
from intertie.common.spec import BandwidthTerm
from tests.property import plain_placement
from tests.unit.broker.samples import facts, part_spec, workspace

free = st.builds(
    Vector,
    vcpus=st.integers(1, 12),
    memory_mib=st.sampled_from([200, 1024, 2048]),
    disk_mib=st.sampled_from([100, 512, 8192]),
    iops=st.sampled_from([250, 2000, 2000]),
    throughput_mib_s=st.sampled_from([20, 400, 400]),
    uplink_mbit_s=st.integers(0, 100),
)
hosts = st.tuples(
    free,
    st.sampled_from([("qemu",), ("qemu", "kvm")]),
    st.sampled_from(["", "x86_64", "aarch64"]),
    st.sampled_from([(), (), (), (), ("HTB is not there",), ("taps: no /dev/net/tun",)]),
)
groups = st.tuples(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 2),
    st.sampled_from(["", "any", "kvm"]),
    st.sampled_from([0, 0, 20]),
)


@st.composite
def problems(draw: st.DrawFn) -> tuple[PartSpec, dict[str, Room]]:
    rooms = {
        f"n{number}": Room(
            facts=facts(f"n{number}", hypervisors=kinds, architecture=of, missing=missing),
            free=there,
        )
        for number, (there, kinds, of, missing) in enumerate(
            draw(st.lists(hosts, min_size=1, max_size=4)), start=1
        )
    }
    made: list[PartWorkspace] = []
    for name, (count, vcpus, most, kind, mbit_s) in zip(
        "ab", draw(st.tuples(groups, groups)), strict=True
    ):
        made += [
            workspace(
                name,
                index,
                vcpus=vcpus,
                max_per_host=most,
                environment={"hypervisor": kind, "architecture": "x86_64"},
                nic=BandwidthTerm(guarantee_mbit_s=mbit_s),
            )
            for index in range(count)
        ]
    labels = [each.label for each in made]
    ends = st.tuples(st.sampled_from(labels), st.sampled_from(labels), st.sampled_from([5, 20, 50]))
    pairs = tuple((a, b, of) for a, b, of in draw(st.lists(ends, max_size=6)) if a != b)
    return part_spec(*made, pairs=pairs), rooms


@given(problems())
@settings(max_examples=500, deadline=None)
def test_the_same_hosts_are_chosen(problem: tuple[PartSpec, dict[str, Room]]) -> None:
    spec, rooms = problem
    plain = plain_placement.place(spec, rooms)
    try:
        found = {each.workspace: each.host for each in place(spec, rooms, site="north")}
    except NoCapacity:
        assert plain is None
    else:
        assert found == plain


def some(most: int) -> st.SearchStrategy[int]:
    """Of one dimension: mostly enough."""
    return st.one_of(st.just(9999), st.just(9999), st.integers(0, most))


tight = st.builds(
    Vector,
    vcpus=some(9),
    memory_mib=some(400),
    disk_mib=some(400),
    iops=some(300),
    throughput_mib_s=some(30),
    uplink_mbit_s=st.integers(0, 100),
)


@given(problems(), st.lists(tight, min_size=4, max_size=4), st.data())
@settings(max_examples=500, deadline=None)
def test_all_hosts_that_take_a_workspace_are_found_at_once(
    problem: tuple[PartSpec, dict[str, Room]], free: list[Vector], data: st.DataObject
) -> None:
    """With some of the others placed already, wherever they may go or not."""
    spec, rooms = problem
    rooms = {
        host: Room(facts=room.facts, free=there)
        for (host, room), there in zip(rooms.items(), free, strict=False)
    }
    *others, last = spec.workspaces
    pairs = st.dictionaries(st.sampled_from(others), st.sampled_from([5, 20, 50]))
    spec = replace(
        spec,
        networks=(
            replace(
                spec.networks[0],
                pairs=tuple(
                    PairPromise(
                        a=each.label, b=last.label, bandwidth=BandwidthTerm(guarantee_mbit_s=mbit_s)
                    )
                    for each, mbit_s in data.draw(pairs).items()
                ),
            ),
        ),
    )
    board = Board(rooms, pair_mbit_s(spec), lax_uplink=data.draw(st.booleans()))
    for each in others:
        host = data.draw(st.sampled_from([*rooms, *rooms, ""]))
        if host:
            board.put(each, host)
    assert board.fitting(last) == [host for host in rooms if board.takes(last, host)]
