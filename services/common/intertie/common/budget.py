"""What a lease may cost: when a price is above it, and how that is told."""

from intertie.common.errors import Shortfall

FIELD = "spec.placement.max_cost"
RESOURCE = "budget"

_ROUNDING, _LEAST = 1e-9, 1e-6
"""By which sums of prices may be off: of themselves, and in the unit of account."""


def above(cost: float, max_cost: float) -> bool:
    """By more than prices are rounded by."""
    return cost > max_cost + max(_LEAST, _ROUNDING * max_cost)


def over_budget(cost: float, max_cost: float, *, site: str = "", what: str = "it") -> Shortfall:
    """In the unit of account."""
    return Shortfall(
        site=site,
        resource=RESOURCE,
        field=FIELD,
        message=f"{what} costs {cost:.10g}, and the budget is {max_cost:.10g}",
    )
