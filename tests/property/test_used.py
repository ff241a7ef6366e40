"""Whatever begins anew and whenever it is read: what is added up is what was used, less what nobody
could have read."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from intertie.broker.domain.counted import Used, UsedAt
from intertie.broker.domain.used import on_record, used_in
from intertie.common.intervals import Window
from intertie.nodeagent.domain.used import GUEST, Tally, counted, guest_mark

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
STEP = timedelta(seconds=5)
amount = st.integers(0, 1000)
event = st.one_of(
    st.tuples(st.just("use"), amount),
    st.tuples(st.just("read"), st.just(0)),
    st.tuples(st.just("restart"), st.booleans()),
    st.tuples(st.just("agent"), st.just(0)),
)


@given(st.lists(event, max_size=40))
def test_counters_that_begin_anew_lose_only_what_was_not_read(
    events: list[tuple[str, int]],
) -> None:
    """A guest uses, restarts (libvirt may give it the same id), the agent reads and is restarted
    with what it kept."""
    tally = Tally(part_uid="p", workspace="w-0", read_time=START)
    now, run, counter = START, 0, 0
    total = unread = 0
    for what, value in events:
        now += STEP
        if what == "use":
            counter += value
            total += value
            unread += value
        elif what == "restart":
            total -= unread
            counter, unread, run = 0, 0, run + 1
        elif what == "read":
            mark = guest_mark(f"b/{run}", cpu_ns=counter, disk_operations=0, disk_bytes=counter)
            tally = counted(tally, {GUEST: mark}, suspended=False, at=now)
            unread = 0
        assert (tally.cpu_ns, tally.disk_bytes) == (total - unread, total - unread)
    assert tally.suspended == timedelta()


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 60)), min_size=1, max_size=20))
def test_suspended_is_the_time_between_two_readings_that_saw_it(
    readings: list[tuple[bool, int]],
) -> None:
    tally, now, before, total = (
        Tally(part_uid="p", workspace="w-0", read_time=START), START, False, 0
    )  # fmt: skip
    for suspended, seconds in readings:
        now += timedelta(seconds=seconds)
        total += seconds if suspended and before else 0
        tally, before = counted(tally, {}, suspended=suspended, at=now), suspended
    assert tally.suspended == timedelta(seconds=total)


@given(st.lists(st.tuples(st.sampled_from(["n1", "n2"]), amount), min_size=1, max_size=30))
def test_records_add_up_to_what_hosts_counted(steps: list[tuple[str, int]]) -> None:
    """Written now and then, by whichever leader: each octet is in one record."""
    known: dict[tuple[str, str], Used] = {}
    written: tuple[UsedAt, ...] = ()
    now, in_records = START, 0
    for number, (host, more) in enumerate(steps):
        now += STEP
        before = known.get((host, "w-0"))
        counted_now = (before.cpu_ns if before else 0) + more
        known[host, "w-0"] = Used(read_time=now, cpu_ns=counted_now)
        if number % 3 == 0:
            period = Window(START, now)
            [found] = used_in(period, ["w-0"], written, known)
            assert found.used is not None
            in_records += found.used.cpu_ns
            written = on_record(known)
    [rest] = used_in(Window(START, now), ["w-0"], written, known)
    assert rest.used is not None
    assert in_records + rest.used.cpu_ns == sum(more for _, more in steps)
