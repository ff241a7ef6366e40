"""The program that solvers are made of: it has loaded the planner, and forks.

`python -m intertie.metasched.adapters.solver_server MEMORY_MIB`, with one end of a socket as its
input. Each message on it brings one end of another socket, for one solver, and is answered with a
pidfd of that, or without one where there can be none. It ends when nobody holds the other end any
more, and its solvers with it, at once. No thread runs in it, and nothing of gRPC is loaded: so it
may fork.
"""

import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import resource
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from intertie.common.errors import SolverFailed

LENGTH = 8
"""Octets before each message that say how long it is; before those, of an answer, there is one
that says whether there may be another."""
MORE, LAST = b"+", b"-"
_LOADED = (
    "intertie.metasched.domain.planned",
    "intertie.metasched.domain.outlook",
    "intertie.metasched.domain.refusal",
    "intertie.metasched.domain.alternatives",
)
"""What solvers are asked for, with all that it needs, OR-Tools above all: half a second."""
_NICE = 5
"""Who serves goes first where there are fewer processors than solvers."""
_OOM_SCORE = "500"
"""A machine without memory ends a solver before it ends what serves."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    memory_mib = int(sys.argv[1])
    # From a terminal, and from who ends all of a service's processes, they come to each of them.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a solver's end
    _bound(memory_mib)
    for name in _LOADED:
        importlib.import_module(name)
    # As in the service, see common.process; and what is loaded stays where it is, for all of them.
    gc.set_threshold(50_000, 20, 100)
    gc.collect()
    gc.freeze()
    os.nice(_NICE)
    _fork_for_each(socket.socket(fileno=0), memory_mib)


def _bound(memory_mib: int) -> None:
    """Of this process and each that it forks."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    octets = memory_mib << 20
    if most != resource.RLIM_INFINITY:
        octets = min(octets, most)
    # Its own pages, with what it has reserved and not touched: not the files that are mapped.
    resource.setrlimit(resource.RLIMIT_DATA, (octets, octets))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # not everywhere may it be said
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def _fork_for_each(control: socket.socket, memory_mib: int) -> None:
    own = os.getpid()
    while True:
        _, files, _, _ = socket.recv_fds(control, 1, 1)
        if not files:
            return
        try:
            pid = os.fork()
            pidfds = [os.pidfd_open(pid)] if pid else []
        except OSError:  # no more processes or files may be; those that solve go on
            pid, pidfds = -1, []
        if pid == 0:
            control.close()
            _end_with(own)
            _solve(socket.socket(fileno=files[0]), memory_mib)
        os.close(files[0])
        socket.send_fds(control, [b"."], pidfds)
        for each in pidfds:
            os.close(each)


def _end_with(server: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # it ended before it could be told
        os._exit(1)


def _solve(line: socket.socket, memory_mib: int) -> None:
    """What it is asked, one after another, until nobody is there any more; then it exits. One that
    has grown large is not used again: what it holds on to would be missing to the next problem."""
    stream = line.makefile("rwb")
    try:
        while length := int.from_bytes(stream.read(LENGTH), "big"):
            answer = _answer(stream.read(length), memory_mib)
            peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            more = MORE if 2 * peak_mib <= memory_mib else LAST
            stream.write(more + len(answer).to_bytes(LENGTH, "big") + answer)
            stream.flush()
            if more is LAST:
                break
    except OSError:
        pass  # nobody waits for it
    finally:
        os._exit(0)


def _answer(packed: bytes, memory_mib: int) -> bytes:
    """Whether it was raised or returned, and what."""
    try:
        work, args, options = pickle.loads(packed)
        return pickle.dumps((False, work(*args, **options)), pickle.HIGHEST_PROTOCOL)
    except MemoryError:
        pass  # with its frames, and what they hold
    except Exception as error:
        error.add_note(traceback.format_exc())
        return _raised(error)
    return _raised(SolverFailed(f"it takes more than the {memory_mib} MiB that a solver may have"))


def _raised(error: Exception) -> bytes:
    packed = pickle.dumps((True, error), pickle.HIGHEST_PROTOCOL)
    try:
        pickle.loads(packed)
    except Exception:
        told: Any = RuntimeError(traceback.format_exc())
        packed = pickle.dumps((True, told), pickle.HIGHEST_PROTOCOL)
    return packed


if __name__ == "__main__":
    main()
