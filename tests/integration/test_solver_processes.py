"""Solvers as processes: they end with whom they work for, and nobody else is hurt when one does."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from intertie.common.clock import SystemClock
from intertie.common.errors import SolverFailed
from intertie.metasched.adapters.solver_processes import SolverProcesses
from intertie.metasched.domain.planned import planned
from tests.integration.hard_request import cpu_ticks, is_there
from tests.unit.metasched.problems import group, offer, problem, three_a_host

CLOCK = SystemClock()
SMALL = problem([group(fewest=2)], {"north": offer(4)})
MEMORY_MIB = 256
SERVES = f"""
import asyncio, os, sys, time
from intertie.common.clock import SystemClock
from intertie.metasched.adapters.solver_processes import SolverProcesses

async def main():
    solvers = SolverProcesses({MEMORY_MIB}, SystemClock())
    pids = await solvers.run(os.getppid), await solvers.run(os.getpid)
    print(*pids, file=sys.stderr, flush=True)
    await solvers.run(time.sleep, 600)

asyncio.run(main())
"""


@pytest.fixture
async def solvers() -> AsyncIterator[SolverProcesses]:
    processes = SolverProcesses(MEMORY_MIB, CLOCK)
    yield processes
    await processes.close()


async def until_gone(*pids: int) -> None:
    async with asyncio.timeout(10):
        while any(map(is_there, pids)):
            await CLOCK.sleep(0.01)


async def busy(pid: int) -> None:
    """Until it has worked for a while."""
    async with asyncio.timeout(30):
        while cpu_ticks(pid) < 20:
            await CLOCK.sleep(0.02)


async def test_who_solves_is_neither_the_service_nor_of_its_threads(
    solvers: SolverProcesses,
) -> None:
    pid, server = await solvers.run(os.getpid), await solvers.run(os.getppid)
    assert len({pid, server, os.getpid()}) == 3
    loaded = await solvers.run(eval, "sorted(__import__('sys').modules)")
    assert "ortools.sat.python.cp_model" in loaded, "before the first problem comes"
    assert not [each for each in loaded if each.split(".")[0] in ("grpc", "etcd3aio", "uvloop")]
    assert len(os.listdir(f"/proc/{server}/task")) == 1, "it may fork"
    assert await solvers.run(os.getpid) == pid, "the next problem is solved by the same"


async def test_a_solve_whose_caller_has_gone_ends_and_the_next_is_answered(
    solvers: SolverProcesses,
) -> None:
    """A search that would go on for many minutes."""
    pid = await solvers.run(os.getpid)
    hard = asyncio.create_task(solvers.run(planned, three_a_host(), effort=1e4))
    await busy(pid)
    assert not hard.done()
    hard.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hard
    await until_gone(pid)
    async with asyncio.timeout(10):
        assert await solvers.run(planned, SMALL, effort=1.0) is not None


async def test_nothing_is_left_of_who_is_cancelled_while_his_solver_is_made(
    solvers: SolverProcesses,
) -> None:
    server = await solvers.run(os.getppid)
    first = await solvers.run(os.getpid)
    os.kill(first, signal.SIGKILL)
    await until_gone(first)
    for turns in range(12):
        call = asyncio.create_task(solvers.run(os.getpid))
        for _ in range(turns):
            await CLOCK.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    last = await solvers.run(os.getpid)
    async with asyncio.timeout(10):
        while _children(server) - {last}:
            await CLOCK.sleep(0.01)


def _children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


async def test_one_that_takes_too_much_memory_is_refused_and_others_go_on(
    solvers: SolverProcesses,
) -> None:
    other = asyncio.create_task(solvers.run(eval, "__import__('time').sleep(0.5)"))
    for _ in range(2):
        with pytest.raises(SolverFailed, match=f"{MEMORY_MIB} MiB"):
            await solvers.run(eval, "b'x' * (1 << 30)")
    assert await other is None
    assert await solvers.run(planned, SMALL, effort=1.0) is not None


async def test_a_solver_that_has_grown_large_is_not_used_again(solvers: SolverProcesses) -> None:
    """What it keeps would be missing to the next problem."""
    pid = await solvers.run(os.getpid)
    assert await solvers.run(eval, "len(b'x' * (80 << 20))") == 80 << 20
    assert await solvers.run(os.getpid) != pid
    await until_gone(pid)


async def test_one_that_is_killed_is_told_to_its_caller_alone(solvers: SolverProcesses) -> None:
    """As by a machine that has no memory left."""
    mine = await solvers.run(os.getpid)
    killed = asyncio.create_task(solvers.run(planned, three_a_host(), effort=1e4))
    await busy(mine)
    other = asyncio.create_task(solvers.run(eval, "__import__('time').sleep(0.5)"))
    os.kill(mine, signal.SIGKILL)
    with pytest.raises(SolverFailed):
        await killed
    assert await other is None
    assert await solvers.run(planned, SMALL, effort=1.0) is not None


async def test_one_that_is_killed_while_it_waits_is_told_to_nobody(
    solvers: SolverProcesses,
) -> None:
    pid = await solvers.run(os.getpid)
    os.kill(pid, signal.SIGKILL)
    await until_gone(pid)
    await CLOCK.sleep(0)
    assert await solvers.run(os.getpid) != pid


async def test_one_that_cannot_be_made_is_told_to_its_caller_alone(
    solvers: SolverProcesses,
) -> None:
    """Their server may open no more files, as it may have no more processes."""
    server, pid = await solvers.run(os.getppid), await solvers.run(os.getpid)
    other = asyncio.create_task(solvers.run(eval, "__import__('time').sleep(1)"))
    while solvers._idle:
        await CLOCK.sleep(0.01)
    free = min(set(range(64)) - set(map(int, os.listdir(f"/proc/{server}/fd"))))
    bounds = resource.prlimit(server, resource.RLIMIT_NOFILE)
    resource.prlimit(server, resource.RLIMIT_NOFILE, (free + 1, bounds[1]))
    with pytest.raises(SolverFailed, match="could be started"):
        await solvers.run(os.getpid)
    assert await other is None
    resource.prlimit(server, resource.RLIMIT_NOFILE, bounds)
    assert await solvers.run(os.getpid) == pid
    solvers._idle.pop().end()
    assert await solvers.run(os.getppid) == server
    async with asyncio.timeout(10):
        while len(_children(server)) > 1:
            await CLOCK.sleep(0.01)


async def test_after_their_server_is_killed_there_is_another(solvers: SolverProcesses) -> None:
    server, pid = await solvers.run(os.getppid), await solvers.run(os.getpid)
    call = asyncio.create_task(solvers.run(planned, three_a_host(), effort=1e4))
    await busy(pid)
    os.kill(server, signal.SIGKILL)
    with pytest.raises(SolverFailed):
        await call
    await until_gone(pid)
    assert await solvers.run(planned, SMALL, effort=1.0) is not None
    assert await solvers.run(os.getppid) != server


async def test_all_end_when_they_are_closed_whatever_they_do(solvers: SolverProcesses) -> None:
    server, pid = await solvers.run(os.getppid), await solvers.run(os.getpid)
    call = asyncio.create_task(solvers.run(planned, three_a_host(), effort=1e4))
    await busy(pid)
    await solvers.close()
    with pytest.raises(SolverFailed):
        await call
    await until_gone(server, pid)
    with pytest.raises(SolverFailed):
        await solvers.run(os.getpid)


async def test_a_service_that_is_killed_leaves_none_behind() -> None:
    """Nobody tells them: one sleeps, the server waits."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVES, stdout=DEVNULL, stderr=PIPE
    )
    assert process.stderr is not None
    try:
        server, pid = map(int, (await process.stderr.readline()).split())
        assert is_there(server)
        assert is_there(pid)
    finally:
        process.kill()
        await process.wait()
    await until_gone(server, pid)
