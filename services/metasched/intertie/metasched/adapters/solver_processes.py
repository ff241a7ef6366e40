"""Solvers as processes, forked from a server that has loaded the planner. Each solves one problem
at a time, and then the next."""

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import SolverFailed
from intertie.common.tasks import uninterrupted
from intertie.metasched.adapters import solver_server
from intertie.metasched.adapters.solver_server import LENGTH, MORE

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""What OR-Tools loads would make some, that nothing is for, and the server forks."""
_NONE_STARTED = "no process for it could be started"


class SolverProcesses:
    """See ports.Solvers. How many run at a time is for who asks to bound; so many stay. With
    `start` the first answers as soon as the others; after `close` none does."""

    def __init__(self, memory_mib: int, clock: Clock) -> None:
        self._memory_mib = memory_mib
        self._clock = clock
        self._idle: list[_Solver] = []
        self._server: _Server | None = None
        self._lock = threading.Lock()
        self._closed = False

    async def start(self) -> None:
        await uninterrupted(asyncio.to_thread(self._up))

    async def run(self, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        began = self._clock.monotonic()
        asked = await asyncio.to_thread(_packed, (work, args, options))
        solver = self._used_before() or await self._forked()
        try:
            answer = await solver.answer(asked)
        finally:
            if solver.ready and not self._closed:
                self._idle.append(solver)
            else:
                solver.end()
        took_ms = round(1000 * (self._clock.monotonic() - began))
        if answer is None:
            log.warning("solver.ended", work=work.__name__, ms=took_ms)
            raise SolverFailed("the process that did was ended")
        raised, value = await asyncio.to_thread(pickle.loads, answer)
        log.debug("solver.done", work=work.__name__, ms=took_ms, raised=raised)
        if raised:
            raise value
        found: T = value
        return found

    async def close(self) -> None:
        """Ends those that run, too."""
        self._closed = True
        while self._idle:
            self._idle.pop().end()
        await uninterrupted(asyncio.to_thread(self._down))

    def _used_before(self) -> "_Solver | None":
        while self._idle:
            solver = self._idle.pop()
            if solver.ready:
                return solver
            solver.end()
        return None

    async def _forked(self) -> "_Solver":
        forking = asyncio.ensure_future(self._new())
        try:
            return await asyncio.shield(forking)
        except asyncio.CancelledError:
            forking.add_done_callback(_let_go)
            raise

    async def _new(self) -> "_Solver":
        line, pidfd = await asyncio.to_thread(self._fork)
        return _Solver(*await asyncio.open_unix_connection(sock=line), pidfd)

    def _fork(self) -> tuple[socket.socket, int]:
        for _ in range(2):
            server = self._up()
            with contextlib.suppress(OSError):
                return server.fork()
            self._gone(server)  # the next one is another's
        raise SolverFailed(_NONE_STARTED)

    def _up(self) -> "_Server":
        with self._lock:
            if self._closed:
                raise SolverFailed("this replica ends")
            if self._server is None:
                try:
                    self._server = _Server(self._memory_mib)
                except OSError as error:
                    raise SolverFailed(f"{_NONE_STARTED}: {error}") from None
            return self._server

    def _gone(self, server: "_Server") -> None:
        with self._lock:
            if self._server is server:
                log.warning("solver.server_ended")
                self._server = None
                server.end()

    def _down(self) -> None:
        with self._lock:
            if self._server is not None:
                self._server.end()


def _packed(asked: object) -> bytes:
    return pickle.dumps(asked, pickle.HIGHEST_PROTOCOL)


def _let_go(forking: "asyncio.Future[_Solver]") -> None:
    if not forking.cancelled() and forking.exception() is None:
        forking.result().end()


class _Solver:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pidfd: int
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._pidfd = pidfd
        self._may_be_asked = True

    @property
    def ready(self) -> bool:
        return self._may_be_asked and not self._reader.at_eof()

    async def answer(self, asked: bytes) -> bytes | None:
        """None where it ends before."""
        self._may_be_asked = False
        self._writer.write(len(asked).to_bytes(LENGTH, "big"))
        self._writer.write(asked)
        try:
            more = await self._reader.readexactly(len(MORE))
            length = int.from_bytes(await self._reader.readexactly(LENGTH), "big")
            answer = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self._may_be_asked = more == MORE
        return answer

    def end(self) -> None:
        """At once, whatever it does; once."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        os.close(self._pidfd)
        self._writer.close()


class _Server:
    """What it is, and what is said to it: see solver_server. All of this blocks."""

    def __init__(self, memory_mib: int) -> None:
        self._talking = threading.Lock()
        self._control, theirs = socket.socketpair()
        with theirs:
            # In a thread and by subprocess, which runs no fork handlers of gRPC's.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", solver_server.__name__, str(memory_mib)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD},
            )

    def fork(self) -> tuple[socket.socket, int]:
        """A line to a solver, and its pidfd; OSError where the server has ended, SolverFailed where
        it cannot fork. Waits until it has loaded the planner."""
        ours, theirs = socket.socketpair()
        try:
            with self._talking:
                with theirs:
                    socket.send_fds(self._control, [b"."], [theirs.fileno()])
                said, files, _, _ = socket.recv_fds(self._control, 1, 1, socket.MSG_CMSG_CLOEXEC)
            if not said:
                raise ConnectionResetError
            if not files:
                raise SolverFailed(_NONE_STARTED)
        except (OSError, SolverFailed):
            ours.close()
            raise
        return ours, files[0]

    def end(self) -> None:
        """With all that it has forked."""
        self._process.kill()
        self._process.wait()
        self._control.close()
