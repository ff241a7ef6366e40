"""Of a part that its site may put aside: what that takes, and how far it is where workspaces of it
go to other hosts instead."""

from datetime import datetime, timedelta

from intertie.broker.domain.placed import Placed
from intertie.common.intervals import Window
from intertie.common.values import Struct


class Keeping(Struct, frozen=True, kw_only=True):
    """Of a part that its site may put aside: what that takes."""

    mib_s: int
    """Of a host's pool, to move one guest's memory: kept free for it as long as it may be needed,
    as is disk for that memory."""
    save: timedelta
    """After the window's end, in which its guests' memory goes to the pools; 0: it never does, and
    whoever puts it aside cancels it."""
    restore: timedelta = timedelta()
    """At the window's beginning, in which it comes back; 0: it begins afresh."""
    until: datetime | None = None
    """Its disks and memory are kept until then; None: it is over at the window's end."""
    again: timedelta = timedelta()
    """Of one that is put aside: how long going on would take, by the pace of its hosts."""
    promised: Window | None = None
    """Of one with a deadline that is put aside: room for all the rest of it, with what going on
    takes, which ends when it is kept no longer."""
    saved: bool = False
    """All of it was, since it was put aside, and went to other hosts since, or tried to: that those
    have not obeyed yet does not make it late."""
    moves: int = 0
    """How often it was brought to other hosts to go on there, since it was put aside."""

    @property
    def has_room(self) -> bool:
        """For its memory, beside its disks: of one that is cancelled instead nothing is kept. One
        that goes on for the last time has it there until that came back."""
        return bool(self.save or self.restore) or self.until is not None


ANSWERED_WITHIN = timedelta(seconds=10)
"""A migration that is broken off: by then both of its hosts have said who has the workspace."""


class Vacating(Struct, frozen=True, kw_only=True):
    """Of a part that gives way by migration: workspaces of it are on their way to other hosts. If
    one does not get there the part is put aside, and counts as if it were."""

    leaves: tuple[Placed, ...]
    """Where they were, and are not to be."""
    by: datetime
    """The end of its window, if it is put aside."""
    keeping: Keeping | None
    """Likewise; None: it is cancelled instead."""
    called_off: bool = False
    """It is put aside wherever they are, as others need the room where they are going, too."""
    late: timedelta = timedelta()
    """By which it is not known in time where they are: it counts for so much longer."""

    @property
    def broken_off(self) -> datetime:
        """What is on its way then goes no further."""
        return self.by - ANSWERED_WITHIN

    @property
    def free_from(self) -> datetime:
        """Where they were there is room for others from then on."""
        save = self.keeping.save if self.keeping is not None else timedelta()
        return self.by + self.late + save
