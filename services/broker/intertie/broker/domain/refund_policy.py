"""What a site gives back, and when."""

from datetime import timedelta

from intertie.common.values import Struct


class RefundPolicy(Struct, frozen=True, kw_only=True):
    grace: timedelta = timedelta(minutes=1)
    """A promise that was not kept for less long is no matter."""
    factor: float = 1.0
    """Of the price of what was promised, over the time in which it was not kept."""
    lease_share: float = 0.0
    """Of the price of the whole lease over that time, beside it."""
    failed_share: float = 1.0
    """Of the price of what was left, where a lease ended and its owner had not asked for it."""
    cancelled_share: float = 1.0
    """Likewise, where its owner has."""
