"""The variables of a model of a problem, of which its rules speak."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from intertie.metasched.domain.routes import Pair, Route
from intertie.metasched.domain.transfers import Staging


class Rule(Enum):
    """Rules that may be broken, as little as possible, to find out what speaks against a plan."""

    HOSTS = "HOSTS"
    LINKS = "LINKS"
    LATENCY = "LATENCY"


@dataclass(slots=True, kw_only=True)
class Model:
    """Variables that several rules speak of."""

    cp: Any
    relaxed: frozenset[Rule] = frozenset()
    start: list[Any] = field(default_factory=list)
    """One boolean a candidate window."""
    on: dict[tuple[str, str, int], Any] = field(default_factory=dict)
    """Workspaces of (group, site, host)."""
    at: dict[tuple[str, str], Any] = field(default_factory=dict)
    """Workspaces of (group, site)."""
    present: dict[tuple[str, str], Any] = field(default_factory=dict)
    """Whether (group, site) has any."""
    total: dict[str, Any] = field(default_factory=dict)
    used: dict[str, Any] = field(default_factory=dict)
    """Whether the site has any workspace."""
    traffic: dict[Pair, Any] = field(default_factory=dict)
    """Promised Mbit/s between two sites, each direction."""
    taken: dict[Pair, dict[Route, Any]] = field(default_factory=dict)
    """Whether what two sites send one another takes the route; 1 where there is but one."""
    flow: dict[Pair, dict[Route, Any]] = field(default_factory=dict)
    """What of their traffic goes that way: all or nothing."""
    all_routes: bool = True
    """No route is left out of these."""
    staging: Staging | None = None
    """Where the problem has items."""
    brought: dict[tuple[int, int], Any] = field(default_factory=dict)
    """Whether an item is brought to a site, both by their numbers."""
    sent: dict[tuple[int, int, int], Any] = field(default_factory=dict)
    """And from which: item, source, target."""
    excess: list[Any] = field(default_factory=list)
    """By how much relaxed rules are broken."""


def product(model: Model, one: Any, two: Any, most: int) -> Any:
    """A variable that is one times two."""
    variable = model.cp.new_int_var(0, most, "")
    model.cp.add_multiplication_equality(variable, [one, two])
    return variable
