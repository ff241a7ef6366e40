"""The `intertie` command as a process of its own."""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one command printed, and its exit code."""

    code: int
    out: str
    err: str


async def start(config: Path, *args: str, stdin: int | None = None) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "intertie.cli", "--config", str(config), *args,
        stdin=stdin if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def say(config: Path, *args: str) -> Said:
    """A failure is an answer too, a traceback is not."""
    process = await start(config, *args)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return Said(code=process.returncode, out=out.decode(), err=err.decode())
