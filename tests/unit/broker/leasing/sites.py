"""A site of a few nodes whose scheduler is run by hand."""

from intertie.common.leasing.backfilling import Aggressive, Backfilling
from intertie.common.leasing.events import Event
from intertie.common.leasing.order import FirstCome, Order
from intertie.common.leasing.policy import Policy
from intertie.common.leasing.preemption import LastInOrder, Preemption
from intertie.common.leasing.requests import BestEffort, Reservation
from intertie.common.leasing.scheduler import Scheduler
from intertie.common.leasing.suspension import Suspension

TEN_S = Suspension(memory_mib=500, mib_s=50)
"""To suspend, and to resume."""


class Site:
    def __init__(
        self,
        nodes: int = 4,
        *,
        order: Order | None = None,
        backfilling: Backfilling | None = None,
        preemption: Preemption | None = None,
        suspension: Suspension | None = TEN_S,
        review_s: int | None = None,
    ) -> None:
        self.scheduler = Scheduler(
            nodes=nodes,
            policy=Policy(
                order=order or FirstCome(),
                backfilling=backfilling or Aggressive(),
                preemption=preemption or LastInOrder(),
                suspension=suspension,
                review_s=review_s,
            ),
        )
        self.said: list[str] = []
        """Events as `0 start a`, in order."""
        self.events: list[Event] = []
        self._due: int | None = 0

    def submit(self, now_s: int, name: str, nodes: int, duration_s: int) -> None:
        self.until(now_s)
        self.scheduler.submit(BestEffort(name=name, nodes=nodes, duration_s=duration_s), now_s)
        self.step(now_s)

    def reserve(self, now_s: int, name: str, nodes: int, start_s: int, duration_s: int) -> int:
        self.until(now_s)
        lacks = self.scheduler.reserve(
            Reservation(name=name, nodes=nodes, start_s=start_s, duration_s=duration_s), now_s
        )
        self.step(now_s)
        return lacks

    def end(self, now_s: int, name: str) -> None:
        self.until(now_s)
        self.scheduler.ended(name, now_s)
        self.step(now_s)

    def until(self, now_s: int) -> None:
        """All that is due before."""
        while self._due is not None and self._due < now_s:
            self.step(self._due)

    def to_the_end(self) -> list[str]:
        while self._due is not None:
            self.step(self._due)
        return self.said

    def step(self, now_s: int) -> None:
        events = self.scheduler.step(now_s)
        self.events += events
        self.said += [f"{event.at_s} {event.kind.value} {event.lease}" for event in events]
        self._due = self.scheduler.next_s(now_s)
