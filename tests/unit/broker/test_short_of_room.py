"""What a broker refuses while its etcd is short of room, and what it goes on with."""

from __future__ import annotations

import pytest

from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.pace import paces_of
from intertie.broker.domain.part import PartState
from intertie.broker.domain.records import Change, RequestKey, Write
from intertie.broker.domain.stretches import put_aside
from intertie.broker.loops.queue import Queue
from intertie.broker.usecases.admission import Admission, Admitted
from intertie.common.errors import LedgerFull
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import MemoryLedger
from tests.fakes.room import FakeRoom
from tests.unit.broker.line import ImagesHere, best_effort, reports_of, waits
from tests.unit.broker.samples import HOUR, NOW, POLICY, facts, part

REQUEST = RequestKey(caller="meta", request_id="t1", digest="d")


def admitted(view: LedgerView, *, takes: bool, waits: bool = False) -> Admitted:
    held = part("t1", PartState.HELD)
    change = Change(writes=(Write(record=held),), admitted_on=view.generation if takes else None)
    return Admitted(change=change, answer=held.name, uid=held.uid, waits=waits)


@pytest.mark.parametrize(("takes", "waits"), [(True, False), (False, True)])
async def test_what_takes_capacity_or_waits_for_it_is_refused_and_leaves_nothing(
    takes: bool, waits: bool
) -> None:
    ledger, room = MemoryLedger(POLICY), FakeRoom(short=True)
    admission = Admission(ledger, FakeClock(), room)
    with pytest.raises(LedgerFull):
        await admission.admit(REQUEST, lambda view, _: admitted(view, takes=takes, waits=waits))
    assert ledger.commits == []
    room.short = False
    await admission.admit(REQUEST, lambda view, _: admitted(view, takes=takes, waits=waits))
    room.short = True
    # Its answer is on record.
    again = await admission.admit(REQUEST, lambda view, _: admitted(view, takes=True))
    assert again.uid == part("t1", PartState.HELD).uid


async def test_what_takes_nothing_more_is_written() -> None:
    ledger = MemoryLedger(POLICY)
    admission = Admission(ledger, FakeClock(), FakeRoom(short=True))
    await admission.admit(REQUEST, lambda view, _: admitted(view, takes=False))
    assert len(ledger.commits) == 1


async def test_of_the_queue_what_was_put_aside_goes_on_and_nothing_starts() -> None:
    """A bug: each pass of the queue wrote new parts, with a fifth of the store left for ends."""
    ledger, room, clock = MemoryLedger(POLICY), FakeRoom(short=True), FakeClock(NOW)
    for host in ("n1", "n2"):
        ledger.report(facts(host, report_time=NOW))
    record = waits("a", best_effort(4, HOUR))
    await ledger.commit(Change(writes=(Write(record=record),)))
    queue = Queue(ledger, POLICY, clock, lambda: "seed", room, ImagesHere())
    await queue.sweep()
    assert (await ledger.view()).parts == {}
    room.short = False
    await queue.sweep()
    room.short = True
    [found] = (await ledger.view()).parts.values()
    paces, now = paces_of(await ledger.view(), POLICY), NOW + HOUR / 2
    aside = put_aside(found.value, record, now, paces, POLICY, now=now)
    await ledger.commit(Change(writes=(Write(record=aside, read_at=found.revision),)))
    await clock.advance(HOUR.total_seconds() / 2 + 60)
    for host in ("n1", "n2"):
        ledger.report(facts(host, report_time=clock.now()))
    for report in reports_of(aside).values():
        ledger.see(report)
    await queue.sweep()
    [on] = (await ledger.view()).parts.values()
    assert on.value.window.start == clock.now()
