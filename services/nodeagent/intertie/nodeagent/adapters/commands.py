"""Runs the host's own programs (iproute2, nft, qemu-img) and says what they complained of."""

import asyncio
import json
from typing import Any

from intertie.nodeagent.domain.failures import HostFailure

_TIMEOUT_S = 30.0


async def run(*argv: str, stdin: str = "") -> str:
    """What the program wrote. A failure or a delay of 30 s raises HostFailure."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), _TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise HostFailure(f"{argv[0]} did not end within {_TIMEOUT_S:.0f} s") from None
    except asyncio.CancelledError:
        process.kill()
        raise
    if process.returncode != 0:
        said = err.decode(errors="replace").strip() or out.decode(errors="replace").strip()
        raise HostFailure(f"{' '.join(argv[:3])}: {said[:500]}")
    return out.decode(errors="replace")


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
