"""What can go wrong on a host, as sentences that are reported to the broker."""

from dataclasses import dataclass


@dataclass(eq=False)
class HostFailure(Exception):
    """Something on this host, or that it depends on, did not do what it should."""

    problem: str
    final: bool = False
    """It will not go away by itself: the environment or the allocation is at fault."""

    def __str__(self) -> str:
        return self.problem


class HypervisorSilent(HostFailure):
    """libvirt did not answer: nothing is known of the guests, which go on."""


class RecordsUnreadable(HostFailure):
    """The site's records cannot be read or written now."""


def as_failure(error: Exception) -> HostFailure:
    """Whatever went wrong on this host, as what is told of it."""
    if isinstance(error, HostFailure):
        return error
    if isinstance(error, OSError):
        return HostFailure(f"this host's disk: {error.strerror or repr(error)}")
    return HostFailure(repr(error))


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often something failed in a row, and when it is worth another try."""

    count: int = 0
    not_before: float = 0.0
    """Monotonic seconds."""
    problem: str = ""
    final: bool = False

    def failed(self, error: HostFailure, *, now: float) -> "Attempts":
        """The next try is 1, 2, 4 ... 60 s later; 60 s where trying again is mere hope."""
        pause_s = 60.0 if error.final else min(2.0**self.count, 60.0)
        return Attempts(self.count + 1, now + pause_s, str(error), error.final)

    def may_try(self, *, now: float) -> bool:
        return now >= self.not_before

    @property
    def is_failure(self) -> bool:
        """Whether to report it as FAILED rather than as a delay."""
        return self.final or self.count >= 3
