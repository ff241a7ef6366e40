"""Terms of a part beside those in force: what it had before, and what it may have instead."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum

from intertie.broker.domain.keeping import Keeping
from intertie.broker.domain.networks import Endpoint
from intertie.broker.domain.placed import Placed, all_hosts
from intertie.broker.domain.stretch import Stretch
from intertie.common.errors import IllegalMove
from intertie.common.part_spec import PartSpec
from intertie.common.values import Struct, replace


class Shed(Struct, frozen=True, kw_only=True):
    """Terms that were in force before the part was amended: counted beside those that are, until
    every host of them has obeyed what came after."""

    spec: PartSpec
    placed: tuple[Placed, ...]
    gateway: str
    generation: int
    """The first of what hosts are told in which they are in force no more."""
    until: datetime | None = None
    """Of a part that its site may put aside: from when on what it gave up is promised to others. It
    is later where hosts have not obeyed by then."""

    @property
    def ends(self) -> datetime:
        """When it counts no more, whatever its hosts say."""
        return self.until or self.spec.window.end

    def hosts(self) -> tuple[str, ...]:
        return all_hosts(self.placed, self.gateway)


class AmendState(Enum):
    HELD = "HELD"
    PREPARED = "PREPARED"
    APPLIED = "APPLIED"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"


AMEND_NEXT: dict[AmendState, frozenset[AmendState]] = {
    AmendState.HELD: frozenset({AmendState.PREPARED, AmendState.RELEASED, AmendState.EXPIRED}),
    AmendState.PREPARED: frozenset({AmendState.APPLIED, AmendState.RELEASED}),
    AmendState.APPLIED: frozenset(),
    AmendState.RELEASED: frozenset(),
    AmendState.EXPIRED: frozenset(),
}
"""Every edge there is. What is not HELD or PREPARED is not written down any more: the part has the
terms, or it has not. docs/states.md is drawn from this table by a test."""


class Amend(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Other terms for a part that stands: counted beside those in force until it is decided
    whether they replace them."""

    tx: str
    digest: str
    participants: tuple[str, ...]
    replaces: int
    """The number of the terms in force."""
    spec: PartSpec
    placed: tuple[Placed, ...]
    gateway: str
    state: AmendState
    create_time: datetime
    decide_by: datetime
    expire_time: datetime | None = None
    endpoints: tuple[Endpoint, ...] = ()
    price: Stretch | None = None
    """What was asked for them, from when they were held; None: by a release that knew no prices."""
    price_later: tuple[Stretch, ...] = ()
    """What was asked for the time after that, where others make room for another part of it than
    until then."""
    keeping: Keeping | None = None
    """Of a part that was put aside, and is to go on."""

    @property
    def prices(self) -> tuple[Stretch, ...]:
        return (self.price, *self.price_later) if self.price is not None else ()

    def at(self, asked: Sequence[Stretch]) -> "Amend":
        """At that price."""
        first, *later = asked
        return replace(self, price=first, price_later=tuple(later))

    def move(self, to: AmendState) -> "Amend":
        if to not in AMEND_NEXT[self.state]:
            raise IllegalMove(f"{self.tx}: {self.state.name} to {to.name}")
        return replace(self, state=to, expire_time=None)
