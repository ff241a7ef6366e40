"""Whose turn it is where leases of several tenants wait: one of a policy's plug-ins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace
from typing import ClassVar, Protocol

from intertie.common.errors import FieldInvalid
from intertie.common.leasing.lease import Lease
from intertie.common.leasing.preemption import Rank
from intertie.common.quantities import Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class InUse:
    """What tenants have at one moment, and of how much."""

    capacity: Vector = field(default_factory=Vector)
    """Of all hosts together; what is 0 is not known, and counts for nobody."""
    by_tenant: Mapping[str, Vector] = field(default_factory=dict)

    def share(self, amounts: Vector) -> float:
        """The dominant one: of vCPUs, memory or disk, whichever it is the largest part of."""
        have = self.capacity
        pairs = (
            (amounts.vcpus, have.vcpus),
            (amounts.memory_mib, have.memory_mib),
            (amounts.disk_mib, have.disk_mib),
        )
        return max((amount / of for amount, of in pairs if of > 0), default=0.0)


class Fairness(Protocol):
    @property
    def looks(self) -> bool:
        """Whether it goes by what is in use; else nobody need find that out."""

    def line(self, leases: Sequence[Lease], rank: Rank, now_s: int, in_use: InUse) -> list[Lease]:
        """All of them, the first to be served first. `rank` is the order's; `in_use` what tenants
        have besides these leases. Of leases that run, the last gives way first."""


@dataclass(frozen=True, slots=True)
class AllAlike:
    """Whose a lease is does not matter: the order alone says who goes first."""

    looks: ClassVar[bool] = False

    def line(self, leases: Sequence[Lease], rank: Rank, now_s: int, in_use: InUse) -> list[Lease]:
        return sorted(leases, key=lambda each: (rank(each), each.submit_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class DominantResource:
    """Dominant-resource fairness (Ghodsi et al., NSDI 2011): the next is the first, by the order,
    of the tenant whose dominant share is least, of what it has and what was picked for it before.

    Waiting counts as share that one has less: a whole one, all of some resource, in `patience_s`.
    Shares above that count as a whole one. So who has waited for `patience_s` longer than another
    goes before it, whatever their tenants have, and before a lease there can be no more than those
    that came up to `patience_s` after it: it does not starve. A lease that has run has waited
    by that much less.
    """

    looks: ClassVar[bool] = True
    patience_s: int = 86_400

    def __post_init__(self) -> None:
        if self.patience_s < 1:
            raise FieldInvalid("patience_s", f"is {self.patience_s}; must be 1 or more")

    def line(self, leases: Sequence[Lease], rank: Rank, now_s: int, in_use: InUse) -> list[Lease]:
        queues: dict[str, list[Lease]] = {}
        for lease in sorted(leases, key=lambda each: (rank(each), each.submit_s))[::-1]:
            queues.setdefault(lease.request.tenant, []).append(lease)
        has = {tenant: in_use.by_tenant.get(tenant, Vector()) for tenant in queues}

        def turn(tenant: str) -> tuple[float, int, str]:
            """Whose is least is next; of equal ones, whose lease came first."""
            lease = queues[tenant][-1]
            share = min(in_use.share(has[tenant]), 1.0)
            return share - lease.waited_s(now_s) / self.patience_s, lease.submit_s, tenant

        turns = [turn(tenant) for tenant in queues]
        heapify(turns)
        line: list[Lease] = []
        while turns:
            tenant = turns[0][-1]
            lease = queues[tenant].pop()
            line.append(lease)
            has[tenant] += lease.request.takes
            if queues[tenant]:
                heapreplace(turns, turn(tenant))
            else:
                heappop(turns)
        return line
