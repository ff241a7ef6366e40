"""What is decided from what is wanted, known and seen."""

from __future__ import annotations

from datetime import timedelta

import pytest

from intertie.common.actions import AS_BEGUN
from intertie.common.terms import AvailabilityTerm, OnIsolation
from intertie.common.values import replace
from intertie.nodeagent.domain.failures import Attempts, HostFailure
from intertie.nodeagent.domain.reconcile import (
    STAGING_LEAD,
    DomainState,
    KnownPart,
    Listing,
    Note,
    Observed,
    Phase,
    Step,
    WorkspaceState,
    merge,
    must_stop,
    phase_of,
    state_of,
    steps,
)
from tests.unit.nodeagent.parts import NOW, PART, WINDOW, WORKSPACE

KNOWN = KnownPart(wanted=PART)
READY = Observed(image=True, disk=True, seed=True, domain=DomainState.OFF)


def test_a_newer_record_is_obeyed_and_an_older_one_is_not() -> None:
    newer = replace(PART, generation=4, gone=True)
    older = replace(PART, generation=2, gone=True)
    known = {PART.uid: KNOWN}
    assert merge(known, Listing(parts=(newer,)))[PART.uid].wanted is newer
    assert merge(known, Listing(parts=(older,)))[PART.uid].wanted is PART


def test_what_was_noted_survives_a_new_generation() -> None:
    known = {PART.uid: KNOWN.with_note(WORKSPACE.uid, replace(KNOWN.note("x"), ready_time=NOW))}
    merged = merge(known, Listing(parts=(replace(PART, generation=9),)))
    assert merged[PART.uid].note(WORKSPACE.uid).ready_time == NOW


def test_a_part_whose_record_is_away_is_over_and_one_that_cannot_be_read_is_not() -> None:
    known = {PART.uid: KNOWN}
    away = merge(known, Listing())[PART.uid]
    unreadable = merge(known, Listing(unreadable={PART.uid: "schema 2"}))[PART.uid]
    assert phase_of(away, now=NOW) is Phase.OVER
    assert phase_of(unreadable, now=NOW) is Phase.RUN


@pytest.mark.parametrize(
    ("moment", "phase"),
    [
        (WINDOW.start - STAGING_LEAD - timedelta(seconds=1), Phase.WAIT),
        (WINDOW.start - STAGING_LEAD, Phase.STAGE),
        (WINDOW.start - timedelta(microseconds=1), Phase.STAGE),
        (WINDOW.start, Phase.RUN),
        (WINDOW.end - timedelta(microseconds=1), Phase.RUN),
        (WINDOW.end, Phase.OVER),
    ],
)
def test_a_window_is_half_open(moment: object, phase: Phase) -> None:
    assert phase_of(KNOWN, now=moment) is phase  # type: ignore[arg-type]


def test_gone_is_over_inside_the_window_too() -> None:
    assert phase_of(KnownPart(wanted=replace(PART, gone=True)), now=NOW) is Phase.OVER


@pytest.mark.parametrize(
    ("phase", "seen", "expected"),
    [
        (Phase.WAIT, Observed(), ()),
        (Phase.STAGE, Observed(), (Step.STAGE_IMAGE,)),
        (Phase.STAGE, Observed(image=True), (Step.MAKE_DISK, Step.MAKE_SEED, Step.DEFINE)),
        (Phase.STAGE, READY, ()),
        (Phase.STAGE, replace(READY, small=True), (Step.GROW_DISK,)),
        (Phase.RUN, replace(READY, small=True), (Step.GROW_DISK, Step.DEFINE, Step.START)),
        (Phase.RUN, READY, (Step.DEFINE, Step.START)),
        (
            Phase.RUN,
            Observed(image=True),
            (Step.MAKE_DISK, Step.MAKE_SEED, Step.DEFINE, Step.START),
        ),
        (Phase.RUN, Observed(disk=True, seed=True), (Step.DEFINE, Step.START)),
        (Phase.RUN, replace(READY, domain=DomainState.RUNNING), ()),
        (Phase.RUN, replace(READY, domain=DomainState.PAUSED), ()),
        (Phase.RUN, replace(READY, domain=DomainState.STALLED), (Step.RESUME,)),
        (Phase.RUN, replace(READY, domain=DomainState.POWERED_OFF), ()),
        (Phase.RUN, Observed(domain=DomainState.RUNNING), ()),
        (Phase.OVER, READY, ()),
    ],
)
def test_only_what_is_missing_is_done(
    phase: Phase, seen: Observed, expected: tuple[Step, ...]
) -> None:
    assert steps(phase, seen, Note(), AS_BEGUN, isolated=False) == expected


def test_a_guest_that_switched_itself_off_stays_off() -> None:
    assert steps(Phase.RUN, READY, Note(powered_off=True), AS_BEGUN, isolated=False) == ()


def test_an_isolated_guest_is_stopped_and_not_started_again() -> None:
    running = replace(READY, domain=DomainState.RUNNING)
    assert steps(Phase.RUN, running, Note(), AS_BEGUN, isolated=True) == (Step.STOP,)
    assert steps(Phase.RUN, READY, Note(), AS_BEGUN, isolated=True) == ()


def test_isolation_counts_from_the_last_contact_and_only_where_the_lease_says_so() -> None:
    term = AvailabilityTerm(on_isolation=OnIsolation.STOP, stop_after=timedelta(seconds=30))
    stop = replace(WORKSPACE, allocation=replace(WORKSPACE.allocation, availability=term))
    late = NOW + timedelta(seconds=30)
    assert must_stop(stop, last_contact=NOW, now=late)
    assert not must_stop(stop, last_contact=NOW, now=late - timedelta(microseconds=1))
    assert not must_stop(WORKSPACE, last_contact=NOW, now=late)


def test_states_are_told_by_what_is_seen() -> None:
    def state(phase: Phase, seen: Observed, attempts: Attempts | None = None) -> WorkspaceState:
        tried = attempts or Attempts()
        return state_of(phase, seen, Note(), AS_BEGUN, isolated=False, attempts=tried)

    failed = Attempts().failed(HostFailure("no", final=True), now=0)
    assert state(Phase.WAIT, Observed()) is WorkspaceState.PLANNED
    assert state(Phase.STAGE, Observed()) is WorkspaceState.STAGING
    assert state(Phase.STAGE, READY) is WorkspaceState.DEFINED
    assert state(Phase.RUN, replace(READY, domain=DomainState.RUNNING)) is WorkspaceState.RUNNING
    assert state(Phase.RUN, READY, failed) is WorkspaceState.FAILED
    assert state(Phase.OVER, READY) is WorkspaceState.ENDED
    off = replace(READY, domain=DomainState.POWERED_OFF)
    assert state(Phase.RUN, off) is WorkspaceState.STOPPED


def test_what_fails_is_tried_again_less_and_less_often() -> None:
    attempts = Attempts()
    pauses = []
    for _ in range(9):
        attempts = attempts.failed(HostFailure("no"), now=100.0)
        pauses.append(attempts.not_before - 100.0)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert not Attempts(count=1).is_failure
    assert attempts.is_failure
    assert not attempts.may_try(now=159.9)
    assert attempts.may_try(now=160.0)
