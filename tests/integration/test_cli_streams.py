"""Consoles and ports of workspaces through the `intertie` command and the SDK."""

from __future__ import annotations

import asyncio
import os
import termios

import pytest

from intertie.common.errors import (
    ConnectionRefused,
    NotFound,
)
from tests.fakes.user_api import SERIAL
from tests.integration.cli_place import Place


async def test_forward_joins_stdin_and_stdout_to_a_port(place: Place) -> None:
    await place.do("cluster", "create", "-f", str(place.spec), "--no-wait")
    payload = bytes(range(256)) * 4096
    process = await place.start(
        "cluster", "forward", "demo", "node-0", "22", stdin=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(payload), 30)
    assert out == payload
    assert (process.returncode, err) == (0, b"")


async def test_forward_takes_a_plain_file_as_stdin(place: Place) -> None:
    await place.do("cluster", "create", "-f", str(place.spec), "--no-wait")
    with place.spec.open("rb") as file:
        process = await place.start(
            "cluster", "forward", "demo", "node-0", "22", stdin=file.fileno()
        )
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert out == place.spec.read_bytes()


async def test_forward_says_when_nothing_listens(place: Place) -> None:
    await place.do("cluster", "create", "-f", str(place.spec), "--no-wait")
    said = await place.say("cluster", "forward", "demo", "node-0", "1")
    assert said.code == 1
    assert "CONNECTION_REFUSED" in said.err


async def test_the_sdk_attaches_to_a_console_and_raises_what_the_service_raised(
    place: Place,
) -> None:
    await place.do("cluster", "create", "-f", str(place.spec), "--no-wait")
    async with await place.connect() as client:
        async with await client.clusters.attach("demo", "node-0") as console:
            assert await console.read() == SERIAL
            await console.write(b"root\n")
            assert await console.read() == b"root\n"
        with pytest.raises(ConnectionRefused) as refused:
            await client.clusters.attach("demo", "node-0", port=1)
        assert refused.value.port == 1
        with pytest.raises(NotFound):
            await client.clusters.attach("nosuch", "node-0")


async def test_a_console_on_a_terminal_is_left_by_its_escape_and_the_terminal_is_as_before(
    place: Place,
) -> None:
    await place.do("cluster", "create", "-f", str(place.spec), "--no-wait")
    ours, theirs = os.openpty()
    before = termios.tcgetattr(theirs)
    try:
        process = await place.start("cluster", "console", "demo", "node-0", stdin=theirs)
        assert process.stdout
        assert await asyncio.wait_for(process.stdout.readexactly(len(SERIAL)), 30) == SERIAL
        os.write(ours, b"ls\x03\r")
        assert await asyncio.wait_for(process.stdout.readexactly(4), 30) == b"ls\x03\r"
        os.write(ours, b"x\x1dy")
        out, err = await asyncio.wait_for(process.communicate(), 30)
        assert (process.returncode, out) in {(0, b""), (0, b"x")}
        assert b"Ctrl-] leaves" in err
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)
