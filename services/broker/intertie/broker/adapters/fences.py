"""Ways to make certain that nothing of a host runs. See domain.ports.Fence."""

import asyncio
import contextlib
import os
import signal
import subprocess
from datetime import timedelta

from intertie.broker.domain.fleet import HostFacts
from intertie.broker.domain.ports import NotCertain

_DRIFT = 0.02
"""By how much two steady clocks may differ, of the time that they measure."""
_SAID = 200
"""The most of what a program says that is told on."""


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
        has started itself is ended with it, if it takes too long."""
        program = self._command[0]
        try:
            running = subprocess.Popen(
                [*self._command, host],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise NotCertain(f"{program}: {error.strerror}") from None
        seconds = self._within.total_seconds()
        try:
            said, _ = running.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
            raise NotCertain(f"{program} did not end within {seconds:g} s") from None
        if running.returncode != 0:
            last = said.decode(errors="replace").strip().rpartition("\n")[2][:_SAID]
            raise NotCertain(f"{program} exited with {running.returncode}: {last or 'no word'}")
        return f"{program} says that it is off"


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
