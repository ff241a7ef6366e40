"""What sites ask for room that others make, as a search puts pieces there."""

from datetime import timedelta

from intertie.metasched.domain.costs import COST_SCALE
from intertie.metasched.domain.graph import FINE
from intertie.metasched.domain.problem import Problem

Taken = tuple[int, int]
"""vCPUs and MiB of memory."""
NOTHING: Taken = (0, 0)


class RoomCosts:
    """Of a problem in one of its windows; sites by their numbers, costs as a board's in units
    of 1. False: no site asks anything."""

    def __init__(self, problem: Problem, slot: int) -> None:
        hours = problem.windows[slot].duration / timedelta(hours=1)
        self._asks: dict[int, tuple[Taken, float, float]] = {}
        """What is free while nobody gives way, and what a vCPU and a MiB beyond that cost."""
        self._takes: dict[tuple[str, int], Taken] = {}
        for at, site in enumerate(problem.sites):
            offer = site.offers[slot]
            if offer.free_together is None or not offer.asks_for_room:
                continue
            free = offer.free_together.vcpus, offer.free_together.memory_mib
            vcpu = offer.rates.give_way_vcpu_hour * hours
            mib = offer.rates.give_way_memory_gib_hour * hours / 1024
            self._asks[at] = free, vcpu, mib
            for group in problem.groups:
                amounts = site.charges(group)
                self._takes[group.name, at] = amounts.vcpus, amounts.memory_mib

    def __bool__(self) -> bool:
        return bool(self._asks)

    def with_more(self, taken: Taken, at: int, group: str, count: int) -> Taken:
        vcpus, memory_mib = self._takes.get((group, at), NOTHING)
        return taken[0] + count * vcpus, taken[1] + count * memory_mib

    def of(self, at: int, taken: Taken) -> int:
        """What is asked there for so much in all."""
        if at not in self._asks:
            return 0
        (vcpus, memory_mib), vcpu, mib = self._asks[at]
        price = vcpu * max(taken[0] - vcpus, 0) + mib * max(taken[1] - memory_mib, 0)
        return round(price * COST_SCALE) * FINE

    def at_most(self, counts: dict[str, int]) -> int:
        """No layout of so many is asked for more."""
        total = 0
        for at in self._asks:
            taken = NOTHING
            for group, count in counts.items():
                taken = self.with_more(taken, at, group, count)
            total += self.of(at, taken)
        return total
