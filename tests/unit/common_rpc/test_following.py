"""A channel that stands before others."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

from intertie.common.rpc.following import FollowingChannel


class FakeCall:
    def __init__(self, channel: FakeChannel) -> None:
        self.channel = channel
        self._ended: list[Callable[[Any], None]] = []

    def add_done_callback(self, do: Callable[[Any], None]) -> None:
        self._ended.append(do)

    def end(self) -> None:
        for each in self._ended:
            each(self)


class FakeChannel:
    def __init__(self, made_of: object) -> None:
        self.made_of = made_of
        self.stubs = 0
        self.closed = False

    def unary_unary(self, method: str) -> Callable[[], FakeCall]:
        self.stubs += 1
        return lambda: FakeCall(self)

    async def close(self, grace: float | None = None) -> None:
        self.closed = True


class Place:
    def __init__(self) -> None:
        self.source: object = "first"
        self.made: list[FakeChannel] = []
        self.channel: FollowingChannel[object] = FollowingChannel(lambda: self.source, self._make)

    def _make(self, made_of: object) -> Any:
        self.made.append(FakeChannel(made_of))
        return self.made[-1]


async def settle() -> None:
    """Lets what was begun go on."""
    for _ in range(3):
        turn = asyncio.Event()
        asyncio.get_running_loop().call_soon(turn.set)
        await turn.wait()


async def test_calls_go_over_the_channel_of_what_there_is_when_they_begin() -> None:
    place = Place()
    method = place.channel.unary_unary("m")
    assert [method().channel.made_of for _ in range(2)] == ["first", "first"]
    place.source = "second"
    assert [method().channel.made_of for _ in range(2)] == ["second", "second"]
    assert [each.stubs for each in place.made] == [1, 1]


async def test_one_that_is_left_is_closed_after_its_last_call() -> None:
    place = Place()
    method = place.channel.unary_unary("m")
    one, other = method(), method()
    place.source = "second"
    method().end()
    one.end()
    await settle()
    assert not place.made[0].closed
    other.end()
    await settle()
    assert [each.closed for each in place.made] == [True, False]


async def test_one_without_calls_is_closed_at_once() -> None:
    place = Place()
    place.source = "second"
    place.channel.unary_unary("m")()
    await settle()
    assert [each.closed for each in place.made] == [True, False]


async def test_closing_it_closes_all_that_are_left_too() -> None:
    place = Place()
    method = place.channel.unary_unary("m")
    method()
    place.source = "second"
    method()
    await place.channel.close()
    assert [each.closed for each in place.made] == [True, True]


async def test_stubs_that_are_made_for_one_call_leave_nothing_behind() -> None:
    """The channel would else grow with every stream to a guest."""

    place = Place()
    method = place.channel.unary_unary("m")
    method().end()
    left = weakref.ref(method)
    del method
    gc.collect()
    assert left() is None


class Recording(FakeChannel):
    """Knows what its calls were given."""

    given: dict[str, dict[str, Any]]

    def __init__(self) -> None:
        super().__init__("first")
        self.given = {}

    def unary_unary(self, method: str) -> Callable[..., FakeCall]:
        return self._taking(method)

    def unary_stream(self, method: str) -> Callable[..., FakeCall]:
        return self._taking(method)

    def _taking(self, method: str) -> Callable[..., FakeCall]:
        def take(**options: Any) -> FakeCall:
            self.given[method] = options
            return FakeCall(self)

        return take


async def test_what_a_unary_call_is_not_given_it_gets_and_a_stream_does_not() -> None:
    recording: Any = Recording()

    def defaults(options: dict[str, Any]) -> None:
        options.setdefault("timeout", 30.0)

    channel: FollowingChannel[str] = FollowingChannel(
        lambda: "first", lambda _: recording, defaults
    )
    channel.unary_unary("plain")()
    channel.unary_unary("hasty")(timeout=1.0)
    channel.unary_stream("stream")()
    assert recording.given == {"plain": {"timeout": 30.0}, "hasty": {"timeout": 1.0}, "stream": {}}
