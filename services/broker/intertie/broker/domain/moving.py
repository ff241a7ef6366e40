"""A workspace that is to go to another host of the site, while it runs or as it is put aside, as
its part has it."""

from datetime import datetime
from enum import Enum

from intertie.common.errors import IllegalMove
from intertie.common.values import Struct, replace


class MovingState(Enum):
    PREPARING = "PREPARING"
    """The other host makes all that it needs; its own knows nothing of it yet."""
    SENDING = "SENDING"
    """Its own host is told to send it."""
    ANSWERING = "ANSWERING"
    """Its own host is asked for whether it still has it, and sends it no more."""


MOVING_NEXT: dict[MovingState, frozenset[MovingState]] = {
    MovingState.PREPARING: frozenset({MovingState.SENDING}),
    MovingState.SENDING: frozenset({MovingState.ANSWERING}),
    MovingState.ANSWERING: frozenset(),
}
"""Every edge there is. What is over is not written down: it is at one host or the other."""


class Moving(Struct, frozen=True, kw_only=True):
    workspace: str
    host: str
    """Where it is to be. It is where its part has it placed until that has given it up."""
    number: int
    """Hosts are told it, and answer by it: none is given twice to one workspace."""
    state: MovingState = MovingState.PREPARING
    since: datetime
    """In that state."""
    why: str = ""
    """It is broken off."""
    aside: bool = False
    """It does not run, and goes as it is put aside."""

    def move(self, to: MovingState, *, now: datetime, why: str = "") -> "Moving":
        if to not in MOVING_NEXT[self.state]:
            raise IllegalMove(f"{self.workspace}: {self.state.name} to {to.name}")
        return replace(self, state=to, since=now, why=why)


class Left(Struct, frozen=True, kw_only=True):
    """What a migration has left of a workspace at a host where it is not, or is not any more:
    counted there until that has cleared it. By the part's own terms, as there may be many."""

    workspace: str
    host: str
    generation: int
    """The first of what hosts are told in which that one has no part in it."""
    live: bool = False
    """It went, or was to go, while it ran: there may be all of it, and not its disk alone."""
