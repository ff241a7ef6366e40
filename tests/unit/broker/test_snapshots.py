"""Images of disks: what is asked for, what hosts are told of it, and what becomes of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from intertie.api.imagestore.v1 import images_pb2
from intertie.api.types.v1 import snapshot_pb2
from intertie.broker.adapters.grants import SignedGrants
from intertie.broker.domain.acting import MOST_SNAPSHOTS, acted
from intertie.broker.domain.cluster import workspaces_of
from intertie.broker.domain.fleet import SeenPart, SeenSnapshot, SeenWorkspace, WorkspaceState
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.reconcile import End, Tell, step_of
from intertie.broker.domain.snapshots import begun, grant_of, settled
from intertie.broker.domain.wanted import SnapshotOrder, wanted_of
from intertie.common.actions import Action
from intertie.common.errors import ActionIllegal, FieldInvalid
from intertie.common.etcd.records import decode, encode
from intertie.common.rpc.identity import Identities
from intertie.common.rpc.signing import verify
from intertie.common.rpc.snapshot_proto import (
    image_asked_for,
    snapshot_fields,
    snapshot_from_proto,
)
from intertie.common.snapshot import GRANT_LASTS, Snapshot, SnapshotState
from intertie.common.values import replace
from tests.unit.broker.samples import NOW, POLICY, part, part_spec, workspace
from tests.unit.broker.test_acting import RUN, standing
from tests.unit.broker.test_quotas import FLEET
from tests.unit.common_rpc import authority

ALICE = "spiffe://north.site.intertie/tenant/demo/user/alice"


def asked(made: Part) -> Part:
    grant = grant_of(made, "w-0", "before", ALICE, now=NOW)
    return begun(made, grant, "s1", b"signed")


def told(made: Part, state: SnapshotState, snapshot_id: str = "s1", **more: Any) -> Any:
    shown = Snapshot(image="", state=state, **more)
    one = SeenWorkspace(name="w-0", state=RUN, snapshot=SeenSnapshot(id=snapshot_id, shown=shown))
    return {"n1": SeenPart(host="n1", part_uid=made.uid, generation=1, workspaces=(one,))}


def shown(made: Part, seen: Any) -> Snapshot | None:
    return workspaces_of(made, seen)[0].snapshot


def test_only_the_host_of_the_workspace_is_told() -> None:
    made = part(
        spec=part_spec(workspace("w", 0), workspace("w", 1)),
        placed=(Placed(workspace="w-0", host="n1"), Placed(workspace="w-1", host="n2")),
    )
    wanted = wanted_of(asked(made), FLEET, POLICY, gone=False)
    found = {each.name: each.snapshot for host in wanted.values() for each in host.workspaces}
    assert found == {
        "w-0": SnapshotOrder(id="s1", image_id="before", grant=b"signed"),
        "w-1": None,
    }


def test_it_is_written_down_as_it_is() -> None:
    made, _ = standing(RUN)
    assert decode(Part, encode(asked(made))) == asked(made)


def test_what_its_host_says_is_shown_until_it_is_over_and_then_on_record() -> None:
    made, seen = standing(RUN)
    assert shown(made, seen) is None
    made = asked(made)
    image = f"sites/{made.path.site}/tenants/{made.path.tenant}/images/before"
    assert shown(made, seen) == Snapshot(image=image)
    at_work = told(made, SnapshotState.UPLOADING, done_bytes=3, total_bytes=9)
    assert shown(made, at_work) == Snapshot(
        image=image, state=SnapshotState.UPLOADING, done_bytes=3, total_bytes=9
    )
    assert settled(made, at_work) == made
    assert shown(made, told(made, SnapshotState.READY, "older")) == Snapshot(image=image)
    done = settled(made, told(made, SnapshotState.READY, digest="b3:x"))
    assert shown(done, {}) == Snapshot(image=image, state=SnapshotState.READY, digest="b3:x")
    assert done.snapshots[0].grant == b"", "nobody may use it any more"
    order = wanted_of(done, FLEET, POLICY, gone=False)["n1"].workspaces[0].snapshot
    assert order is None


def test_a_pass_puts_it_on_record_and_tells_the_host_that_it_is() -> None:
    made, _ = standing(RUN)
    first = step_of(asked(made), {}, {}, FLEET, POLICY, now=NOW)
    assert isinstance(first, Tell)
    hosts = {"n1": first.part.generation}
    seen = told(made, SnapshotState.FAILED, message="no room")
    second = step_of(first.part, hosts, seen, FLEET, POLICY, now=NOW)
    assert isinstance(second, Tell)
    assert second.part.snapshots[0].shown.message == "no room"
    assert second.wanted["n1"].workspaces[0].snapshot is None
    again = step_of(second.part, {"n1": second.part.generation}, seen, FLEET, POLICY, now=NOW)
    assert again is None


@pytest.mark.parametrize("came", [SnapshotState.UPLOADING, SnapshotState.READY])
def test_with_the_lease_it_is_over_one_way_or_the_other(came: SnapshotState) -> None:
    made, _ = standing(RUN)
    ending = asked(made).ending(now=NOW, reason="CANCELLED")
    first = step_of(ending, {"n1": 0}, {}, FLEET, POLICY, now=NOW)
    assert isinstance(first, Tell)
    seen = told(made, came)
    gone = {"n1": replace(seen["n1"], gone=True, generation=first.part.generation)}
    last = step_of(first.part, {"n1": first.part.generation}, gone, FLEET, POLICY, now=NOW)
    if isinstance(last, Tell):  # that it is ready is news to the record
        gone = {"n1": replace(gone["n1"], generation=last.part.generation)}
        last = step_of(last.part, {"n1": last.part.generation}, gone, FLEET, POLICY, now=NOW)
    assert isinstance(last, End)
    assert last.part.state is PartState.ENDED
    assert last.part.snapshots[0].shown.over, "on record"
    end = shown(last.part, {})
    assert end is not None
    ready = came is SnapshotState.READY
    assert end.state is (SnapshotState.READY if ready else SnapshotState.FAILED)
    assert ready or "its lease ended" in end.message


def test_one_whose_workspace_is_elsewhere_by_now_is_lost() -> None:
    """Another host has another disk: it is never told."""
    made, _ = standing(RUN)
    moved = replace(asked(made), placed=(Placed(workspace="w-0", host="n2"),))
    found = shown(moved, {})
    assert found is not None
    assert found.state is SnapshotState.FAILED
    assert "no more on host n1" in found.message
    assert wanted_of(moved, FLEET, POLICY, gone=False)["n2"].workspaces[0].snapshot is None
    kept = settled(moved, {})
    assert kept.snapshots[0].shown == found
    assert settled(replace(moved, spec=part_spec(workspace("x", 0))), {}).snapshots == ()


def test_another_is_asked_for_once_the_last_one_is_over() -> None:
    made, seen = standing(RUN)
    made = asked(made)
    with pytest.raises(ActionIllegal) as refused:
        acted(made, seen, Action.SNAPSHOT, ["w-0"])
    assert refused.value.state == "RUNNING with a SNAPSHOT under way"
    assert refused.value.legal == "STOP, REBOOT, PAUSE, SUSPEND"
    assert acted(made, seen, Action.STOP, ["w-0"]) is not None
    assert acted(made, told(made, SnapshotState.READY), Action.SNAPSHOT, ["w-0"]) is None
    again = begun(made, grant_of(made, "w-0", "after", ALICE, now=NOW), "s2", b"")
    assert [each.id for each in again.snapshots] == ["s2"]


def test_there_are_not_too_many_at_a_time() -> None:
    made, seen = standing(*[RUN] * (MOST_SNAPSHOTS + 1))
    for number in range(MOST_SNAPSHOTS):
        assert acted(made, seen, Action.SNAPSHOT, [f"w-{number}"]) is None
        made = begun(
            made, grant_of(made, f"w-{number}", "i", ALICE, now=NOW), f"s{number}", bytes(1500)
        )
    assert len(encode(made)) < 150_000
    with pytest.raises(ActionIllegal) as refused:
        acted(made, seen, Action.SNAPSHOT, [f"w-{MOST_SNAPSHOTS}"])
    assert "32 SNAPSHOTs under way" in refused.value.state
    assert acted(made, seen, Action.STOP, [f"w-{MOST_SNAPSHOTS}"]) is not None


@pytest.mark.parametrize(
    ("state", "may"),
    [
        (WorkspaceState.RUNNING, True),
        (WorkspaceState.PAUSED, True),
        (WorkspaceState.STOPPED, True),
        (WorkspaceState.STAGING, False),
        (WorkspaceState.FAILED, False),
    ],
)
def test_in_which_states_it_is_legal(state: WorkspaceState, *, may: bool) -> None:
    made, seen = standing(state)
    if may:
        assert acted(made, seen, Action.SNAPSHOT, ["w-0"]) is None
        return
    with pytest.raises(ActionIllegal):
        acted(made, seen, Action.SNAPSHOT, ["w-0"])


def test_a_suspended_one_has_no_snapshot() -> None:
    made, seen = standing(RUN)
    aside = acted(made, seen, Action.SUSPEND, [])
    assert aside is not None
    with pytest.raises(ActionIllegal) as refused:
        acted(aside, seen, Action.SNAPSHOT, ["w-0"])
    assert refused.value.legal == "STOP, REBOOT, RESUME, MIGRATE"


@pytest.mark.parametrize(
    ("action", "image", "workspaces", "field"),
    [
        (Action.STOP, "before", ["w-0"], "image"),
        (Action.SNAPSHOT, "before", [], "workspaces"),
        (Action.SNAPSHOT, "before", ["w-0", "w-1"], "workspaces"),
        (Action.SNAPSHOT, "", ["w-0"], "image"),
        (Action.SNAPSHOT, "Not A Label", ["w-0"], "image"),
    ],
)
def test_it_is_named_and_of_one_workspace(
    action: Action, image: str, workspaces: list[str], field: str
) -> None:
    with pytest.raises(FieldInvalid) as refused:
        image_asked_for(action, image, workspaces)
    assert refused.value.field == field


def test_a_grant_is_for_one_image_from_one_host_for_a_day() -> None:
    north = authority.MemoryAuthority("north.site.intertie")
    made, _ = standing(RUN)
    grant = grant_of(made, "w-0", "before", ALICE, now=authority.NOW)
    octets = SignedGrants(north.issue("spiffe://north.site.intertie/broker")).sign(grant)
    message = images_pb2.SnapshotGrant.FromString(octets)
    known = Identities(authority.trust_in(north))
    by = verify(message.body, message.signature, message.certificate, known, now=authority.NOW)
    assert str(by) == "spiffe://north.site.intertie/broker"
    body = images_pb2.SnapshotGrantBody.FromString(message.body)
    assert (body.image, body.host) == (grant.image, "n1")
    assert (body.owner, body.workspace) == (ALICE, "w-0")
    assert body.cluster == made.spec.cluster
    lasts = body.expire_time.ToDatetime() - body.sign_time.ToDatetime()
    assert lasts == GRANT_LASTS == timedelta(hours=24)


def test_over_the_wire_and_back() -> None:
    one = Snapshot(
        image="i",
        state=SnapshotState.UPLOADING,
        message="m",
        taken_time=NOW,
        quiesced=True,
        done_bytes=1,
        total_bytes=2,
        digest="b3:x",
    )
    fields = snapshot_fields(one)
    assert fields is not None
    assert snapshot_from_proto(snapshot_pb2.Snapshot(**fields)) == one
