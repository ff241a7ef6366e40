"""What order, backfilling and preemption ask of a site: the port between them and what there is.

A replay of traces answers by how many nodes are free (`free_nodes`), a broker by the book's
calendar (its `domain.openings`), a meta-scheduler by what its sites offer (its `domain.rooms`).
"""

from typing import Protocol

from intertie.common.leasing.lease import Lease


class Availability(Protocol):
    """What is free from now on. Moments are whole seconds, as everywhere in leasing."""

    def fits(self, lease: Lease, start_s: int, end_s: int) -> bool:
        """Whether there is room for it from `start_s` up to, not including, `end_s`."""
        ...

    def earliest(self, lease: Lease, span_s: int, from_s: int) -> int | None:
        """When there first is room for it for so long; None where that cannot be said."""
        ...

    def take(self, lease: Lease, start_s: int, end_s: int) -> None:
        """Counts it from here on: it was seen to fit."""
        ...

    def hold(self, lease: Lease, start_s: int, end_s: int) -> "Held":
        """A start that is not to be put off: it was seen to fit."""
        ...


class Held(Protocol):
    @property
    def at_s(self) -> int: ...

    def leaves(self, lease: Lease) -> bool:
        """Whether this one may run past it without putting it off."""
        ...

    def let_by(self, lease: Lease) -> None:
        """It does."""
        ...
