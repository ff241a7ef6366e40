"""What tenants have of the site at this moment, for the plug-in that is fair between them."""

from collections.abc import Collection
from datetime import datetime

from intertie.broker.domain.amounts import fixed_amounts
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import Part
from intertie.common.leasing.fairness import InUse
from intertie.common.quantities import Vector


def in_use(view: LedgerView, policy: Policy, but: Collection[str] = (), *, now: datetime) -> InUse:
    """Of all that runs or should, of any kind and for whomever it is held. `but`: names of parts
    that are not counted. One that is put aside has nothing meanwhile. Nothing where the policy
    does not go by it."""
    if not policy.queue.fairness.looks:
        return InUse()
    by_tenant: dict[str, Vector] = {}
    for each in view.parts.values():
        part = each.value
        if not part.counted or part.name in but or not part.window.contains(now):
            continue
        tenant = part.path.tenant
        by_tenant[tenant] = by_tenant.get(tenant, Vector()) + amounts_of(part)
    capacity = sum(map(policy.promisable, view.fleet.facts.values()), start=Vector())
    return InUse(capacity=capacity, by_tenant=by_tenant)


def amounts_of(part: Part) -> Vector:
    """What all of its workspaces take of their hosts, but for promised pairs."""
    return sum(map(fixed_amounts, part.spec.workspaces), start=Vector())
