"""One channel to a service of several replicas: one of them leads, all of them read.

A call that meets a replica which cannot be reached, or does not lead, goes to the next one at
once. So it may be made twice: nothing may go over such a channel that is not idempotent. Reads are;
of what changes something, a request id (Create, Update, Act, Hold) or the state of what it names
(Prepare, Resolve, Release, Delete) sees to it that the second time takes nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self

import grpc

from intertie.common.clock import Clock
from intertie.common.errors import DomainError, EtcdUnavailable, LedgerFull, NotLeading
from intertie.common.rpc.errors import to_domain_error, to_rpc_status
from intertie.common.rpc.replica_stream import ReplicaStream, connects

DEFAULT_TIMEOUT_S = 30.0
"""Of a unary call for which the caller gives none: nothing waits for ever."""

FAIL_OVER_S = 10.0
"""The most that passes until another replica leads, after one that led was killed."""

PAUSE_S = 0.25
"""After all have been asked, and none leads."""

SILENCE_S = 1.0
"""So long one replica alone is waited for, for what is the leader's own: the others refuse that at
little cost. A hold says what time it is, and 2 s are allowed."""
READ_SILENCE_S = 3.0
"""Likewise for a read, which costs the others as much; half of its deadline, where that is less."""

LEADERS_OWN = frozenset(
    {
        "/intertie.api.cluster.v1.Clusters/Create",
        "/intertie.api.cluster.v1.Clusters/Update",
        "/intertie.api.cluster.v1.Clusters/Act",
        "/intertie.api.cluster.v1.Clusters/Delete",
        "/intertie.api.broker.v1.Parts/Hold",
        "/intertie.api.broker.v1.Parts/BatchHold",
        "/intertie.api.broker.v1.Parts/Prepare",
        "/intertie.api.broker.v1.Parts/Resolve",
        "/intertie.api.broker.v1.Parts/Release",
        "/intertie.api.broker.v1.Parts/Act",
    }
)
"""What only the leader does. Every replica answers the rest."""


class Copies:
    """Of a call that was made while they were watched."""

    def __init__(self) -> None:
        self.under_way = False
        """A replica was asked and has not said what it did, so it may do it yet."""


_watched: ContextVar[Copies | None] = ContextVar("copies", default=None)


@contextmanager
def watched_copies() -> Iterator[Copies]:
    """For who has to know whether a refusal is the last word on its call."""
    copies = Copies()
    token = _watched.set(copies)
    try:
        yield copies
    finally:
        _watched.reset(token)


class ReplicaChannel(grpc.aio.Channel):
    """Stands before one channel for each replica.

    What is the leader's own goes first to whom it was last done by. Reads begin at a replica that
    is drawn once, so that those of many clients are spread over all, and stay there while it
    answers, so that one client does not see time run backwards. One that says nothing for a while
    is not given up, but the others are asked beside it: it may stand still, and another lead.

    Where none leads, all are asked again until one does: for `patience_s`, and no longer than the
    call's deadline. Then, and where none can be reached, the call fails at once: with NOT_LEADING,
    which names all that were asked, or with how the last of them failed.
    """

    def __init__(
        self,
        channels: Mapping[str, grpc.aio.Channel],
        clock: Clock,
        *,
        patience_s: float,
        draw: Callable[[int], int] = random.randrange,
    ) -> None:
        """`channels` by address, one at least. `draw` gives a number below its argument."""
        self._addresses = tuple(channels)
        self._channels = tuple(channels.values())
        self._clock = clock
        self._patience_s = patience_s
        self._leader = 0
        """Index of who did last what is the leader's own."""
        self._reader = draw(len(self._channels))

    @property
    def alone(self) -> bool:
        return len(self._channels) == 1

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        methods = [each.unary_unary(method, *args, **kwargs) for each in self._channels]

        def call(
            request: Any,
            *,
            timeout: float | None = None,
            wait_for_ready: bool | None = None,
            **options: Any,
        ) -> Awaitable[Any]:
            if self.alone:  # gRPC itself waits for one, and sooner sees it come
                options["wait_for_ready"] = wait_for_ready
                if not self._patience_s:
                    answer: Awaitable[Any] = methods[0](request, timeout=timeout, **options)
                    return answer
            ask = _Question(
                methods=methods,
                request=request,
                options=options,
                # Planning alone is every replica's.
                leaders_own=method in LEADERS_OWN and not getattr(request, "validate_only", False),
                began=self._clock.monotonic(),
                timeout_s=DEFAULT_TIMEOUT_S if timeout is None else timeout,
                waits=bool(wait_for_ready),
            )
            return self._answer(ask)

        return call

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        methods = [each.unary_stream(method, *args, **kwargs) for each in self._channels]
        return lambda *given, **options: ReplicaStream(self, methods, given, options)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        methods = [each.stream_stream(method, *args, **kwargs) for each in self._channels]
        return lambda *given, **options: ReplicaStream(self, methods, given, options)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("no service of several replicas has such a method")

    async def _answer(self, ask: _Question) -> Any:
        until = ask.began + ask.timeout_s
        patient_until = min(until, ask.began + self._patience_s)
        failures = _Failures()
        asking: dict[asyncio.Future[Any], int] = {}
        under_way = False
        try:
            while True:
                number = self._next(ask, {*asking.values(), *failures.numbers})
                now = self._clock.monotonic()
                if number is not None:
                    call = ask.methods[number](ask.request, timeout=until - now, **ask.options)
                    asking[asyncio.ensure_future(call)] = number
                elif not asking:
                    again = now + PAUSE_S
                    leaderless = failures.leaderless and again < patient_until
                    absent = failures.unreachable and ask.waits and again < until
                    if not (leaderless or absent):
                        raise failures.left(self._addresses)
                    await self._clock.sleep(PAUSE_S)
                    failures = _Failures()
                    continue
                heard = await self._heard(asking, ask.silence_s)
                for each in heard:
                    error = each.exception()
                    if error is None:
                        self._answered(ask, asking[each])
                        return each.result()
                    if not isinstance(error, grpc.aio.AioRpcError) or not goes_on(error):
                        self.broke(asking[each], error)
                        raise error
                    under_way = under_way or not refused(error)
                    failures.add(asking.pop(each), error)
                if not heard and number is None and self._clock.monotonic() < patient_until:
                    failures = _Failures()  # one of those may lead by now
        finally:
            for each in asking:
                if each.cancel():
                    under_way = True
                elif not each.cancelled():
                    each.exception()  # is thereby known: another's answer came with it
            if under_way and (copies := _watched.get()) is not None:
                copies.under_way = True

    def _next(self, ask: _Question, but: set[int]) -> int | None:
        order = self._order(self._leader if ask.leaders_own else self._reader)
        return next((number for number in order if number not in but), None)

    async def _heard(
        self, asking: Mapping[asyncio.Future[Any], int], silence_s: float
    ) -> list[asyncio.Future[Any]]:
        """Those that are over, in the order in which they were asked; none, when there is more to
        ask and nothing was heard for long."""
        if len(asking) == len(self._channels):
            done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            return [each for each in asking if each in done]
        silence = asyncio.ensure_future(self._clock.sleep(silence_s))
        try:
            done, _ = await asyncio.wait({*asking, silence}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            silence.cancel()
        return [each for each in asking if each in done]

    def _answered(self, ask: _Question, number: int) -> None:
        if ask.leaders_own:
            self._leader = number
        else:
            self._reader = number

    def _order(self, first: int) -> Sequence[int]:
        count = len(self._channels)
        return [(first + step) % count for step in range(count)]

    async def reachable(self) -> int:
        """Index of the replica that a stream goes to; where there is none, of the first one, whose
        failure says why."""
        order = self._order(self._reader)
        if self.alone:
            return order[0]
        for number in order:
            if await connects(self._channels[number]):
                self._reader = number
                return number
        return order[0]

    def broke(self, number: int, error: BaseException) -> None:
        """What began there ended so: where another replica may do better, what comes next begins at
        one."""
        if not isinstance(error, grpc.aio.AioRpcError):
            return
        if goes_on(error) or error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            following = (number + 1) % len(self._channels)
            self._reader = following if self._reader == number else self._reader
            self._leader = following if self._leader == number else self._leader

    async def close(self, grace: float | None = None) -> None:
        for each in self._channels:
            await each.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channels[self._reader].get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channels[self._reader].wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channels[await self.reachable()].channel_ready()


def goes_on(error: grpc.aio.AioRpcError) -> bool:
    """Whether another replica may answer the same call."""
    meant = to_domain_error(error)
    if meant is not None:
        # All replicas have the same store: one that is full is so for each of them.
        return isinstance(meant, NotLeading | EtcdUnavailable) and not isinstance(meant, LedgerFull)
    return error.code() is grpc.StatusCode.UNAVAILABLE


def refused(error: grpc.aio.AioRpcError) -> bool:
    """Whether the replica has said that it does nothing of it, now or later."""
    return isinstance(to_domain_error(error), NotLeading)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """One unary call, as it is asked of each replica."""

    methods: Sequence[Any]
    """By index of the replica."""
    request: Any
    options: Mapping[str, Any]
    leaders_own: bool
    began: float
    """Monotonic."""
    timeout_s: float
    waits: bool
    """For a replica that can be reached, too."""

    @property
    def silence_s(self) -> float:
        return SILENCE_S if self.leaders_own else min(READ_SILENCE_S, self.timeout_s / 2)


class _Failures:
    """How replicas that were asked have failed."""

    def __init__(self) -> None:
        self._errors: dict[int, grpc.aio.AioRpcError] = {}
        self._meant: list[DomainError] = []

    @property
    def numbers(self) -> Iterable[int]:
        return self._errors

    def add(self, number: int, error: grpc.aio.AioRpcError) -> None:
        self._errors[number] = error
        if (meant := to_domain_error(error)) is not None:
            self._meant.append(meant)

    @property
    def leaderless(self) -> bool:
        return any(isinstance(each, NotLeading) for each in self._meant)

    @property
    def unreachable(self) -> bool:
        """All of them."""
        return not self._meant

    def left(self, addresses: Sequence[str]) -> grpc.aio.AioRpcError:
        """What the caller is told. A store that does not answer is why nobody leads, or why its
        leader does not write; one replica that does not lead says less."""
        if self.leaderless and not any(isinstance(e, EtcdUnavailable) for e in self._meant):
            leaders = {e.leader for e in self._meant if isinstance(e, NotLeading) and e.leader}
            asked = ", ".join(addresses[number] for number in self._errors)
            return _rpc_error(NotLeading(", ".join(sorted(leaders)), asked))
        errors = list(self._errors.values())
        said = [each for each in errors if isinstance(to_domain_error(each), EtcdUnavailable)]
        return (said or errors)[-1]


def _rpc_error(error: DomainError) -> grpc.aio.AioRpcError:
    status = to_rpc_status(error)
    trailing = grpc.aio.Metadata(*status.trailing_metadata)
    return grpc.aio.AioRpcError(
        status.code, grpc.aio.Metadata(), trailing, details=str(status.details)
    )
