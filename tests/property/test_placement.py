"""What placement finds for all hosts at once is what it means of each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intertie.broker.domain import placement
from intertie.broker.domain.amounts import fixed_amounts, pair_mbit_s
from intertie.broker.domain.board import Board, Room, best_fit, largest_first, sum_free
from intertie.broker.domain.placement import Preference
from intertie.common.part_spec import PairPromise, PartSpec, PartWorkspace
from intertie.common.quantities import Vector
from intertie.common.spec import BandwidthTerm
from intertie.common.values import replace
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


@st.composite
def boards(draw: st.DrawFn) -> tuple[Board, PartWorkspace]:
    """With one workspace to be placed still, and some of the others wherever they may go or not."""
    spec, rooms = draw(problems())
    free = draw(st.lists(tight, min_size=len(rooms), max_size=len(rooms)))
    rooms = {
        host: Room(facts=room.facts, free=there)
        for (host, room), there in zip(rooms.items(), free, strict=True)
    }
    *others, last = spec.workspaces
    promised = st.dictionaries(st.sampled_from(others), st.sampled_from([5, 20, 50]))
    pairs = tuple(
        PairPromise(a=each.label, b=last.label, bandwidth=BandwidthTerm(guarantee_mbit_s=mbit_s))
        for each, mbit_s in draw(promised).items()
    )
    spec = replace(spec, networks=(replace(spec.networks[0], pairs=pairs),))
    board = Board(rooms, pair_mbit_s(spec), lax_uplink=draw(st.booleans()))
    for each in others:
        host = draw(st.sampled_from([*rooms, *rooms, ""]))
        if host:
            board.put(each, host)
    return board, last


def takes(board: Board, workspace: PartWorkspace, host: str) -> bool:
    left = board.after(workspace, host)
    if board.lax_uplink:
        left = replace(left, uplink_mbit_s=0)
    return (
        not board.refused(workspace, host) and not board.full(workspace, host) and Vector() <= left
    )


@given(boards())
@settings(max_examples=500, deadline=None)
def test_all_hosts_that_take_a_workspace_are_found_at_once(
    drawn: tuple[Board, PartWorkspace],
) -> None:
    board, last = drawn
    assert board.fitting(last) == [host for host in board.rooms if takes(board, last, host)]


def share(board: Board, workspace: PartWorkspace, host: str) -> float:
    """What is left of a host, as shares of the roomiest."""
    left = dict(board.after(workspace, host).items())
    most = [dict(room.free.items()) for room in board.rooms.values()]
    return sum(
        left[each] / max(1, *(free[each] for free in most))
        for each in ("vcpus", "memory_mib", "disk_mib")
    )


def near(board: Board, workspace: PartWorkspace, host: str) -> int:
    towards = board.pairs[workspace.label]
    return sum(mbit_s for other, mbit_s in towards.items() if board.host_of.get(other) == host)


PLAIN: dict[Preference, Callable[[Board, PartWorkspace, str], tuple[object, ...]]] = {
    best_fit: lambda board, last, host: (share(board, last, host), host),
    placement._balance: lambda board, last, host: (-share(board, last, host), host),
    placement._spread: lambda board, last, host: (
        board.of_group.get((last.group, host), 0),
        share(board, last, host),
        host,
    ),
    placement._bring_together: lambda board, last, host: (
        -near(board, last, host),
        share(board, last, host),
        host,
    ),
}
"""What each preference means, said of one host at a time."""


@pytest.mark.parametrize("preference", PLAIN)
@given(drawn=boards())
@settings(max_examples=300, deadline=None)
def test_the_host_that_is_preferred_is_the_first_of_all(
    preference: Preference, drawn: tuple[Board, PartWorkspace]
) -> None:
    board, last = drawn
    hosts = list(board.rooms)
    wanted = min(hosts, key=lambda host: PLAIN[preference](board, last, host))
    assert preference(board, last, hosts) == wanted


@given(problems())
@settings(max_examples=300, deadline=None)
def test_order_is_by_the_largest_share_of_the_site(
    problem: tuple[PartSpec, dict[str, Room]],
) -> None:
    spec, rooms = problem
    totals = dict(sum_free(rooms).items())

    def largest(each: PartWorkspace) -> float:
        amounts = fixed_amounts(each).items()
        return max(amount / max(totals[name], 1) for name, amount in amounts)

    wanted = sorted(spec.workspaces, key=lambda each: -largest(each))
    assert largest_first(spec.workspaces, rooms) == wanted
