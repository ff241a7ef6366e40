"""Solvers in this process."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class SolverThreads:
    """See intertie.metasched.domain.ports.Solvers. A thread for each, of which nobody sees anything
    once its caller is cancelled. What is handed over is a copy, as between processes."""

    async def run(self, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        return await asyncio.to_thread(_done, work, args, options)

    async def start(self) -> None:
        """There is nothing to start, and nothing to end."""

    async def close(self) -> None: ...


def _done(work: Callable[..., T], args: Any, options: Any) -> T:
    args, options = _copy((args, options))
    found: T = _copy(work(*args, **options))
    return found


def _copy(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))
