"""What an action makes of a part: all of the workspaces that it is for, or none."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from intertie.broker.domain.cluster import WorkspaceView, workspaces_of
from intertie.broker.domain.fleet import SeenPart
from intertie.broker.domain.part import Part, PartState
from intertie.common.actions import Action, Switched, allowed, in_vain, standing
from intertie.common.errors import ActionIllegal, FieldInvalid
from intertie.common.values import replace

MOST_SNAPSHOTS = 32
"""Of one part, under way at a time."""


def open_for_actions(part: Part, action: Action, *, now: datetime) -> bool:
    """What is put aside may go to another host, and nothing else."""
    return (
        part.state is PartState.CONFIRMED
        and part.end_requested_time is None
        and now < (part.ends if action is Action.MIGRATE else part.window.end)
    )


def acted(
    part: Part, seen: Mapping[str, SeenPart], action: Action, labels: Sequence[str]
) -> Part | None:
    """The part as it is after the action on `labels`, or on all of its workspaces where there are
    none; None where that changes nothing. FieldInvalid, ActionIllegal. Of a SNAPSHOT that is for
    `snapshots.begun` to say, once this has let it through."""
    there = {each.label: each for each in workspaces_of(part, seen)}
    for position, label in enumerate(labels):
        if label not in there:
            known = ", ".join(sorted(there))
            raise FieldInvalid(f"workspaces[{position}]", f"there is no {label}; known: {known}")
    if action is Action.SNAPSHOT:
        _check_number(part, there, labels)
    switched = dict(part.switched)
    for label in labels or there:
        how = switched.get(label, Switched())
        if part.moving_of(label) is not None:
            raise ActionIllegal(action.name, label, "MIGRATING", "")
        if in_vain(action, there[label].state.name, how):
            continue
        _check(action, there[label], how)
        if action is not Action.SNAPSHOT:
            switched[label] = how.after(action)
    after = replace(part, switched=tuple(sorted(switched.items(), key=lambda each: each[0])))
    return None if after == part else after


def _check_number(part: Part, there: Mapping[str, WorkspaceView], labels: Sequence[str]) -> None:
    """Each is on record with its grant until it is over, and a record has an end."""
    snapshots = [each.snapshot for each in there.values() if each.snapshot is not None]
    under_way = sum(not each.over for each in snapshots)
    if under_way >= MOST_SNAPSHOTS:
        [label] = labels
        state = f"one of a cluster with {under_way} SNAPSHOTs under way at its site"
        how = part.switch_of(label)
        legal = (each for each in allowed(there[label].state.name, how))
        names = ", ".join(each.name for each in legal if each is not Action.SNAPSHOT)
        raise ActionIllegal(Action.SNAPSHOT.name, label, state, names)


def _check(action: Action, workspace: WorkspaceView, how: Switched) -> None:
    """ActionIllegal. One image of a disk is made before the next is asked for, and while the disk
    stays where it is."""
    state = workspace.state.name
    legal, stands = allowed(state, how), standing(state, how)
    if workspace.snapshot is not None and not workspace.snapshot.over:
        legal = tuple(each for each in legal if each not in (Action.SNAPSHOT, Action.MIGRATE))
        stands = f"{stands} with a SNAPSHOT under way" if action is Action.SNAPSHOT else stands
    if action not in legal:
        names = ", ".join(each.name for each in legal)
        raise ActionIllegal(action.name, workspace.label, stands, names)
