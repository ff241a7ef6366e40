"""What actions make of a part."""

from __future__ import annotations

import pytest

from intertie.broker.domain.acting import acted, open_for_actions
from intertie.broker.domain.difference import with_terms
from intertie.broker.domain.fleet import SeenPart, SeenWorkspace, WorkspaceState
from intertie.broker.domain.part import Part
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.wanted import fingerprint, wanted_of
from intertie.common.actions import Action, Power, Switched
from intertie.common.errors import ActionIllegal, FieldInvalid
from intertie.common.values import replace
from tests.unit.broker.samples import NOW, POLICY, part, part_spec, workspace
from tests.unit.broker.test_quotas import FLEET


def standing(*states: WorkspaceState) -> tuple[Part, dict[str, SeenPart]]:
    """`w-0`, `w-1`, ... on n1."""
    labels = [f"w-{number}" for number in range(len(states))]
    made = part(
        spec=part_spec(*(workspace("w", number) for number in range(len(states)))),
        placed=tuple(Placed(workspace=each, host="n1") for each in labels),
    )
    told = tuple(
        SeenWorkspace(name=label, state=state) for label, state in zip(labels, states, strict=True)
    )
    return made, {"n1": SeenPart(host="n1", part_uid=made.uid, generation=1, workspaces=told)}


RUN = WorkspaceState.RUNNING


def test_one_is_switched_and_hosts_are_told() -> None:
    made, seen = standing(RUN, RUN)
    after = acted(made, seen, Action.STOP, ["w-1"])
    assert after is not None
    assert dict(after.switched) == {"w-1": Switched(power=Power.OFF)}
    before, told = (wanted_of(each, FLEET, POLICY, gone=False) for each in (made, after))
    assert fingerprint(before) != fingerprint(told)
    by_name = {each.name: each.switched for each in told["n1"].workspaces}
    assert by_name == {"w-0": Switched(), "w-1": Switched(power=Power.OFF)}


def test_all_are_where_none_is_named() -> None:
    made, seen = standing(RUN, RUN)
    after = acted(made, seen, Action.SUSPEND, [])
    assert after is not None
    assert {how.power for _, how in after.switched} == {Power.SAVED}
    assert acted(after, seen, Action.SUSPEND, []) is None


@pytest.mark.parametrize(
    ("state", "action", "legal"),
    [
        (RUN, Action.START, "STOP, REBOOT, PAUSE, SUSPEND, SNAPSHOT, MIGRATE"),
        (WorkspaceState.STOPPED, Action.PAUSE, "START, SNAPSHOT"),
        (WorkspaceState.STAGING, Action.SNAPSHOT, ""),
        (WorkspaceState.STAGING, Action.STOP, ""),
        (WorkspaceState.FAILED, Action.REBOOT, ""),
    ],
)
def test_of_an_illegal_one_nothing_is_done(
    state: WorkspaceState, action: Action, legal: str
) -> None:
    made, seen = standing(RUN if action is not Action.START else WorkspaceState.STOPPED, state)
    with pytest.raises(ActionIllegal) as refused:
        acted(made, seen, action, [])
    assert (refused.value.workspace, refused.value.state) == ("w-1", state.name)
    assert refused.value.legal == legal


def test_what_was_asked_for_counts_before_a_host_has_come_to_it() -> None:
    made, seen = standing(RUN)
    stopped = acted(made, seen, Action.STOP, [])
    assert stopped is not None
    with pytest.raises(ActionIllegal):
        acted(stopped, seen, Action.PAUSE, [])
    started = acted(stopped, seen, Action.START, [])
    assert started is not None
    assert dict(started.switched) == {"w-0": Switched(power=Power.ON, boots=1)}
    rebooted = acted(started, seen, Action.REBOOT, [])
    assert rebooted is not None
    assert dict(rebooted.switched)["w-0"].boots == 2


def test_who_is_not_there_is_named_with_those_who_are() -> None:
    made, seen = standing(RUN)
    with pytest.raises(FieldInvalid) as refused:
        acted(made, seen, Action.STOP, ["w-0", "x-9"])
    assert refused.value.field == "workspaces[1]"
    assert "known: w-0" in refused.value.problem


def test_a_part_that_is_over_or_ending_takes_none() -> None:
    made, _ = standing(RUN)
    assert open_for_actions(made, Action.STOP, now=NOW)
    assert not open_for_actions(made, Action.STOP, now=made.window.end)
    ending = made.ending(now=NOW, reason="CANCELLED")
    assert not open_for_actions(ending, Action.STOP, now=NOW)


def test_one_that_an_amend_takes_away_begins_anew_when_it_comes_back() -> None:
    made, seen = standing(RUN, RUN)
    after = acted(made, seen, Action.STOP, [])
    assert after is not None
    fewer = replace(after.spec, workspaces=after.spec.workspaces[:1])
    assert dict(with_terms(after, fewer, after.placed[:1]).switched).keys() == {"w-0"}


def test_one_that_is_back_before_its_host_has_obeyed_is_not_started_anew_for_that() -> None:
    """Its host never hears that it was away, and goes by how often it was to start anew."""
    made, seen = standing(RUN, RUN)
    after = acted(made, seen, Action.REBOOT, [])
    assert after is not None
    fewer = replace(after.spec, workspaces=after.spec.workspaces[:1])
    back = with_terms(with_terms(after, fewer, after.placed[:1]), after.spec, after.placed)
    assert dict(back.switched)["w-1"] == Switched(boots=1)
