"""Doing no more than so much a second."""


class Pace:
    """Of one stream of bytes. Who was slower than it may does not catch up for more than a
    second."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._due: float | None = None
        """When all that was let through so far would be done at that rate."""

    def wait_s(self, size: int, *, now: float) -> float:
        """How long to wait before the next, after `size` more bytes. `now` is monotonic."""
        due = now if self._due is None else max(self._due, now - 1)
        self._due = due + size / self._bytes_per_s
        return max(self._due - now, 0.0)
