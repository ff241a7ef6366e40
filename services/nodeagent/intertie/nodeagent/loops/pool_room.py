"""The room in a host's pool, beside what is being written to it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.ports import Storage

TO_RESUME_MIB = 32
"""With less, a guest that waits for room would wait again at once."""
_LEFT_MIB = 256
"""For the disks of guests, which grow as they are written to."""


class PoolRoom:
    """Memories that are put aside and copies of disks; disks themselves take what they need."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._due: dict[object, Callable[[], int]] = {}

    def too_full(self) -> bool:
        """For a guest that waits for room to go on."""
        return self._storage.room_mib() < TO_RESUME_MIB

    @contextmanager
    def writing(
        self,
        what: str,
        mib: int,
        written_mib: Callable[[], int],
        *,
        owed_mib: int = 0,
        final: bool = False,
    ) -> Iterator[None]:
        """While so much is written to the pool. HostFailure, which is `final` or not, where it may
        not take it beside what others have yet to write, and `owed_mib` that are not to be
        touched. `what` says it: "its memory", say."""
        needed_mib = mib + sum(due() for due in self._due.values()) + owed_mib + _LEFT_MIB
        if (room_mib := self._storage.room_mib()) < needed_mib:
            raise HostFailure(
                f"{what} has no room in the host's pool: {room_mib} MiB are free, and "
                f"{needed_mib} needed",
                final=final,
            )
        key = object()
        self._due[key] = lambda: max(mib - written_mib(), 0)
        try:
            yield
        finally:
            del self._due[key]
