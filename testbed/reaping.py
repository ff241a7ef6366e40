"""Takes leave of emulators as soon as they end, where the machine's init does not."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_EVERY_S = 0.01


@contextmanager
def reaping() -> Iterator[None]:
    """libvirt waits for an emulator that it has ended until nothing is left of it. That is its
    parent's to see to, which is init, and that of some machines for tests looks every 2 s. In here
    orphans of what this process starts are its own."""
    _adopt(True)
    over = threading.Event()
    thread = threading.Thread(target=_reap, args=(over,), name="reaping")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _adopt(False)


def _adopt(on: bool) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _reap(over: threading.Event) -> None:
    """Only emulators: what else ends here others wait for."""
    while not over.wait(_EVERY_S):
        for pid in _children():
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("qemu-system"):
                    os.waitpid(pid, os.WNOHANG)


def _children() -> list[int]:
    found: list[int] = []
    for children in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, children.read_text().split())
    return found
