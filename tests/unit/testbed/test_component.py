from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.component import Component, ComponentFailed, Inside, start_all
from testbed.places import Places


class Started(Component):
    """Of no process: it runs for as long as the test says."""

    runs = True

    def start(self, *, wait: bool = True) -> None:
        assert not wait

    @property
    def running(self) -> bool:
        return self.runs

    def log_tail(self, lines: int = 15) -> str:
        return ""


def component(name: str, ready: Callable[[], bool]) -> Started:
    return Started(
        name=name,
        places=Places(instance="unit"),
        inside=Inside(netns="none", host_run=Path("/nowhere")),
        argv=("true",),
        ready=ready,
    )


def test_those_that_are_ready_are_told_of_and_the_first_failure_is_raised() -> None:
    told: list[str] = []
    dead = component("b", lambda: False)
    dead.runs = False
    with pytest.raises(ComponentFailed, match="ended while starting"):
        start_all([component("a", lambda: True), dead, component("c", lambda: True)], told.append)
    assert told == ["a"]


def test_an_interrupt_while_components_start_finds_no_thread_that_could_wait_for_ever() -> None:
    """A bug: it came within `concurrent.futures.wait`, which kept the locks of all futures, and
    the threads that were to say that they are done waited for them."""

    def interrupted() -> bool:
        assert threading.active_count() == before
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        start_all([component("a", lambda: True), component("b", interrupted)])
