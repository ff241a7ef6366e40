"""Runs the host's own programs (iproute2, nft, qemu-img) and says what they complained of."""

import asyncio
import json
import subprocess
from typing import Any

from intertie.nodeagent.domain.failures import HostFailure

_TIMEOUT_S = 30.0


async def run(*argv: str, stdin: str = "") -> str:
    """What the program wrote. A failure or a delay of 30 s raises HostFailure."""
    return await asyncio.to_thread(_run, argv, stdin)


def _run(argv: tuple[str, ...], stdin: str) -> str:
    """By `subprocess`, which starts a program without running fork handlers of gRPC."""
    try:
        done = subprocess.run(
            argv, input=stdin.encode(), capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise HostFailure(f"{argv[0]} did not end within {_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise HostFailure(f"{argv[0]}: {error.strerror}") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise HostFailure(f"{' '.join(argv[:3])}: {said[:500]}")
    return done.stdout.decode(errors="replace")


async def run_json(*argv: str) -> Any:
    """The JSON that the program wrote; an empty list where it wrote nothing."""
    text = await run(*argv)
    return json.loads(text) if text.strip() else []


async def batch(*argv: str, lines: list[str]) -> None:
    """Gives the lines to a program in its batch mode; it stops at the first that fails."""
    if lines:
        await run(*argv, "-batch", "-", stdin="\n".join(lines) + "\n")


async def batch_all(*argv: str, lines: list[str]) -> str:
    """As `batch`, but goes on after a line that fails; what was said, empty when all is well."""
    if not lines:
        return ""
    try:
        await run(*argv, "-force", "-batch", "-", stdin="\n".join(lines) + "\n")
    except HostFailure as error:
        return str(error)
    return ""
