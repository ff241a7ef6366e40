"""What tenants have of all sites at this moment, for the plug-in that is fair between them."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from intertie.common.leasing.fairness import InUse
from intertie.common.quantities import Vector
from intertie.common.spec import ClusterSpec, demand_of
from intertie.metasched.domain.cluster import LIVE, PENDING, ClusterRecord


def in_use(known: Iterable[ClusterRecord], capacity: Vector, *, now: datetime) -> InUse:
    """By the clusters of this meta-scheduler: what tenants have of a site without it, the site
    does not tell."""
    by_tenant: dict[str, Vector] = {}
    for each in known:
        if each.state in LIVE | PENDING and each.window.contains(now):
            tenant = each.path.tenant
            has = by_tenant.get(tenant, Vector())
            by_tenant[tenant] = has + amounts(each.spec, each.counts())
    return InUse(capacity=capacity, by_tenant=by_tenant)


def amounts(spec: ClusterSpec, counts: Mapping[str, int]) -> Vector:
    """What so many workspaces of each group take together."""
    needs = (
        demand_of(group.allocation, len(group.networks)) * counts[group.name]
        for group in spec.groups
    )
    return sum(needs, start=Vector())
