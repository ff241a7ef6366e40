"""A workspace that is put aside goes to another host: which may, where to, and what counts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from intertie.broker.domain.admission_policy import Quotas
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.fleet import (
    Fleet,
    MigrationOutcome,
    SeenMigration,
    SeenPart,
    SeenWorkspace,
    WorkspaceState,
)
from intertie.broker.domain.keeping import Keeping
from intertie.broker.domain.migrating import begun, next_of
from intertie.broker.domain.moving import MovingState
from intertie.broker.domain.part import Part
from intertie.broker.domain.placed import hosts_of
from intertie.broker.domain.reconcile import GivenUp, Tell, step_of
from intertie.broker.domain.wanted import wanted_of
from intertie.common.actions import Action, Power, Switched
from intertie.common.errors import (
    ActionIllegal,
    AmendPending,
    FieldInvalid,
    LeaseEnding,
    NoCapacity,
)
from intertie.common.intervals import Window
from intertie.common.values import replace
from tests.unit.broker.line import reports_of
from tests.unit.broker.samples import HOUR, facts, part, part_spec, workspace
from tests.unit.broker.standing import view_of
from tests.unit.broker.test_replacing import BEGUN, SMALL, THREE, fleet, on

SAVE = timedelta(seconds=10)
KEPT_UNTIL = BEGUN + 3 * HOUR


def kept(**changes: Any) -> Part:
    """`w-0` on n1 and `w-1` on n2, put aside ten minutes ago."""
    spec = part_spec(workspace("w"), workspace("w", 1), pairs=(("w-0", "w-1", 40),))
    window = Window(BEGUN - HOUR, BEGUN - timedelta(minutes=10))
    keeping = Keeping(mib_s=1, save=SAVE, until=KEPT_UNTIL)
    return on(
        replace(spec, window=window),
        "n1",
        "n2",
        **{"keeping": keeping, "coordinator": "", **changes},
    )


def asked(
    of: Part,
    *labels: str,
    to: str = "",
    state: WorkspaceState = WorkspaceState.SUSPENDED,
    beside: tuple[Part, ...] = (),
    hosts: Fleet | None = None,
) -> Part | None:
    view = view_of(hosts or hosts_that_know(), (of, *beside))
    view = replace(view, seen={of.uid: reports_of(of, state)})
    known = {each.workspace: state.name for each in of.placed}
    return begun(of, known, labels, to, view, THREE, now=BEGUN)


def hosts_that_know(*but: str) -> Fleet:
    found = [
        facts(each, capacity=SMALL, migrates_aside=each not in but) for each in ("n1", "n2", "n3")
    ]
    return Fleet.of(found, THREE)


def test_it_goes_as_it_is_put_aside_and_both_places_count_what_is_kept() -> None:
    of = kept()
    found = asked(of, "w-0", to="n3")
    assert found is not None
    [each] = found.moving
    assert (each.workspace, each.host, each.aside) == ("w-0", "n3", True)
    before, after = demands_of(of), demands_of(found)
    one = of.spec.workspaces[0].allocation
    room = one.disk_mib + one.memory_mib
    for had, has in zip(before, after, strict=True):
        assert had.window == has.window
        assert has.amounts == {**had.amounts, "host/n3/disk_mib": room}
    told = wanted_of(found, hosts_that_know(), THREE, gone=False)
    [taken] = told["n3"].workspaces
    assert taken.migration is not None
    assert taken.migration.aside
    assert told["n3"].keep_until == KEPT_UNTIL


def test_until_its_host_has_obeyed_it_counts_there_also_once_it_goes_on() -> None:
    found = asked(kept(), "w-0", to="n3")
    assert found is not None
    arrived = after(sending(found), "n1", MigrationOutcome.GIVEN)
    assert hosts_of(arrived.placed) == {"w-0": "n3", "w-1": "n2"}
    assert [each.host for each in arrived.left] == ["n1"]
    going_on = replace(
        arrived,
        spec=replace(arrived.spec, window=Window(BEGUN, BEGUN + HOUR)),
        keeping=Keeping(mib_s=1, save=SAVE),
    )
    [demand] = demands_of(going_on)
    one = going_on.spec.workspaces[0].allocation
    assert demand.amounts["host/n1/disk_mib"] == one.disk_mib + one.memory_mib
    assert demand.amounts["host/n3/vcpus"] == one.vcpus
    assert "host/n1/vcpus" not in demand.amounts


def test_a_tenant_has_no_more_of_it() -> None:
    quotas, found = Quotas({"demo": {"disk_mib": 4096}}), asked(kept(), "w-0")
    assert found is not None

    def of_tenant(part: Part) -> list[dict[str, int]]:
        return [
            {key: each for key, each in demand.amounts.items() if key.startswith("tenant/")}
            for demand in demands_of(part, quotas)
        ]

    assert of_tenant(found) == of_tenant(kept())
    assert all(of_tenant(found))


def test_it_needs_no_more_there_than_what_is_kept() -> None:
    """Whether it could go on there now is not the question of who wants a host to be empty."""
    busy = on(part_spec(workspace("x", 0, vcpus=2)), "n3", name=part("other").name)
    found = asked(kept(), "w-0", to="n3", beside=(busy,))
    assert found is not None
    big = workspace("x", 0, disk_mib=SMALL.disk_mib)
    full = on(part_spec(big), "n3", name=part("other").name)
    with pytest.raises(NoCapacity):
        asked(kept(), "w-0", to="n3", beside=(full,))


@pytest.mark.parametrize(
    ("of", "error"),
    [
        (kept(keeping=Keeping(mib_s=1, save=SAVE)), FieldInvalid),
        (kept(coordinator="spiffe://meta.intertie/metasched"), FieldInvalid),
        (
            kept(
                keeping=Keeping(
                    mib_s=1,
                    save=SAVE,
                    until=KEPT_UNTIL,
                    promised=Window(BEGUN + HOUR, KEPT_UNTIL),
                )
            ),
            FieldInvalid,
        ),
        (
            kept(keeping=Keeping(mib_s=1, save=SAVE, until=BEGUN + timedelta(seconds=90))),
            LeaseEnding,
        ),
    ],
)
def test_which_may_not(of: Part, error: type[Exception]) -> None:
    with pytest.raises(error):
        asked(of, "w-0")


def test_one_that_nobody_may_put_aside_is_told_that_its_kind_is_not_for_it() -> None:
    """It has a deadline, over several sites, and no promise. A bug: it was told that it may be put
    aside."""
    of = kept(keeping=Keeping(mib_s=1, save=timedelta()))
    with pytest.raises(FieldInvalid, match="for none with a deadline"):
        asked(of, "w-0", state=WorkspaceState.RUNNING)


def test_not_before_it_is_saved_nor_twice_at_a_time() -> None:
    with pytest.raises(ActionIllegal):
        asked(kept(), "w-0", state=WorkspaceState.RUNNING)
    found = asked(kept(), "w-0", to="n3")
    assert found is not None
    assert asked(found, "w-0") is None
    arrived = after(sending(found), "n1", MigrationOutcome.GIVEN)
    with pytest.raises(AmendPending):
        asked(arrived, "w-0")


def test_not_while_an_image_is_made_of_its_disk() -> None:
    """A bug: it went, and the image that its owner had asked for before was lost."""
    of = kept()
    view = replace(view_of(hosts_that_know(), (of,)), seen={of.uid: reports_of(of)})
    states = dict.fromkeys(("w-0", "w-1"), "SUSPENDED")
    with pytest.raises(ActionIllegal, match="SNAPSHOT under way"):
        begun(of, states, [], "n3", view, THREE, copied={"w-0"}, now=BEGUN)
    assert begun(of, states, ["w-1"], "n3", view, THREE, copied={"w-0"}, now=BEGUN)


@pytest.mark.parametrize("old", ["n1", "n3"])
def test_an_agent_that_does_not_know_how_gets_nothing(old: str) -> None:
    with pytest.raises(NoCapacity):
        asked(kept(), "w-0", to="n3", hosts=hosts_that_know(old))
    assert fleet("n1").facts["n1"].migrates


def test_one_that_its_owner_suspended_goes_as_it_is_once_its_host_says_so() -> None:
    switched = (("w-0", Switched(power=Power.SAVED)),)
    of = on(part_spec(workspace("w"), workspace("w", 1)), "n1", "n2", switched=switched)
    view = view_of(hosts_that_know(), (of,))
    states = {"w-0": "RUNNING", "w-1": "RUNNING"}
    with pytest.raises(ActionIllegal) as refused:
        begun(of, states, ["w-0"], "", view, THREE, now=BEGUN)
    assert refused.value.state == "SUSPENDED and RUNNING still"
    assert Action.MIGRATE.name not in refused.value.legal
    states["w-0"] = "SUSPENDED"
    found = begun(of, states, [], "n3", view, THREE, now=BEGUN)
    assert found is not None
    assert {each.workspace: each.aside for each in found.moving} == {"w-0": True, "w-1": False}
    [demand] = demands_of(found)
    assert demand.amounts["host/n1/vcpus"]
    assert demand.amounts["host/n3/vcpus"]


def sending(of: Part) -> Part:
    found = after(of, "n3", MigrationOutcome.READY)
    assert found.moving[0].state is MovingState.SENDING
    return found


def after(of: Part, host: str, outcome: MigrationOutcome) -> Part:
    told = SeenMigration(number=of.moving[0].number, outcome=outcome)
    seen = SeenWorkspace(name="w-0", state=WorkspaceState.SUSPENDED, migration=told)
    report = SeenPart(host=host, part_uid="", generation=9, workspaces=(seen,))
    found = next_of(of, {host: report}, hosts_that_know(), now=BEGUN + timedelta(seconds=5))
    assert found is not None
    return found


def test_what_it_left_is_given_up_though_its_host_keeps_others_that_are_suspended() -> None:
    """A bug: a host has not obeyed while one of the part is suspended there, however long that is,
    and until then what had gone counted, and no other of the part could go."""
    found = asked(kept(), "w-0", to="n3")
    assert found is not None
    gone = after(sending(found), "n1", MigrationOutcome.GIVEN)
    fleet_ = hosts_that_know()
    told = step_of(gone, {}, {}, fleet_, THREE, now=BEGUN)
    assert isinstance(told, Tell)
    number = told.part.generation
    at = dict.fromkeys(told.wanted, number)
    silent = {"n1": SeenPart(host="n1", part_uid="", generation=number)}
    assert step_of(told.part, at, silent, fleet_, THREE, now=BEGUN) is None
    cleared = {"n1": replace(silent["n1"], cleared_generation=number)}
    given_up = step_of(told.part, at, cleared, fleet_, THREE, now=BEGUN)
    assert isinstance(given_up, GivenUp)
    assert (given_up.part.left, given_up.hosts) == ((), ("n1",))
