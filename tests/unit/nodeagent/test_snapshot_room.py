"""The host's pool is its guests' first, then that of memories that are put aside."""

from __future__ import annotations

import pytest

from intertie.common.actions import Power, Switched
from intertie.common.values import replace
from intertie.nodeagent.domain.domain_xml import MIB
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.reconcile import DomainState
from intertie.nodeagent.domain.snapshot_note import SnapshotState
from tests.unit.nodeagent.parts import A_UID, NOW, WORKSPACE
from tests.unit.nodeagent.test_snapshots import DOMAIN, ORDER, Owner, owner

__all__ = ["owner"]

B_UID = "bbbbbbbbbbbb"
OTHER = f"it-{B_UID}"
NEIGHBOUR = replace(WORKSPACE, name="b-0", uid=B_UID, nics=())
MEMORY_MIB = WORKSPACE.allocation.memory_mib


@pytest.fixture
async def two(owner: Owner) -> Owner:
    owner.others = (NEIGHBOUR,)
    await owner.wants()
    assert owner.host.hypervisor.domains[OTHER] is DomainState.RUNNING
    return owner


@pytest.mark.parametrize("lacks_mib", [0, 1])
async def test_a_memory_has_room_beside_what_a_copy_has_yet_to_write(
    two: Owner, lacks_mib: int
) -> None:
    host = two.host
    host.hypervisor.may_copy.clear()
    host.copies.needed, host.copies.written = 64 * MIB, 24 * MIB
    await two.wants(snapshot=ORDER)
    assert two.state() is SnapshotState.COPYING
    host.storage.room = MEMORY_MIB + 256 + 40 - lacks_mib
    two.others = (replace(NEIGHBOUR, switched=Switched(power=Power.SAVED)),)
    await two.wants()
    assert (host.hypervisor.domains[OTHER] is DomainState.RUNNING) == bool(lacks_mib)


@pytest.mark.parametrize("lacks_mib", [0, 1])
async def test_a_copy_leaves_what_disks_were_promised_and_have_not_written(
    owner: Owner, lacks_mib: int
) -> None:
    host = owner.host
    host.storage.owed = 500
    host.storage.room = 64 + 256 + 500 - lacks_mib
    await owner.wants(snapshot=ORDER)
    assert (owner.state() is SnapshotState.FAILED) == bool(lacks_mib)
    assert ("820 needed" in owner.told.message) == bool(lacks_mib)


@pytest.mark.parametrize("whole", [True, False])
async def test_a_copy_goes_where_another_guest_waits_for_room_and_is_made_anew(
    two: Owner, *, whole: bool
) -> None:
    host = two.host
    if whole:
        host.copies.refuses = HostFailure("image store: UNAVAILABLE")
    else:
        host.hypervisor.may_copy.clear()
    await two.wants(snapshot=ORDER)
    assert host.copies.files == {A_UID: whole}
    discard = host.copies.discard

    def gives_room(uid: str) -> None:
        discard(uid)
        host.storage.room = 600

    host.copies.discard = gives_room  # type: ignore[method-assign]
    host.storage.room = 10
    host.hypervisor.domains[OTHER] = DomainState.STALLED
    await two.passes(1)
    assert host.copies.files == {}
    assert host.hypervisor.jobs == {}
    assert two.state() is SnapshotState.WAITING
    assert "waits for room" in two.told.message
    assert two.told.taken_time is None
    host.copies.refuses = None
    host.hypervisor.may_copy.set()
    await host.clock.advance(60)
    await two.passes()
    assert host.hypervisor.domains[OTHER] is DomainState.RUNNING
    assert two.state() is SnapshotState.READY
    assert two.told.taken_time is not None
    assert two.told.taken_time > NOW


async def test_none_is_begun_while_a_guest_waits_for_room(two: Owner) -> None:
    two.host.storage.room = 10
    two.host.hypervisor.domains[OTHER] = DomainState.STALLED
    await two.wants(snapshot=ORDER)
    assert two.state() is SnapshotState.WAITING


async def test_one_that_waits_for_something_else_costs_no_copy(two: Owner) -> None:
    two.host.copies.may_send.clear()
    await two.wants(snapshot=ORDER)
    two.host.hypervisor.domains[OTHER] = DomainState.STALLED
    await two.passes(1)
    assert two.state() is SnapshotState.UPLOADING
    assert two.host.hypervisor.domains[DOMAIN] is DomainState.RUNNING


async def test_one_that_waits_for_its_turn_is_not_begun_either(two: Owner) -> None:
    host = two.host
    host.hypervisor.may_copy.clear()
    await two.wants(snapshot=ORDER)
    two.others = (replace(NEIGHBOUR, snapshot=replace(ORDER, id="s2", image_id="other")),)
    await two.wants()
    host.storage.room = 10
    host.hypervisor.domains[DOMAIN] = DomainState.STALLED
    await two.passes()
    assert host.copies.files == {}
    assert host.agent.report is not None
    for seen in host.agent.report[0].workspaces:
        assert seen.snapshot is not None
        assert seen.snapshot.state is SnapshotState.WAITING
