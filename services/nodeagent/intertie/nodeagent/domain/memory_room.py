"""Whether there is memory for one more guest on this host.

The site promises no more than there is, but what is late is still there: a guest that is being
saved when its window is over has its memory until it is.
"""

from collections.abc import Mapping

from intertie.nodeagent.domain.failures import HostFailure


class NoMemoryYet(HostFailure):
    """It begins as soon as there is; nothing has failed."""


class MemoryRoom:
    """As of one moment, and what was taken of it since."""

    def __init__(self, capacity_mib: int, taken: Mapping[str, int]) -> None:
        self._capacity_mib = capacity_mib
        self._taken = dict(taken)
        """MiB, by domain, of those that run, are on the way to the pool or back."""

    def take(self, domain: str, more_mib: int) -> None:
        """NoMemoryYet where it would be more than the host has to give."""
        has_mib, all_mib = self._taken.get(domain, 0), sum(self._taken.values())
        if all_mib + more_mib > self._capacity_mib:
            raise NoMemoryYet(
                f"waits for memory: it needs {more_mib} MiB, and guests that run, are being saved "
                f"or restored have {all_mib} of this host's {self._capacity_mib}"
            )
        self._taken[domain] = has_mib + more_mib
