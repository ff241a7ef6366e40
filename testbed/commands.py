"""Running the machine's own tools: ip, tc and the like."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(eq=False)
class CommandFailed(RuntimeError):
    """A tool ended with an error."""

    argv: Sequence[str]
    code: int
    output: str

    def __str__(self) -> str:
        return f"{' '.join(self.argv)}: exit {self.code}: {self.output.strip()}"


def run(argv: Sequence[str], *, stdin: str | None = None, timeout_s: float = 60) -> str:
    """The tool's standard output; CommandFailed, with what it said, when it fails."""
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode != 0:
        raise CommandFailed(argv, done.returncode, done.stderr + done.stdout)
    return done.stdout


def ip_batch(netns: str | None, lines: Iterable[str]) -> None:
    _batch("ip", netns, lines)


def tc_batch(netns: str, lines: Iterable[str]) -> None:
    _batch("tc", netns, lines)


def _batch(tool: str, netns: str | None, lines: Iterable[str]) -> None:
    """All lines in one process; stops at the first that fails."""
    text = "\n".join(lines)
    if not text:
        return
    argv = [tool, *(("-n", netns) if netns else ()), "-batch", "-"]
    try:
        run(argv, stdin=text + "\n")
    except CommandFailed as failed:
        raise CommandFailed([*argv, "<<", text], failed.code, failed.output) from None
