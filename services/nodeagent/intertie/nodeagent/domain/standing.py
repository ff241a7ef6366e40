"""What this host is told of itself, beside what is wanted on it."""

from dataclasses import dataclass
from enum import Enum


class Hold(Enum):
    NONE = "NONE"
    HELD = "HELD"
    """No guest is started."""
    FENCED = "FENCED"
    """Every guest is stopped, none is started: what was here may be elsewhere by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    epoch: int = 0
    """Grows each time that the host is begun to be fenced; 0: it never was."""
    hold: Hold = Hold.NONE
