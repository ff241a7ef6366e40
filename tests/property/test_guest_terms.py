"""Whatever a guest has and is to have: after all that is said to be lacking, nothing is."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from intertie.common.terms import Allocation, DiskTerm
from intertie.common.values import replace
from intertie.nodeagent.domain.guest_terms import (
    MEMORY_BLOCK_MIB,
    Change,
    Lacking,
    Running,
    lacking,
    terms_of,
)
from tests.unit.nodeagent.memory_hypervisor import changed

few = st.integers(min_value=1, max_value=300)
caps = st.integers(min_value=0, max_value=3)
"""Few of them, so that many are the same."""
blocks = st.integers(min_value=0, max_value=8).map(lambda number: number * MEMORY_BLOCK_MIB)
memories = few | blocks.map(lambda mib: mib + MEMORY_BLOCK_MIB)
"""Whole blocks as often as others."""
allocations = st.builds(
    Allocation,
    vcpus=few,
    memory_mib=memories,
    disk_mib=few,
    disk=st.builds(DiskTerm, cap_iops=caps, cap_mib_s=caps, guarantee_iops=caps),
)


@st.composite
def guests(draw: st.DrawFn, *, cgroups: bool = True) -> Running:
    """Started with some allocation, and grown by some modules since; some may get vCPUs."""
    terms = terms_of(draw(allocations), cgroups=cgroups)
    modules = tuple(draw(st.lists(blocks.filter(bool), max_size=4)))
    room_mib = draw(st.just(0) | blocks)
    has_mib = terms.memory_mib + sum(modules)
    return Running(
        terms=replace(terms, memory_mib=has_mib),
        most_memory_mib=has_mib + room_mib,
        modules=modules,
        most_vcpus=draw(st.just(0) | few),
        stands_still=draw(st.booleans()),
        limit_off=draw(st.booleans()),
    )


def all_done(guest: Running, changes: list[Change]) -> Running:
    for change in changes:
        guest = changed(guest, change)
    return guest


@given(st.booleans(), st.data(), allocations, st.randoms())
def test_after_all_changes_in_any_order_only_what_waits_is_lacking(
    cgroups: bool, data: st.DataObject, new: Allocation, order: Random
) -> None:
    running, wanted = data.draw(guests(cgroups=cgroups)), terms_of(new, cgroups=cgroups)
    found = lacking(running, wanted)
    changes = list(found.changes)
    order.shuffle(changes)
    after = all_done(running, changes)
    left = lacking(after, wanted)
    assert (left.changes, left.waits) == ((), found.waits)
    assert bool(left.left_to_guest) is (after.idle_vcpus > 0)

    # All that is not as wanted is said to wait, and each thing once.
    has = after.terms
    waiting = [has.vcpus != wanted.vcpus, has.memory_mib != wanted.memory_mib]
    waiting.append(has.disk_mib > wanted.disk_mib)
    assert len(found.waits) == sum(waiting)
    if not found.waits:
        assert has == wanted


@given(guests(), allocations)
def test_nothing_is_asked_for_that_a_hypervisor_refuses(running: Running, new: Allocation) -> None:
    """`changed` raises for a smaller disk, or a module too many."""
    all_done(running, list(lacking(running, terms_of(new, cgroups=True)).changes))


@given(guests(), allocations)
def test_a_guest_that_is_as_wanted_is_left_alone(running: Running, new: Allocation) -> None:
    wanted = terms_of(new, cgroups=True)
    there = replace(running, terms=wanted, limit_off=False, stands_still=False)
    assert lacking(there, wanted) == Lacking()


@given(guests(), allocations)
def test_nobody_gets_more_processor_time_than_the_vcpus_that_it_is_to_have(
    running: Running, new: Allocation
) -> None:
    has = all_done(running, list(lacking(running, terms_of(new, cgroups=True)).changes)).terms
    assert has.cpu_quota_us is not None
    # The kernel takes no quota below 1 ms: beyond a hundredth of what it had there is no going.
    assert has.cpu_quota_us * has.vcpus <= max(100_000 * new.vcpus, 1000 * has.vcpus)
