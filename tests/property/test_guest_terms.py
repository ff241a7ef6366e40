"""Whatever a guest has and is to have: after all that is said to be lacking, nothing is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from intertie.common.terms import Allocation, DiskTerm
from intertie.common.values import replace
from intertie.nodeagent.domain.guest_terms import (
    CapDisk,
    Change,
    GrowDisk,
    GuestTerms,
    Lacking,
    WeighCpu,
    lacking,
    terms_of,
)

few = st.integers(min_value=1, max_value=300)
caps = st.integers(min_value=0, max_value=3)
"""Few of them, so that many are the same."""
allocations = st.builds(
    Allocation,
    vcpus=few,
    memory_mib=few,
    disk_mib=few,
    disk=st.builds(DiskTerm, cap_iops=caps, cap_mib_s=caps, guarantee_iops=caps),
)


def after(terms: GuestTerms, change: Change) -> GuestTerms:
    """What a hypervisor makes of it."""
    match change:
        case CapDisk():
            return replace(terms, cap_iops=change.iops, cap_mib_s=change.mib_s)
        case GrowDisk():
            assert change.mib > terms.disk_mib, "no disk is cut"
            return replace(terms, disk_mib=change.mib)
        case WeighCpu():
            return replace(terms, cpu_shares=change.shares, cpu_quota_us=change.quota_us)


@given(allocations, allocations, st.booleans(), st.randoms())
def test_after_all_changes_in_any_order_only_what_waits_is_lacking(
    old: Allocation, new: Allocation, cgroups: bool, order: object
) -> None:
    running, wanted = (terms_of(each, cgroups=cgroups) for each in (old, new))
    found = lacking(running, wanted)
    changes = list(found.changes)
    order.shuffle(changes)  # type: ignore[attr-defined]
    for change in changes:
        running = after(running, change)
    assert lacking(running, wanted) == Lacking(waits=found.waits)

    # What waits is all that a start has to bring, and a start brings it.
    started = replace(wanted, disk_mib=max(running.disk_mib, wanted.disk_mib))
    brought = {"vcpus", "memory_mib", "cpu_quota_us"}
    assert all(
        getattr(running, field) == getattr(started, field)
        for field in GuestTerms.__dataclass_fields__
        if field not in brought
    )
    if not found.waits:
        assert running == wanted


@given(allocations, allocations)
def test_nobody_gets_more_processor_time_than_the_vcpus_that_it_is_to_have(
    old: Allocation, new: Allocation
) -> None:
    running, wanted = (terms_of(each, cgroups=True) for each in (old, new))
    for change in lacking(running, wanted).changes:
        running = after(running, change)
    assert running.cpu_quota_us is not None
    # The kernel takes no quota below 1 ms: beyond a hundredth of what it had there is no going.
    assert running.cpu_quota_us * running.vcpus <= max(100_000 * new.vcpus, 1000 * running.vcpus)
