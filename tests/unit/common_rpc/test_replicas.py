"""A channel to several replicas: who is asked, in which order, for how long, and what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from intertie.common.errors import EtcdUnavailable, NoCapacity, NotLeading
from intertie.common.rpc.errors import to_domain_error, to_rpc_status
from intertie.common.rpc.replicas import (
    FAIL_OVER_S,
    PAUSE_S,
    READ_SILENCE_S,
    SILENCE_S,
    ReplicaChannel,
    watched_copies,
)
from tests.fakes.clock import FakeClock

CREATE = "/intertie.api.cluster.v1.Clusters/Create"
GET = "/intertie.api.cluster.v1.Clusters/Get"

Answer = Callable[[], Any]


def failing(code: grpc.StatusCode, details: str = "") -> Answer:
    def answer() -> Any:
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)

    return answer


def refusing(error: Any) -> Answer:
    def answer() -> Any:
        status = to_rpc_status(error)
        trailing = grpc.aio.Metadata(*status.trailing_metadata)
        raise grpc.aio.AioRpcError(status.code, grpc.aio.Metadata(), trailing, status.details)

    return answer


ABSENT = failing(grpc.StatusCode.UNAVAILABLE, "connection refused")
FOLLOWS = refusing(NotLeading(""))


class FakeReplica:
    """Answers with its name, or as the test has set it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.does: Answer | None = None
        self.silent = False
        self.asked = 0
        self.timeouts: list[float] = []
        self.given_up = 0

    def unary_unary(self, method: str, **_: Any) -> Any:
        async def call(request: Any, *, timeout: float, **options: Any) -> Any:
            self.asked += 1
            self.timeouts.append(timeout)
            try:
                while self.silent:
                    await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                self.given_up += 1
                raise
            return self.does() if self.does else self.name

        return call


class Place:
    def __init__(self, *names: str, patience_s: float = FAIL_OVER_S) -> None:
        self.clock = FakeClock()
        self.replicas = {name: FakeReplica(name) for name in names}
        self.channel = ReplicaChannel(
            self.replicas,  # type: ignore[arg-type]
            self.clock,
            patience_s=patience_s,
            draw=lambda count: count - 1,
        )

    def __getitem__(self, name: str) -> FakeReplica:
        return self.replicas[name]

    async def ask(self, method: str, **options: Any) -> Any:
        return await self.channel.unary_unary(method)(object(), **options)

    def asking(self, method: str, **options: Any) -> asyncio.Task[Any]:
        return asyncio.create_task(self.ask(method, **options))


async def refused(task: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await task
    return caught.value


async def test_what_is_the_leaders_own_goes_on_to_whom_leads_and_stays_there() -> None:
    here = Place("a", "b", "c")
    here["a"].does, here["b"].does = ABSENT, FOLLOWS
    assert await here.ask(CREATE) == "c"
    assert await here.ask(CREATE) == "c"
    assert [each.asked for each in here.replicas.values()] == [1, 1, 2]
    assert here.clock.monotonic() == 0, "without a pause"


async def test_a_read_begins_where_it_was_drawn_and_moves_on_only_when_it_must() -> None:
    here = Place("a", "b")
    assert [await here.ask(GET), await here.ask(GET)] == ["b", "b"]
    here["b"].does = ABSENT
    assert await here.ask(GET) == "a"
    here["b"].does = None
    assert await here.ask(GET) == "a"
    assert await here.ask(CREATE) == "a", "who reads there writes where it did before"


async def test_the_reads_of_many_callers_are_spread_over_all() -> None:
    drawn = set()
    for _ in range(64):
        replicas: Any = {name: FakeReplica(name) for name in ("a", "b")}
        channel = ReplicaChannel(replicas, FakeClock(), patience_s=0)
        drawn.add(await channel.unary_unary(GET)(object()))
    assert drawn == {"a", "b"}


async def test_a_refusal_is_an_answer() -> None:
    here = Place("a", "b")
    here["a"].does = refusing(NoCapacity(()))
    error = await refused(here.ask(CREATE))
    assert isinstance(to_domain_error(error), NoCapacity)
    assert here["b"].asked == 0


async def test_of_an_answer_it_is_known_whether_another_copy_may_be_under_way() -> None:
    """One that is silent, or whose connection broke, may have taken it, or do so yet; one that does
    not lead has refused."""

    async def watched(first: Answer | None, *, silent: bool = False) -> bool:
        here = Place("a", "b")
        here["a"].does, here["a"].silent = first, silent
        here["b"].does = refusing(NoCapacity(()))
        with watched_copies() as copies:
            asking = here.asking(CREATE)
            await here.clock.settle()
            await here.clock.advance(SILENCE_S)
            await refused(asking)
        return copies.under_way

    assert not await watched(FOLLOWS)
    assert not await watched(refusing(NoCapacity(())))
    assert await watched(None, silent=True)
    assert await watched(ABSENT)
    assert await watched(refusing(EtcdUnavailable("no answer in time")))


async def test_while_none_leads_all_are_asked_again_until_one_does() -> None:
    here = Place("a", "b")
    here["a"].does, here["b"].does = ABSENT, FOLLOWS
    task = here.asking(CREATE)
    await here.clock.advance(5)
    assert not task.done()
    here["b"].does = None
    await here.clock.advance(PAUSE_S)
    assert await task == "b"


async def test_the_error_that_is_left_says_that_none_leads_and_whom_it_asked() -> None:
    here = Place("a", "b")
    here["a"].does, here["b"].does = ABSENT, refusing(NotLeading("x"))
    task = here.asking(CREATE)
    await here.clock.advance(FAIL_OVER_S + 1)
    assert task.done()
    meant = to_domain_error(await refused(task))
    assert isinstance(meant, NotLeading)
    assert (meant.leader, meant.asked) == ("x", "a, b")
    assert str(meant) == "no replica leads; asked were a, b"


async def test_no_longer_than_the_deadline() -> None:
    here = Place("a")
    here["a"].does = FOLLOWS
    task = here.asking(CREATE, timeout=2)
    await here.clock.advance(2)
    assert isinstance(to_domain_error(await refused(task)), NotLeading)
    assert min(here["a"].timeouts) > 0


async def test_who_has_no_patience_is_told_after_one_round() -> None:
    here = Place("a", "b", patience_s=0)
    here["a"].does = here["b"].does = FOLLOWS
    assert isinstance(to_domain_error(await refused(here.ask(CREATE))), NotLeading)
    assert here["a"].asked == here["b"].asked == 1


async def test_none_that_can_be_reached_is_told_at_once() -> None:
    here = Place("a", "b")
    here["a"].does = here["b"].does = ABSENT
    error = await refused(here.ask(CREATE))
    assert error.details() == "connection refused"


async def test_who_waits_for_ready_is_told_when_the_time_is_over() -> None:
    here = Place("a", "b", patience_s=0)
    here["a"].does = here["b"].does = ABSENT
    task = here.asking(CREATE, timeout=5, wait_for_ready=True)
    await here.clock.advance(4)
    assert not task.done()
    here["b"].does = None
    await here.clock.advance(PAUSE_S)
    assert await task == "b"


async def test_a_store_that_does_not_answer_says_more_than_a_replica_that_does_not_lead() -> None:
    here = Place("a", "b", patience_s=0)
    here["a"].does, here["b"].does = refusing(EtcdUnavailable("away")), FOLLOWS
    meant = to_domain_error(await refused(here.ask(CREATE)))
    assert isinstance(meant, EtcdUnavailable)


async def test_beside_a_leader_that_stands_still_the_others_are_asked_until_one_leads() -> None:
    here = Place("a", "b")
    here["a"].silent, here["b"].does = True, FOLLOWS
    task = here.asking(CREATE, timeout=60)
    await here.clock.advance(SILENCE_S * 4)
    assert (here["a"].asked, here["b"].asked) == (1, 4)
    here["b"].does = None
    await here.clock.advance(SILENCE_S * 2)
    assert await task == "b"
    assert here["a"].given_up == 1
    assert await here.ask(CREATE) == "b"


async def test_a_leader_that_is_only_slow_is_not_given_up() -> None:
    here = Place("a", "b")
    slow = asyncio.Event()
    here["b"].does = FOLLOWS

    def unary_unary(method: str, **_: Any) -> Any:
        async def call(request: Any, **options: Any) -> str:
            await slow.wait()
            return "a, at last"

        return call

    here["a"].unary_unary = unary_unary  # type: ignore[method-assign]
    task = here.asking(CREATE, timeout=60)
    await here.clock.advance(30)
    assert not task.done()
    slow.set()
    assert await task == "a, at last"


async def test_a_read_that_hangs_is_answered_by_another() -> None:
    here = Place("a", "b")
    here["b"].silent = True
    task = here.asking(GET, timeout=60)
    await here.clock.advance(READ_SILENCE_S)
    assert await task == "a"
    assert await here.ask(GET) == "a"


@pytest.mark.parametrize(("method", "first", "then"), [(GET, "b", "a"), (CREATE, "a", "b")])
async def test_after_a_deadline_was_missed_the_next_call_begins_elsewhere(
    method: str, first: str, then: str
) -> None:
    here = Place("a", "b")
    here[first].does = failing(grpc.StatusCode.DEADLINE_EXCEEDED)
    error = await refused(here.ask(method))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await here.ask(method) == then
    assert here[first].asked == 1


async def test_planning_alone_is_asked_as_a_read_is() -> None:
    class Plan:
        validate_only = True

    here = Place("a", "b")
    assert await here.channel.unary_unary(CREATE)(Plan()) == "b"
    here["b"].silent = True
    task = asyncio.create_task(here.channel.unary_unary(CREATE)(Plan(), timeout=60))
    await here.clock.advance(SILENCE_S)
    assert here["a"].asked == 0, "planning takes its time: it is not done twice for a second's sake"
    await here.clock.advance(READ_SILENCE_S)
    assert await task == "a"
