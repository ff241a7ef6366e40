"""What tenants have of all sites at this moment, for the plug-in that is fair between them."""

from collections.abc import Iterable
from datetime import datetime

from intertie.common.leasing.fairness import InUse
from intertie.common.quantities import Vector
from intertie.common.spec import total_demand
from intertie.metasched.domain.cluster import LIVE, PENDING, ClusterRecord


def in_use(known: Iterable[ClusterRecord], capacity: Vector, *, now: datetime) -> InUse:
    """By the clusters of this meta-scheduler: what tenants have of a site without it, the site
    does not tell."""
    by_tenant: dict[str, Vector] = {}
    for each in known:
        if each.state in LIVE | PENDING and each.window.contains(now):
            tenant = each.path.tenant
            has = by_tenant.get(tenant, Vector())
            by_tenant[tenant] = has + total_demand(each.spec, each.counts())
    return InUse(capacity=capacity, by_tenant=by_tenant)
