"""What is kept of a guest's memory, and what its owner's switches ask of it."""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

SHUTDOWN_S = 30.0
"""In which a guest whose power button was pressed may end in order."""


class Memory(Enum):
    """Of a guest that was put aside, as its files on the host say."""

    NONE = "NONE"
    SAVING = "SAVING"
    """It was begun to be written; whether to its end, the file itself says."""
    SAVED = "SAVED"
    RESTORING = "RESTORING"
    """Its guest has it back and was let go on. Where that is off now, nobody knows for how long it
    ran: its disk may be newer than this, so it is never used again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryMove:
    """Of a guest's memory to the host's pool, or back."""

    bytes: int
    duration: timedelta
    """Without what it waited for others to be moved."""


class Button(Enum):
    """Of a guest that is to be off."""

    FREE = "FREE"
    PRESSED = "PRESSED"
    """Less than SHUTDOWN_S ago."""
    IGNORED = "IGNORED"
