"""Runs passes one after another while this replica leads."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import DomainError

log = structlog.get_logger(__name__)


class Leading(Protocol):
    @property
    def is_leader(self) -> bool: ...

    async def wait_until_leading(self) -> None: ...


async def paced(
    name: str,
    sweep: Callable[[], Awaitable[None]],
    leading: Leading,
    clock: Clock,
    *,
    period_s: float,
) -> None:
    """At once when this replica comes to lead, then each period; a pass that fails is logged and
    the next one tries again."""
    while True:
        await leading.wait_until_leading()
        try:
            await sweep()
        except DomainError as error:
            log.warning("loop.trouble", loop=name, reason=error.reason, problem=str(error))
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("loop.failed", loop=name)
        await clock.sleep(period_s)
