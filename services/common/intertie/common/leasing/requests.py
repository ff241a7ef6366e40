"""What is asked for: an advance reservation, or a best-effort lease."""

from dataclasses import dataclass, field

from intertie.common.errors import FieldInvalid
from intertie.common.quantities import Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """An advance reservation: so many nodes at once over exactly this window, or refused."""

    name: str
    nodes: int
    start_s: int
    duration_s: int

    def __post_init__(self) -> None:
        _check_positive("nodes", self.nodes)
        _check_positive("duration_s", self.duration_s)

    @property
    def end_s(self) -> int:
        """The first second that is no longer the reservation's."""
        return self.start_s + self.duration_s


@dataclass(frozen=True, slots=True, kw_only=True)
class BestEffort:
    """So many nodes at once for so long, whenever there is room; others may be let pass."""

    name: str
    nodes: int
    duration_s: int
    """Of running, without the time in which it is suspended. The lease is over then, or when
    its holder says so before."""
    tenant: str = ""
    """Whose it is, and what all of its nodes take together: where tenants are told apart."""
    takes: Vector = field(default_factory=Vector)

    def __post_init__(self) -> None:
        _check_positive("nodes", self.nodes)
        _check_positive("duration_s", self.duration_s)


def _check_positive(field: str, value: int) -> None:
    if value < 1:
        raise FieldInvalid(field, f"is {value}; must be 1 or more")
