"""Ways to make certain that nothing of a host runs. See domain.ports.Fence."""

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
from datetime import timedelta
from typing import IO

import structlog

from intertie.broker.domain.fleet import HostFacts
from intertie.broker.domain.ports import NotCertain

log = structlog.get_logger(__name__)

_DRIFT = 0.02
"""By how much two steady clocks may differ, of the time that they measure."""
_SAID = 1000
"""Bytes from the end of what a program says that are logged."""
_KILLED_WITHIN_S = 1.0
"""One that hangs in the kernel does not end by being killed, and is not waited for."""


class CommandFence:
    """The operator's own program: a power switch, IPMI, the hypervisor that hosts run on. Nothing
    but exit 0 says anything."""

    def __init__(self, command: tuple[str, ...], *, within: timedelta) -> None:
        self._command = command
        self._within = within

    async def fence(self, facts: HostFacts, silent_for: timedelta) -> str:
        return await asyncio.to_thread(self._run, facts.host)

    def _run(self, host: str) -> str:
        """By `subprocess`, which starts a program without running fork handlers of gRPC. What it
        has started itself is ended with it, if it takes too long. What it says is for logs alone:
        users see why a host is not certain to be off, and it may say what they should not."""
        program = self._command[0]
        with tempfile.TemporaryFile() as output:
            # Not a pipe: whoever the program leaves behind would keep that open.
            code = self._ended(host, output)
            said = _tail(output)
        seconds = self._within.total_seconds()
        log.info("host.fence_ended", host=host, program=program, exit=code, said=said)
        if code is None:
            raise NotCertain(f"{program} did not end within {seconds:g} s")
        if code != 0:
            raise NotCertain(f"{program} exited with {code}")
        return f"{program} says that it is off"

    def _ended(self, host: str, output: IO[bytes]) -> int | None:
        """With which exit code; None: it had to be ended."""
        try:
            running = subprocess.Popen(
                [*self._command, host],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise NotCertain(f"{self._command[0]}: {error.strerror}") from None
        try:
            return running.wait(self._within.total_seconds())
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(_KILLED_WITHIN_S)
            return None


def _tail(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _SAID))
    return output.read(_SAID).decode(errors="replace").strip()


class SelfFence:
    """The host's agent stops its guests when it cannot report. This waits until it must have:
    by the time that the agent itself has told, and never where it has told none."""

    def __init__(self, *, margin: timedelta) -> None:
        self._margin = margin

    async def fence(self, facts: HostFacts, silent_for: timedelta) -> str:
        if not facts.fence_after:
            raise NotCertain("its agent does not fence itself: fence_after_s is not set there")
        needed = facts.fence_after * (1 + _DRIFT) + self._margin
        if silent_for < needed:
            raise NotCertain("its agent is given time to stop its guests", needed - silent_for)
        return f"its agent has stopped its guests, {facts.fence_after.total_seconds():g} s silent"
