"""What was used, on its way from hosts into records."""

from datetime import datetime, timedelta

from intertie.broker.domain.counted import Used, UsedAt
from intertie.broker.domain.fleet import Fleet, SeenPart, SeenWorkspace, WorkspaceState
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.reconcile import End, GivenUp, step_of
from intertie.broker.domain.terms import Shed
from intertie.broker.domain.usage import LAST_WORD, due_of
from intertie.broker.domain.used import known_of, on_record, used_in, written_after
from intertie.broker.domain.wanted import fingerprint, wanted_of
from intertie.common.intervals import Window
from intertie.common.values import replace
from tests.unit.broker.samples import HOUR, NOW, POLICY, facts, part, part_spec, workspace

HALF = Window(NOW, NOW + HOUR / 2)
SECOND = timedelta(seconds=1)


def used(at: datetime = HALF.end, cpu_ns: int = 10, **more: int) -> Used:
    return Used(read_time=at, cpu_ns=cpu_ns, **more)


def seen(counts: Used | None, **more: object) -> SeenPart:
    workspace = SeenWorkspace(name="w-0", state=WorkspaceState.RUNNING, used=counts)
    return SeenPart(
        host="n1",
        part_uid=part().uid,
        generation=1,
        workspaces=(workspace,),
        **more,  # type: ignore[arg-type]
    )


def test_what_nobody_has_told_is_unknown_and_not_nothing() -> None:
    [found] = used_in(HALF, ["w-0"], (), known_of(part(), {"n1": seen(None)}))
    assert (found.used, found.unknown) == (None, True)


def test_what_was_counted_until_a_host_was_lost_is_the_least_that_was_used() -> None:
    old = used(HALF.end - timedelta(minutes=2), 7)
    [found] = used_in(HALF, ["w-0"], (), known_of(part(), {"n1": seen(old)}))
    assert (found.used, found.unknown) == (old, True)
    fresh = used(HALF.end - timedelta(seconds=40), 7)
    [found] = used_in(HALF, ["w-0"], (), known_of(part(), {"n1": seen(fresh)}))
    assert (found.used, found.unknown) == (fresh, False)


def test_a_host_is_heard_on_what_it_has_and_on_nothing_else() -> None:
    other = SeenWorkspace(name="w-1", state=WorkspaceState.RUNNING, used=used())
    report = seen(used())
    liar = replace(report, host="n2", workspaces=(*report.workspaces, other))
    assert set(known_of(part(), {"n1": replace(report, workspaces=(other,)), "n2": liar})) == set()
    assert set(known_of(part(), {"n1": report, "n2": liar})) == {("n1", "w-0")}


def test_a_count_that_fell_is_written_once_and_said_to_be_unknown() -> None:
    written = (UsedAt(host="n1", workspace="w-0", used=used(NOW, 100)),)
    [found] = used_in(HALF, ["w-0"], written, {("n1", "w-0"): used(cpu_ns=30)})
    assert found.used is not None
    assert (found.used.cpu_ns, found.unknown) == (0, True)


def test_who_has_left_is_written_down_once_more_if_it_has_used_anything() -> None:
    known = {("n1", "w-0"): used(), ("n2", "w-1"): used(cpu_ns=3), ("n2", "w-2"): used(cpu_ns=0)}
    found = {each.workspace: each for each in used_in(HALF, ["w-0"], (), known)}
    assert list(found) == ["w-0", "w-1"]
    again = list(used_in(HALF, ["w-0"], on_record(known), known))
    assert [each.workspace for each in again] == ["w-0"]


def test_what_hosts_have_counted_is_on_record_before_their_records_go() -> None:
    fleet = Fleet.of([facts("n1"), facts("n2")], POLICY)
    ending = part().ending(now=NOW, reason="CANCELLED")
    told = fingerprint(wanted_of(ending, fleet, POLICY, gone=True))
    ending = replace(
        ending,
        generation=1,
        told=told,
        used=(UsedAt(host="n2", workspace="w-0", used=used(NOW, 5)),),
    )
    step = step_of(
        ending, {"n1": 1}, {"n1": seen(used(), gone=True)}, fleet, POLICY, now=NOW + SECOND
    )
    assert isinstance(step, End)
    assert [(each.host, each.used.cpu_ns) for each in step.part.used] == [("n1", 10), ("n2", 5)]


def test_the_last_record_waits_for_what_hosts_that_count_have_to_tell() -> None:
    lease = part()
    over = lease.window.end
    assert due_of(lease, None, {"n1": seen(None)}) == over, "nobody counts"
    assert due_of(lease, None, {"n1": seen(used())}) == over + LAST_WORD
    cancelled = lease.ending(now=HALF.end, reason="CANCELLED")
    assert due_of(cancelled, None, {"n1": seen(used())}) == HALF.end + LAST_WORD
    ended = cancelled.move(PartState.ENDED, now=HALF.end + SECOND)
    assert due_of(replace(ended, used=on_record({("n1", "w-0"): used()})), None, {}) == HALF.end


FLEET = Fleet.of([facts("n1"), facts("n2")], POLICY)


def left_behind() -> Part:
    """`w-1` was beside `w-0` on n1 before an Update, of which n1 has been told."""
    both = tuple(Placed(workspace=name, host="n1") for name in ("w-0", "w-1"))
    before = Shed(
        spec=part_spec(workspace(), workspace(index=1)), placed=both, gateway="", generation=1
    )
    one = part(placed=both[:1], shed=(before,), generation=1)
    return replace(one, told=fingerprint(wanted_of(one, FLEET, POLICY, gone=False)))


def with_w1(at: datetime, cpu_ns: int) -> SeenPart:
    """n1 keeps what it counted for `w-1` as long as it has anything of the part."""
    report = seen(used(at))
    gone = SeenWorkspace(name="w-1", state=WorkspaceState.STOPPED, used=used(at, cpu_ns))
    return replace(report, workspaces=(*report.workspaces, gone), obeyed_generation=1)


def test_what_left_a_host_that_stays_is_on_record_before_that_is_heard_on_it_no_more() -> None:
    """A bug: counts were put on record only where a host had nothing of the part any more, so what
    `w-1` had used since the record before was lost."""
    step = step_of(
        left_behind(), {"n1": 1}, {"n1": with_w1(NOW, 100)}, FLEET, POLICY, now=NOW + SECOND
    )
    assert isinstance(step, GivenUp)
    assert (step.part.shed, step.hosts) == ((), ())
    assert {each.workspace: each.used.cpu_ns for each in step.part.used} == {"w-0": 10, "w-1": 100}


def test_who_comes_back_has_only_what_it_used_since_written_down() -> None:
    """A bug: the record after the one in which `w-1` left forgot what was written of it, and its
    host counts on: 101 were written where it had used 1 more, by parts too of which a release
    before had put nothing on record."""
    two = replace(left_behind(), used=())
    written = written_after((), known_of(two, {"n1": with_w1(NOW, 100)}))
    one = replace(two, shed=())
    written = written_after(written, known_of(one, {"n1": with_w1(NOW + SECOND, 100)}))
    back = replace(one, placed=(*one.placed, Placed(workspace="w-1", host="n1")))
    known = known_of(back, {"n1": with_w1(HALF.end, 101)})
    found = {each.workspace: each for each in used_in(HALF, ["w-0", "w-1"], written, known)}
    assert found["w-1"].used is not None
    assert (found["w-1"].used.cpu_ns, found["w-1"].unknown) == (1, False)
