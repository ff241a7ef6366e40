"""What the scheduler decided, for whoever carries it out."""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """Of a best-effort lease all of them, of a reservation START and END."""

    START = "start"
    SUSPEND = "suspend"
    """Stop running, write memory; the nodes are the lease's until SUSPENDED."""
    SUSPENDED = "suspended"
    RESUME = "resume"
    """Read memory on these nodes; it runs again at RESUMED."""
    RESUMED = "resumed"
    CANCEL = "cancel"
    """Stop, keep nothing; the lease is in the queue again."""
    END = "end"


@dataclass(frozen=True, slots=True)
class Event:
    at_s: int
    kind: Kind
    lease: str
    nodes: tuple[int, ...]
    """Those that are taken from now on, that are held still, or, at SUSPENDED, CANCEL and END,
    that are free again."""
