"""A request that comes more than once at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import pytest

from intertie.broker.adapters.etcd_ledger import EtcdLedger
from intertie.broker.domain.cluster import ClusterView
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import PartState
from intertie.broker.domain.records import Change, RequestKey, RequestRecord, Write
from intertie.broker.usecases.admission import Admission, Admitted
from intertie.common.errors import NameTaken, StaleWrite
from intertie.common.etcd.client import Compare, Op, Put, TxnResult
from intertie.common.values import replace
from tests.fakes.clock import START, FakeClock
from tests.fakes.etcd import MemoryEtcd
from tests.fakes.room import FakeRoom
from tests.unit.broker.samples import HOUR, POLICY, part
from tests.unit.broker.test_line import Leads
from tests.unit.broker.test_names_taken import LOCAL, World
from tests.unit.broker.test_passes import NAME

REQUEST = RequestKey(caller="meta", request_id="t1", digest="d")


class Slow(MemoryEtcd):
    """Writes nothing until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()
        self.may.set()

    async def txn(self, compare: Sequence[Compare], then: Sequence[Op]) -> TxnResult:
        await self.may.wait()
        return await super().txn(compare, then)


class Desk:
    """Admissions to a site whose etcd takes its time."""

    def __init__(self) -> None:
        self.etcd, self.clock = Slow(), FakeClock()
        self.decided: list[datetime] = []

    async def open(self) -> None:
        done = await self.etcd.txn([], [Put("election/broker", b"this")])
        self.ledger = EtcdLedger(self.etcd, Leads(done.revision), POLICY, self.clock)
        self.admission = Admission(self.ledger, self.clock, FakeRoom())

    async def admit(self, request: RequestKey = REQUEST) -> RequestRecord:
        return await self.admission.admit(request, self._decide)

    def _decide(self, view: LedgerView, now: datetime) -> Admitted:
        self.decided.append(now)
        held = part("t1", PartState.HELD)
        if held.name in view.parts:
            raise NameTaken(held.name)
        change = Change(writes=(Write(record=held),), admitted_on=view.generation)
        return Admitted(change=change, answer=held.name, uid=held.uid)


@pytest.fixture
async def desk() -> Desk:
    made = Desk()
    await made.open()
    return made


async def test_a_copy_that_comes_while_the_first_is_written_gets_its_answer(desk: Desk) -> None:
    """A bug: both were decided, and counted; the second was answered with an internal error."""
    desk.etcd.may.clear()
    copies = [asyncio.create_task(desk.admit()) for _ in range(3)]
    await desk.clock.settle()
    desk.etcd.may.set()
    answers = await asyncio.gather(*copies)
    assert answers[0] == answers[1] == answers[2]
    assert len(desk.decided) == 1
    assert (await desk.ledger.view()).generation == 1
    assert not len(desk.admission._at_work)


async def test_a_copy_that_comes_after_the_first_was_given_up_gets_its_answer(desk: Desk) -> None:
    """A bug: a caller whose connection broke let go of its request while that stood in line; the
    copy was answered with an internal error."""
    desk.etcd.may.clear()
    first = asyncio.create_task(desk.admit())
    await desk.clock.settle()
    first.cancel()
    await desk.clock.settle()
    copy = asyncio.create_task(desk.admit())
    await desk.clock.settle()
    desk.etcd.may.set()
    assert (await copy).answer == part("t1", PartState.HELD).name
    assert len(desk.decided) == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_of_two_requests_for_one_part_the_second_is_told_so(desk: Desk) -> None:
    desk.etcd.may.clear()
    other = replace(REQUEST, request_id="t2")
    first, second = (asyncio.create_task(desk.admit(each)) for each in (REQUEST, other))
    with pytest.raises(StaleWrite):
        await second
    desk.etcd.may.set()
    assert (await first).request_id == "t1"
    with pytest.raises(NameTaken):
        await desk.admit(other)
    assert (await desk.ledger.view()).generation == 1


async def test_a_copy_that_found_no_room_is_not_told_that_its_own_name_is_taken() -> None:
    """A bug: one copy found the site full and was to be handed on; another found room meanwhile,
    and the first said that the name was taken."""
    world = World()
    own = replace(LOCAL, uid="own", owner="alice", window=replace(LOCAL.window, end=START + HOUR))
    request = RequestKey(caller="alice", request_id="r1", digest="d")
    answer = RequestRecord.of(request, answer=str(NAME), uid="own", now=START)
    world.ledger.rival = Change(
        writes=(Write(record=own), Write(record=part()), Write(record=answer))
    )
    created = await world.create(50)
    assert isinstance(created, ClusterView)
    assert created.record.uid == "own"
    assert world.beyond.made == {}
