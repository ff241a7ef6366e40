"""The host's own word that it stops its guests when nobody can hear it."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOfLife:
    """The last one that the site's records took, with what was promised in it."""

    at: float
    """Before it was sent, on this machine's steady clock, in seconds."""
    boot: str
    """Which start of the machine that clock counts from."""
    fence_after: timedelta = timedelta()
    """0: nothing was promised."""

    def overdue(self, *, at: float, boot: str) -> bool:
        """Whether guests must be stopped by now. Of before the machine's start none is left."""
        if not self.fence_after or boot != self.boot:
            return False
        return not 0 <= at - self.at < self.fence_after.total_seconds()
