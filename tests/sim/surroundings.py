"""What of the program around a world must be out of its way: logs, and when memory is freed."""

from __future__ import annotations

import gc
import logging
from typing import Any

import structlog

from tests.sim.virtual_loop import CURRENT, VirtualLoop


class NoCollection:
    """When a cycle is collected depends on the machine; what that ends must not."""

    def __enter__(self) -> None:
        gc.collect()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        gc.enable()


class Logs:
    """Of the services: shown, or kept from being made, which takes longer than all the rest."""

    def __init__(self, loop: VirtualLoop, *, shown: bool) -> None:
        self._loop, self._shown = loop, shown

    def __enter__(self) -> None:
        self._before = structlog.get_config()
        level = logging.INFO if self._shown else logging.CRITICAL
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                self._stamp,
                structlog.processors.format_exc_info,
                structlog.dev.ConsoleRenderer(colors=False),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            cache_logger_on_first_use=False,
        )

    def _stamp(self, _: object, __: str, event: Any) -> Any:
        """In whose process, and when in its world."""
        process = CURRENT.get()
        who = process.name if process else "world"
        return {**event, "event": f"{self._loop.time():8.3f} {who}: {event['event']}"}

    def __exit__(self, *_: object) -> None:
        structlog.configure(**self._before)
