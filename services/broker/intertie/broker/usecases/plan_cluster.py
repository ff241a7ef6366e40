"""Plans to choose from: the meta-scheduler's; of a site without one, what it would do itself."""

from intertie.broker.domain.cluster import ClusterView
from intertie.broker.domain.ports import Caller, Foreign, ForeignPlans
from intertie.broker.usecases.create_cluster import CreateCluster, Order
from intertie.broker.usecases.forwarding import Forwarding
from intertie.common.spec import check_can_be_chosen


class PlanCluster:
    def __init__(self, create: CreateCluster, forwarding: Forwarding) -> None:
        self._create = create
        self._forwarding = forwarding

    async def __call__(self, order: Order, caller: Caller) -> ClusterView | Foreign | ForeignPlans:
        """To choose among sites is a meta-scheduler's, also where this site could serve the request
        alone; but for leases with a kind, which are not handed on. `order` takes nothing."""
        check_can_be_chosen(order.spec.lease)
        if order.spec.lease.kind is None and self._forwarding.possible:
            return await self._forwarding.plans(caller, order.name, order.spec)
        return await self._create(order, caller)
