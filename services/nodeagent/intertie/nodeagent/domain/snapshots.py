"""When a workspace's disk may be copied, and by whom."""

from enum import Enum

from intertie.common.actions import Power, Switched
from intertie.nodeagent.domain.power import Memory
from intertie.nodeagent.domain.reconcile import ALIVE, DomainState, Note, Observed, Phase


class Way(Enum):
    """How a disk is copied as it is at one moment."""

    NONE = "NONE"
    """It cannot be now."""
    BESIDE = "BESIDE"
    """By the guest's own emulator, while the guest goes on or stands still."""
    ALONE = "ALONE"
    """Nobody has it open."""


def way(phase: Phase, seen: Observed, note: Note, switched: Switched) -> Way:
    """Only of a guest for which nothing else is to be done now. One that is on its way down, as
    its owner has asked for, is waited for."""
    if not seen.disk or phase not in (Phase.RUN, Phase.KEEP):
        return Way.NONE
    if seen.domain in ALIVE:
        falls = switched.power in (Power.OFF, Power.SAVED) or note.boots != switched.boots
        settled = seen.domain in (DomainState.RUNNING, DomainState.PAUSED) and not falls
        return Way.BESIDE if settled and phase is Phase.RUN else Way.NONE
    return Way.ALONE if seen.memory in (Memory.NONE, Memory.SAVED) else Way.NONE
