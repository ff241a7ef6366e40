"""What is refused although it fits: by the site's admission policy."""

from collections.abc import Iterable
from datetime import datetime

from intertie.broker.domain.admission_policy import ACCEPT_ALL
from intertie.broker.domain.amounts import amounts_of
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.placed import Placed, hosts_of
from intertie.broker.domain.price import terms_of
from intertie.broker.domain.quotas import counted_for, quota_shortfall
from intertie.broker.domain.stretch import Stretch
from intertie.common.budget import above, over_budget
from intertie.common.calendar import Calendar, Demand
from intertie.common.errors import NoCapacity, Shortfall
from intertie.common.intervals import Window
from intertie.common.part_spec import PartSpec
from intertie.common.spec import ClusterSpec


def check_window(window: Window, policy: Policy, tenant: str, *, now: datetime) -> None:
    """NoCapacity where no lease with this window is taken."""
    if why := policy.admission.refusal(tenant, window, now=now):
        short = Shortfall(
            site=policy.site,
            resource="policy",
            message=f"{policy.site}: {why}",
            field="spec.lease",
        )
        raise NoCapacity((short,))


def check_budget(spec: ClusterSpec, price: Iterable[Stretch], site: str) -> None:
    """NoCapacity where the site asks more than the lease may cost."""
    asked, most = terms_of(price, site), spec.placement.max_cost
    cost = sum(each.amount for each in asked)
    if most and above(cost, most):
        what = f"{site} alone"
        raise NoCapacity((over_budget(cost, most, site=site, what=what, asked=asked),))


def check_quotas(
    spec: PartSpec,
    placed: Iterable[Placed],
    gateway: str,
    calendar: Calendar,
    policy: Policy,
    tenant: str,
) -> None:
    """NoCapacity where the tenant would have more than it may at any moment of the window."""
    if policy.admission is ACCEPT_ALL:
        return
    amounts = amounts_of(spec, hosts_of(placed), gateway)
    wanted = counted_for(tenant, policy.admission, amounts)
    if short := calendar.shortfalls(Demand("", spec.window, wanted)):
        raise NoCapacity(
            tuple(
                quota_shortfall(policy.site, tenant, key.rpartition("/")[2], *amount)
                for key, *amount in short
            )
        )


def check_queue(tenant: str, waiting: int, policy: Policy) -> None:
    """NoCapacity where one more of the tenant's leases may not be QUEUED beside those."""
    most = policy.admission.most_queued(tenant)
    if most is None or waiting < most:
        return
    short = Shortfall(
        site=policy.site,
        resource="quota_queued_leases",
        wanted=1,
        available=max(most - waiting, 0),
        unit="leases",
        field="spec.lease.kind",
        message=(
            f"{policy.site}: {waiting} leases of tenant {tenant} wait in its queue, and {most} may "
            "at one time; ask again when one has started, or delete one"
        ),
    )
    raise NoCapacity((short,))
