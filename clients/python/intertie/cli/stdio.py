"""This process's stdin and stdout as streams of bytes that a task may wait for."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

ESCAPE = b"\x1d"
"""Ctrl-]"""
_CHUNK_BYTES = 64 * 1024


async def read_stdin() -> bytes:
    """What is there, as soon as something is; nothing at its end."""
    loop = asyncio.get_running_loop()
    file = sys.stdin.fileno()
    readable: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(file, _settle, readable)
    except PermissionError:  # a plain file, which never makes anybody wait
        return os.read(file, _CHUNK_BYTES)
    try:
        await readable
    finally:
        loop.remove_reader(file)
    return os.read(file, _CHUNK_BYTES)


def _settle(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


async def write_stdout(data: bytes) -> None:
    """Returns once all of it is taken, however slow the reader is."""
    await asyncio.to_thread(_write_all, sys.stdout.fileno(), data)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


@contextmanager
def raw_terminal() -> Iterator[None]:
    """Every key goes to the guest, Ctrl-C as well. The terminal is as before afterwards."""
    if not sys.stdin.isatty():
        yield
        return
    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    try:
        tty.setraw(file)
        yield
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)
