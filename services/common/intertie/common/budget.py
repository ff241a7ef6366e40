"""What a lease may cost: when a price is above it, and how that is told."""

from collections.abc import Iterable

from intertie.common.errors import Shortfall
from intertie.common.price import PriceTerm, rooms_said

FIELD = "spec.placement.max_cost"
RESOURCE = "budget"

_ROUNDING, _LEAST = 1e-9, 1e-6
"""By which sums of prices may be off: of themselves, and in the unit of account."""


def above(cost: float, max_cost: float) -> bool:
    """By more than prices are rounded by."""
    return cost > max_cost + max(_LEAST, _ROUNDING * max_cost)


def over_budget(
    cost: float,
    max_cost: float,
    *,
    site: str = "",
    what: str = "it",
    asked: Iterable[PriceTerm] = (),
) -> Shortfall:
    """In the unit of account. Of the terms that are asked for it, what is for those who give way is
    told too."""
    message = f"{what} costs {cost:.10g}, and the budget is {max_cost:.10g}"
    said = "; ".join((message, *rooms_said(asked)))
    return Shortfall(site=site, resource=RESOURCE, field=FIELD, message=said)
