"""A channel that follows its certificates: gRPC's own shows for good what it was made with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

import grpc

T = TypeVar("T")


class FollowingChannel(grpc.aio.Channel, Generic[T]):
    """Stands before one channel after another: a call that begins once `source` gives another
    object goes over a new one, made of that by `make`.

    Promised: a call stays on the channel that it began on, which is closed when the last of its
    calls is over, so none fails for a change. Not promised: that a call sees a change of less than
    what `source` takes to notice it; nor that a stream, which may last, ever changes over.
    Where `make` fails, the channel before stays.
    """

    def __init__(
        self,
        source: Callable[[], T],
        make: Callable[[T], grpc.aio.Channel],
        unary_defaults: Callable[[dict[str, Any]], None] = lambda options: None,
    ) -> None:
        """`unary_defaults` adds to the options of a unary call what the caller has not given: what
        an interceptor would do, at the cost of a task for each call."""
        self._source = source
        self._make = make
        self.unary_defaults = unary_defaults
        made_of = source()
        self._line = _Line(made_of, make(made_of))
        self._retired: set[_Line] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    def line(self) -> _Line:
        made_of = self._source()
        if made_of is not self._line.made_of and not self._closed:
            before, self._line = self._line, _Line(made_of, self._make(made_of))
            self._retired.add(before)
            before.when_idle(lambda: self._close(before))
        return self._line

    def _close(self, line: _Line) -> None:
        task = asyncio.get_running_loop().create_task(line.channel.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        self._retired.discard(line)

    async def close(self, grace: float | None = None) -> None:
        self._closed = True
        for each in (self._line, *self._retired):
            await each.channel.close(grace)
        await asyncio.gather(*self._closing)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.line().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._line.channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.line().channel.channel_ready()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _Method(self, "unary_unary", args, kwargs)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _Method(self, "unary_stream", args, kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _Method(self, "stream_unary", args, kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _Method(self, "stream_stream", args, kwargs)


class _Line:
    """One channel, and how many calls are on it."""

    def __init__(self, made_of: Any, channel: grpc.aio.Channel) -> None:
        self.made_of = made_of
        self.channel = channel
        self._calls = 0
        self._when_idle: Callable[[], None] | None = None

    def began(self, call: Any) -> None:
        self._calls += 1
        call.add_done_callback(self._ended)

    def when_idle(self, do: Callable[[], None]) -> None:
        self._when_idle = do
        self._check()

    def _ended(self, _: Any) -> None:
        self._calls -= 1
        self._check()

    def _check(self) -> None:
        if self._calls == 0 and self._when_idle is not None:
            do, self._when_idle = self._when_idle, None
            do()


class _Method:
    """A stub's method: gRPC's own of whichever channel a call begins on."""

    def __init__(
        self, owner: FollowingChannel[Any], kind: str, args: Any, kwargs: dict[str, Any]
    ) -> None:
        self._owner = owner
        self._line: _Line | None = None
        self._method: Any = None
        self._kind = kind
        self._args = args
        self._kwargs = kwargs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._kind == "unary_unary":
            self._owner.unary_defaults(kwargs)
        line = self._owner.line()
        if line is not self._line:
            self._method = getattr(line.channel, self._kind)(*self._args, **self._kwargs)
            self._line = line
        call = self._method(*args, **kwargs)
        line.began(call)
        return call
