"""Values that are made of files, and made anew when the files hold something else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from intertie.common.clock import Clock

T = TypeVar("T")

LOOK_S = 1.0
"""At most so often are files looked at by those who ask for every call."""


class Followed(Generic[T]):
    """What `make` makes of the files' contents, as they are now.

    Contents that cannot be read or made into a value (a file half written, a key that does not
    belong to its certificate yet) change nothing: the value stays what it was, `refused` is told
    of it once, and they are tried again at every look. May be asked from any thread.
    """

    def __init__(
        self,
        files: Sequence[Path],
        make: Callable[[tuple[bytes, ...]], T],
        clock: Clock,
        *,
        refused: Callable[[Exception], None] = lambda problem: None,
    ) -> None:
        """Raises what reading or `make` raises: there is no value yet that could stay."""
        self._files = tuple(files)
        self._make = make
        self._clock = clock
        self._refused = refused
        self._lock = threading.Lock()
        self._told = False
        self._held = self._read()
        self._value = make(self._held)
        self._due = clock.monotonic() + LOOK_S

    def now(self, *, at_once: bool = False) -> T:
        """The same object for as long as the files stay the same. `at_once` looks at them
        whenever they were looked at last."""
        with self._lock:
            if at_once or self._clock.monotonic() >= self._due:
                self._look()
            return self._value

    def _look(self) -> None:
        self._due = self._clock.monotonic() + LOOK_S
        try:
            found = self._read()
            if found != self._held:
                self._value = self._make(found)
                self._held = found
        except Exception as problem:
            if not self._told:
                self._told = True
                self._refused(problem)
        else:
            self._told = False

    def _read(self) -> tuple[bytes, ...]:
        """By content, not by date: files are small, and a date may stay the same."""
        return tuple(each.read_bytes() for each in self._files)
