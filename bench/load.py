"""Closed-loop load: n callers, each with one call under way at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.report import percentile


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Of one load: calls a second, and what one call took."""

    per_second: float
    p50_ms: float
    p99_ms: float


async def closed_loop(
    call: Callable[[int], Awaitable[object]], *, calls: int, callers: int
) -> Measured:
    """Makes `calls` calls, numbered from 0, `callers` at a time. A call that fails ends it."""
    numbers = iter(range(calls))
    took: list[float] = []

    async def caller() -> None:
        for number in numbers:
            began = time.perf_counter()
            await call(number)
            took.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    wall = time.perf_counter() - began
    return Measured(
        per_second=calls / wall,
        p50_ms=1000 * percentile(took, 0.5),
        p99_ms=1000 * percentile(took, 0.99),
    )
