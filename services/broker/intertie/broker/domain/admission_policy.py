"""Whom a site lets have how much, and for when: one of its plug-ins.

What fits is no policy's affair: that is the ledger's. A policy says what is refused although it
would fit.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from intertie.common.intervals import Window
from intertie.common.values import Struct, field

EACH_OTHER = "*"
"""In place of a tenant: each one that is not named, for itself."""


class AdmissionPolicy(Protocol):
    def most(self, tenant: str) -> Mapping[str, int]:
        """What the tenant may have at one time, of some of `quantities.DIMENSIONS`. Only of these
        is counted what it has, which costs with each admission; so it is the same each time."""
        ...

    def most_queued(self, tenant: str) -> int | None:
        """How many of the tenant's leases may be QUEUED at one time; None: any number."""
        ...

    def refusal(self, tenant: str, window: Window, *, now: datetime) -> str:
        """Why no lease with this window is taken, as a sentence; empty: it may be."""
        ...


class AcceptAll(Struct, frozen=True):
    """Whatever fits."""

    def most(self, tenant: str) -> Mapping[str, int]:
        del tenant
        return {}

    def most_queued(self, tenant: str) -> int | None:
        del tenant
        return None

    def refusal(self, tenant: str, window: Window, *, now: datetime) -> str:
        del tenant, window, now
        return ""


ACCEPT_ALL = AcceptAll()


class Quotas(AcceptAll, frozen=True):
    """No more than so much at one time."""

    of: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By tenant, EACH_OTHER among them or not."""
    queued: Mapping[str, int] = field(default_factory=dict)
    """Likewise, of leases; one that is named in neither has no bound."""

    def most(self, tenant: str) -> Mapping[str, int]:
        return self.of.get(tenant, self.of.get(EACH_OTHER, {}))

    def most_queued(self, tenant: str) -> int | None:
        if tenant in self.of:
            return self.queued.get(tenant)
        return self.queued.get(tenant, self.queued.get(EACH_OTHER))


class WindowBounds(AcceptAll, frozen=True):
    """No longer than so long, and no further ahead than so far. 0: without bound."""

    longest: timedelta = timedelta()
    longest_lead: timedelta = timedelta()

    def refusal(self, tenant: str, window: Window, *, now: datetime) -> str:
        del tenant
        if self.longest and window.duration > self.longest:
            return f"a lease lasts {self.longest} at most, and this one {window.duration}"
        if self.longest_lead and window.start - now > self.longest_lead:
            return f"a lease begins within {self.longest_lead}, and this one at {window.start}"
        return ""


class All(Struct, frozen=True):
    """What several allow together."""

    policies: Sequence[AdmissionPolicy]

    def most(self, tenant: str) -> Mapping[str, int]:
        least: dict[str, int] = {}
        for policy in self.policies:
            for dimension, amount in policy.most(tenant).items():
                least[dimension] = min(amount, least.get(dimension, amount))
        return least

    def most_queued(self, tenant: str) -> int | None:
        each = (policy.most_queued(tenant) for policy in self.policies)
        return min((most for most in each if most is not None), default=None)

    def refusal(self, tenant: str, window: Window, *, now: datetime) -> str:
        each = (policy.refusal(tenant, window, now=now) for policy in self.policies)
        return next((why for why in each if why), "")
