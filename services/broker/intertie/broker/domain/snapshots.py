"""Images of workspaces' disks: on record with the part until it is known what became of each."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from intertie.broker.domain.fleet import SeenPart, SeenSnapshot, SeenWorkspace
from intertie.broker.domain.part import Part, PartSnapshot
from intertie.common.names import ImageName
from intertie.common.snapshot import GRANT_LASTS, Snapshot, SnapshotState
from intertie.common.values import Struct, replace


class Grant(Struct, frozen=True, kw_only=True):
    """What a broker signs, so that the image store takes one image from one host."""

    image: str
    host: str
    cluster: str
    workspace: str
    owner: str
    sign_time: datetime
    expire_time: datetime


def grant_of(part: Part, label: str, image_id: str, owner: str, *, now: datetime) -> Grant:
    name = part.path
    return Grant(
        image=str(ImageName(name.site, name.tenant, image_id)),
        host=part.host_of(label),
        cluster=part.spec.cluster or part.name,
        workspace=label,
        owner=owner,
        sign_time=now,
        expire_time=now + GRANT_LASTS,
    )


def begun(part: Part, grant: Grant, snapshot_id: str, signed: bytes) -> Part:
    """With one more, in the place of the last one of its workspace."""
    made = PartSnapshot(
        workspace=grant.workspace,
        id=snapshot_id,
        host=grant.host,
        grant=signed,
        shown=Snapshot(image=grant.image),
    )
    others = (each for each in part.snapshots if each.workspace != grant.workspace)
    return replace(part, snapshots=(*others, made))


def settled(part: Part, seen: Mapping[str, SeenPart]) -> Part:
    """What its hosts say has become of them is on record, and what can become of those that
    nobody makes any more. Of workspaces that are no more none stays."""
    if not part.snapshots:
        return part
    after = tuple(_settled(part, seen))
    return part if after == part.snapshots else replace(part, snapshots=after)


def under_way(part: Part, seen: Mapping[str, SeenPart]) -> frozenset[str]:
    """Workspaces that an image is being made of. One that goes to another host ends that."""
    found = settled(part, seen).snapshots
    return frozenset(each.workspace for each in found if not each.shown.over)


def _settled(part: Part, seen: Mapping[str, SeenPart]) -> Iterator[PartSnapshot]:
    there = {each.label for each in part.spec.workspaces}
    for each in part.snapshots:
        if each.workspace not in there:
            continue
        shown = shown_of(part, each, _said(seen.get(each.host), each.workspace))
        yield replace(each, shown=shown, grant=b"") if shown.over else each


def snapshot_of(part: Part, label: str, said: SeenWorkspace | None) -> Snapshot | None:
    """As its owner sees it; None where none was asked for. `said` is by the workspace's host."""
    found = next((each for each in part.snapshots if each.workspace == label), None)
    return shown_of(part, found, said) if found is not None else None


def shown_of(part: Part, snapshot: PartSnapshot, said: SeenWorkspace | None) -> Snapshot:
    if snapshot.shown.over:
        return snapshot.shown
    told: SeenSnapshot | None = said.snapshot if said is not None else None
    known = told is not None and told.id == snapshot.id
    image = snapshot.shown.image
    if told is not None and known and told.shown.over:
        return replace(told.shown, image=image)
    if part.host_of(snapshot.workspace) != snapshot.host:
        return _lost(snapshot, f"its workspace is no more on host {snapshot.host}")
    if part.over:
        return _lost(snapshot, "its lease ended before the image was in the store")
    return replace(told.shown, image=image) if told is not None and known else snapshot.shown


def _lost(snapshot: PartSnapshot, why: str) -> Snapshot:
    return Snapshot(image=snapshot.shown.image, state=SnapshotState.FAILED, message=why)


def _said(report: SeenPart | None, label: str) -> SeenWorkspace | None:
    if report is None:
        return None
    return next((each for each in report.workspaces if each.name == label), None)
