"""Plans to choose from: the meta-scheduler's; of a site without one, what it would do itself."""

from intertie.broker.domain.cluster import ClusterView
from intertie.broker.domain.ports import Caller, Foreign, ForeignPlans
from intertie.broker.usecases.create_cluster import CreateCluster, Order
from intertie.broker.usecases.forwarding import Forwarding
from intertie.common.errors import FieldInvalid
from intertie.common.spec import Kind


class PlanCluster:
    def __init__(self, create: CreateCluster, forwarding: Forwarding) -> None:
        self._create = create
        self._forwarding = forwarding

    async def __call__(self, order: Order, caller: Caller) -> ClusterView | Foreign | ForeignPlans:
        """To choose among sites is a meta-scheduler's, also where this site could serve the request
        alone; but for leases with a kind, which are not handed on. `order` takes nothing."""
        kind = order.spec.lease.kind
        if kind is Kind.BEST_EFFORT:
            raise FieldInvalid(
                "spec.lease.kind",
                "is BEST_EFFORT, which runs when there is room, so there is nothing to choose; "
                "Create with validate_only says when that would be",
            )
        if kind is None and self._forwarding.possible:
            return await self._forwarding.plans(caller, order.name, order.spec)
        return await self._create(order, caller)
