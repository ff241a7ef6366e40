"""One channel to a service of several replicas: one of them leads, all of them read.

A call that meets a replica which cannot be reached, or does not lead, goes to the next one at
once. So it may be made twice: nothing may go over such a channel that is not idempotent. Reads are;
of what changes something, a request id (Create, Hold) or the state of what it names (Prepare,
Resolve, Release, Delete) sees to it that the second time takes nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc

from intertie.common.clock import Clock
from intertie.common.errors import DomainError, EtcdUnavailable, NotLeading
from intertie.common.rpc.errors import to_domain_error, to_rpc_status

DEFAULT_TIMEOUT_S = 30.0
"""Of a unary call for which the caller gives none: nothing waits for ever."""

FAIL_OVER_S = 10.0
"""The most that passes until another replica leads, after one that led was killed."""

PAUSE_S = 0.25
"""After all have been asked, and none leads."""

CONNECT_S = 3.0
"""So long a stream waits for one replica to be reached before it looks at the next."""

LEADERS_OWN = frozenset(
    {
        "/intertie.api.cluster.v1.Clusters/Create",
        "/intertie.api.cluster.v1.Clusters/Delete",
        "/intertie.api.broker.v1.Parts/Hold",
        "/intertie.api.broker.v1.Parts/Prepare",
        "/intertie.api.broker.v1.Parts/Resolve",
        "/intertie.api.broker.v1.Parts/Release",
    }
)
"""What only the leader does. Every replica answers the rest."""


class ReplicaChannel(grpc.aio.Channel):
    """Stands before one channel for each replica.

    What is the leader's own goes first to whom it was last done by. Reads begin at a replica that
    is drawn once, so that those of many clients are spread over all, and stay there while it
    answers, so that one client does not see time run backwards.

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
        leaders_own = method in LEADERS_OWN

        def call(
            request: Any,
            *,
            timeout: float | None = None,
            wait_for_ready: bool | None = None,
            **options: Any,
        ) -> Awaitable[Any]:
            if self.alone:  # gRPC itself waits for one, and sooner sees it come
                options["wait_for_ready"] = wait_for_ready
            timeout_s = DEFAULT_TIMEOUT_S if timeout is None else timeout
            ask = _Question(
                methods=methods,
                request=request,
                options=options,
                leaders_own=leaders_own,
                began=self._clock.monotonic(),
            )
            return self._answer(ask, timeout_s, wait=bool(wait_for_ready))

        return call

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        methods = [each.unary_stream(method, *args, **kwargs) for each in self._channels]
        return lambda *given, **options: _Stream(self, methods, given, options)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        methods = [each.stream_stream(method, *args, **kwargs) for each in self._channels]
        return lambda *given, **options: _Stream(self, methods, given, options)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("no service of several replicas has such a method")

    async def _answer(self, ask: _Question, timeout_s: float, *, wait: bool) -> Any:
        until = ask.began + timeout_s
        patient_until = min(until, ask.began + self._patience_s)
        while True:
            failures = _Failures()
            for number in self._order(self._leader if ask.leaders_own else self._reader):
                left_s = until - self._clock.monotonic()
                if left_s <= 0 and failures:
                    break
                # A read that hangs at one replica leaves time for the others. What is the leader's
                # own is not cut short: planning may take all of it.
                replicas = len(self._channels) - len(failures)
                share_s = left_s if ask.leaders_own else left_s / replicas
                try:
                    answer = await ask.methods[number](ask.request, timeout=share_s, **ask.options)
                except grpc.aio.AioRpcError as error:
                    if not goes_on(error, cut_short=share_s < left_s):
                        raise
                    failures.add(self._addresses[number], error)
                    continue
                if ask.leaders_own:
                    self._leader = number
                else:
                    self._reader = number
                return answer
            later = self._clock.monotonic() + PAUSE_S
            leaderless = failures.leaderless and later < patient_until
            if not leaderless and not (wait and failures.unreachable and later < until):
                raise failures.left()
            await self._clock.sleep(PAUSE_S)

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
            if await _connects(self._channels[number]):
                self._reader = number
                return number
        return order[0]

    def leave(self, number: int) -> None:
        """A stream from there broke: the next one begins elsewhere."""
        if self._reader == number:
            self._reader = (number + 1) % len(self._channels)

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


def goes_on(error: grpc.aio.AioRpcError, *, cut_short: bool = False) -> bool:
    """Whether another replica may answer the same call. `cut_short`: it was not given all of its
    time."""
    meant = to_domain_error(error)
    if meant is not None:
        return isinstance(meant, NotLeading | EtcdUnavailable)
    code = error.code()
    return code is grpc.StatusCode.UNAVAILABLE or (
        cut_short and code is grpc.StatusCode.DEADLINE_EXCEEDED
    )


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


class _Failures:
    """How each of the replicas that were asked in one round has failed."""

    def __init__(self) -> None:
        self._errors: dict[str, grpc.aio.AioRpcError] = {}
        self._meant: list[DomainError] = []

    def __len__(self) -> int:
        return len(self._errors)

    def add(self, address: str, error: grpc.aio.AioRpcError) -> None:
        self._errors[address] = error
        if (meant := to_domain_error(error)) is not None:
            self._meant.append(meant)

    @property
    def leaderless(self) -> bool:
        return any(isinstance(each, NotLeading) for each in self._meant)

    @property
    def unreachable(self) -> bool:
        """All of them."""
        return not self._meant

    def left(self) -> grpc.aio.AioRpcError:
        """What the caller is told. A store that does not answer is why nobody leads, or why its
        leader does not write; one replica that does not lead says less."""
        if self.leaderless and not any(isinstance(e, EtcdUnavailable) for e in self._meant):
            leaders = {e.leader for e in self._meant if isinstance(e, NotLeading) and e.leader}
            return _rpc_error(NotLeading(", ".join(sorted(leaders)), ", ".join(self._errors)))
        errors = list(self._errors.values())
        said = [each for each in errors if isinstance(to_domain_error(each), EtcdUnavailable)]
        return (said or errors)[-1]


def _rpc_error(error: DomainError) -> grpc.aio.AioRpcError:
    status = to_rpc_status(error)
    trailing = grpc.aio.Metadata(*status.trailing_metadata)
    return grpc.aio.AioRpcError(
        status.code, grpc.aio.Metadata(), trailing, details=str(status.details)
    )


async def _connects(channel: grpc.aio.Channel) -> bool:
    """Whether the replica can be reached, as far as gRPC knows or finds out now."""
    waiting = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)
    try:
        async with asyncio.timeout(CONNECT_S):
            while (state := channel.get_state(try_to_connect=True)) in waiting:
                await channel.wait_for_state_change(state)
    except TimeoutError:
        return False
    return state is grpc.ChannelConnectivity.READY


class _Stream:
    """A stream's call, which begins once it is known which replica can be reached. It breaks with
    that replica; whoever takes it up again is led to another."""

    def __init__(
        self,
        owner: ReplicaChannel,
        methods: Sequence[Any],
        args: Sequence[Any],
        options: Mapping[str, Any],
    ) -> None:
        self._owner = owner
        self._number = 0
        self._beginning = asyncio.ensure_future(self._begin(methods, args, options))

    async def _begin(
        self, methods: Sequence[Any], args: Sequence[Any], options: Mapping[str, Any]
    ) -> Any:
        self._number = await self._owner.reachable()
        return methods[self._number](*args, **options)

    async def _call(self) -> Any:
        return await asyncio.shield(self._beginning)

    async def _told(self, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except grpc.aio.AioRpcError as error:
            if goes_on(error):
                self._owner.leave(self._number)
            raise

    async def __aiter__(self) -> AsyncIterator[Any]:
        messages = aiter(await self._call())
        while True:
            try:
                message = await self._told(anext(messages))
            except StopAsyncIteration:
                return
            yield message

    async def read(self) -> Any:
        return await self._told((await self._call()).read())

    async def write(self, request: Any) -> None:
        await self._told((await self._call()).write(request))

    async def done_writing(self) -> None:
        await (await self._call()).done_writing()

    async def initial_metadata(self) -> Any:
        return await (await self._call()).initial_metadata()

    async def trailing_metadata(self) -> Any:
        return await (await self._call()).trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        code: grpc.StatusCode = await (await self._call()).code()
        return code

    async def details(self) -> Any:
        return await (await self._call()).details()

    def cancel(self) -> bool:
        if not self._beginning.done():
            return self._beginning.cancel()
        if self._beginning.cancelled() or self._beginning.exception() is not None:
            return False
        return bool(self._beginning.result().cancel())
