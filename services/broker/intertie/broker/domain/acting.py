"""What an action makes of a part: all of the workspaces that it is for, or none."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from intertie.broker.domain.cluster import workspaces_of
from intertie.broker.domain.fleet import SeenPart
from intertie.broker.domain.part import Part, PartState
from intertie.common.actions import Action, Switched, allowed, in_vain, standing
from intertie.common.errors import ActionIllegal, FieldInvalid
from intertie.common.values import replace


def open_for_actions(part: Part, *, now: datetime) -> bool:
    return (
        part.state is PartState.CONFIRMED
        and part.end_requested_time is None
        and now < part.window.end
    )


def acted(
    part: Part, seen: Mapping[str, SeenPart], action: Action, labels: Sequence[str]
) -> Part | None:
    """The part as it is after the action on `labels`, or on all of its workspaces where there are
    none; None where that changes nothing. FieldInvalid, ActionIllegal."""
    states = {each.label: each.state.name for each in workspaces_of(part, seen)}
    for position, label in enumerate(labels):
        if label not in states:
            known = ", ".join(sorted(states))
            raise FieldInvalid(f"workspaces[{position}]", f"there is no {label}; known: {known}")
    switched = dict(part.switched)
    for label in labels or states:
        how = switched.get(label, Switched())
        if in_vain(action, states[label], how):
            continue
        if action not in (legal := allowed(states[label], how)):
            raise ActionIllegal(
                action.name,
                label,
                standing(states[label], how),
                ", ".join(each.name for each in legal),
            )
        switched[label] = how.after(action)
    after = replace(part, switched=tuple(sorted(switched.items(), key=lambda each: each[0])))
    return None if after == part else after
