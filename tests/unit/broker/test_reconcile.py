"""What the reconciler does about a part, step by step."""

from datetime import timedelta

from intertie.broker.domain.fleet import Fleet, SeenPart
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.reconcile import End, Step, Tell, step_of
from intertie.common.values import replace
from tests.unit.broker.samples import HOUR, NOW, POLICY, facts, part, part_spec, workspace

FLEET = Fleet.of([facts("n1"), facts("n2")], POLICY)
SOON = NOW + timedelta(seconds=10)


def step(of: Part, *, told: set[str], seen: tuple[SeenPart, ...] = (), after: timedelta) -> Step:
    """With every host told of the part's own generation."""
    reports = {each.host: each for each in seen}
    generations = dict.fromkeys(told, of.generation)
    return step_of(of, generations, reports, FLEET, POLICY, now=NOW + after)


def told_of(of: Part) -> Part:
    """The part once its hosts were told for the first time."""
    first = step(of, told=set(), after=timedelta(0))
    assert isinstance(first, Tell)
    return first.part


def gone(of: Part, generation: int | None = None) -> SeenPart:
    return SeenPart(host="n1", part_uid=of.uid, generation=generation or of.generation, gone=True)


def test_hosts_are_told_a_minute_before_the_window_opens() -> None:
    later = part()
    spec = replace(later.spec, window=replace(later.window, start=NOW + HOUR, end=NOW + 2 * HOUR))
    later = replace(later, spec=spec)
    assert step(later, told=set(), after=HOUR - timedelta(seconds=61)) is None
    told = step(later, told=set(), after=HOUR - timedelta(seconds=60))
    assert isinstance(told, Tell)
    assert (told.part.generation, set(told.wanted)) == (1, {"n1"})
    assert told.wanted["n1"].generation == 1
    assert not told.wanted["n1"].gone


def test_once_told_there_is_nothing_to_do_until_something_changes() -> None:
    known = told_of(part())
    assert step(known, told={"n1"}, after=timedelta(0)) is None
    moved = Fleet.of([facts("n1", mtu=1400), facts("n2")], POLICY)
    changed = step_of(known, {"n1": 1}, {}, moved, POLICY, now=NOW)
    assert isinstance(changed, Tell)
    assert changed.part.generation == 2


def test_a_record_that_is_lost_is_written_again() -> None:
    again = step(told_of(part()), told=set(), after=timedelta(0))
    assert isinstance(again, Tell)


def test_a_record_that_a_leader_left_at_an_older_generation_is_written_again() -> None:
    """A bug: only missing records were found, so that a host beyond the first transaction kept
    what it was told before, and a part that was to end never did."""
    placed = (Placed(workspace="w-0", host="n1"), Placed(workspace="w-1", host="n2"))
    first = told_of(part(spec=part_spec(workspace("w", 0), workspace("w", 1)), placed=placed))
    asked = first.ending(now=NOW, reason="CANCELLED")
    ending = step(asked, told={"n1", "n2"}, after=timedelta(0))
    assert isinstance(ending, Tell)
    assert step(ending.part, told={"n1", "n2"}, after=timedelta(0)) is None
    reports = {"n1": gone(ending.part)}
    again = step_of(ending.part, {"n1": 2, "n2": 1}, reports, FLEET, POLICY, now=NOW)
    assert isinstance(again, Tell)
    assert {host: each.generation for host, each in again.wanted.items()} == {"n1": 3, "n2": 3}


def test_nothing_is_told_of_a_part_that_is_not_confirmed() -> None:
    for state in PartState:
        if state is not PartState.CONFIRMED:
            assert step(part("t1", state), told=set(), after=timedelta(0)) is None


def test_the_end_of_the_window_is_the_end() -> None:
    known = told_of(part())
    assert step(known, told={"n1"}, after=HOUR - timedelta(microseconds=1)) is None
    over = step(known, told={"n1"}, after=HOUR)
    assert isinstance(over, Tell)
    assert over.part.end_reason == "WINDOW_OVER"
    assert over.wanted["n1"].gone
    assert over.wanted["n1"].generation == 2


def test_a_part_ends_when_every_host_says_so_of_the_right_generation() -> None:
    asked = told_of(part()).ending(now=NOW, reason="CANCELLED")
    telling = step(asked, told={"n1"}, after=timedelta(0))
    assert isinstance(telling, Tell)
    ending = telling.part
    assert step(ending, told={"n1"}, after=timedelta(0)) is None
    stale = gone(ending, generation=1)
    assert step(ending, told={"n1"}, seen=(stale,), after=timedelta(0)) is None
    ended = step(ending, told={"n1"}, seen=(gone(ending),), after=timedelta(0))
    assert isinstance(ended, End)
    assert (ended.part.state, ended.part.end_reason, ended.hosts) == (
        PartState.ENDED,
        "CANCELLED",
        ("n1",),
    )


def test_an_old_gone_does_not_end_what_was_never_told_to_go() -> None:
    """The agent may still start it: its record says so until it is written over."""
    asked = told_of(part()).ending(now=NOW, reason="CANCELLED")
    early = step(asked, told={"n1"}, seen=(gone(asked),), after=timedelta(0))
    assert isinstance(early, Tell)


def test_what_no_host_was_told_of_ends_at_once() -> None:
    asked = part().ending(now=NOW, reason="CANCELLED")
    assert isinstance(step(asked, told=set(), after=timedelta(0)), End)
