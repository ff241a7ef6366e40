"""Who has nodes, or will have them, and until when."""

from collections.abc import Collection, Iterator

from intertie.common.leasing.free_nodes import FreeNodes
from intertie.common.leasing.lease import Lease, State
from intertie.common.leasing.requests import Reservation


class Holdings:
    """All leases and reservations that are not over, as spans of nodes."""

    def __init__(self, *, nodes: int, suspend_s: int, resume_s: int) -> None:
        self._nodes = nodes
        self._suspend_s = suspend_s
        self._resume_s = resume_s
        self.waiting: dict[str, Lease] = {}
        self.holding: dict[str, Lease] = {}
        """Best-effort leases that run, suspend or resume."""
        self.room_at: dict[str, int] = {}
        """For whom of those that wait others are being suspended, and when their nodes are
        free."""
        self.coming: list[Reservation] = []
        """By start."""
        self.running: dict[str, tuple[Reservation, tuple[int, ...]]] = {}

    def knows(self, name: str) -> bool:
        return (
            name in self.waiting
            or name in self.holding
            or name in self.running
            or any(coming.name == name for coming in self.coming)
        )

    def full_s(self, lease: Lease, now_s: int) -> int:
        """How long it may hold nodes if it starts now and nothing stops it."""
        resume_s = self._resume_s if lease.state is State.SUSPENDED else 0
        return resume_s + lease.left_s(now_s)

    def plan(self, now_s: int, *, without: Collection[str] = (), unless: str = "") -> FreeNodes:
        """What is free if all goes on as it stands. `without`: as if these began to suspend now;
        `unless`: as if no room had been made for this one."""
        taken = [*self._reserved(), *self._held(now_s, without), *self._rooms(now_s, unless)]
        return FreeNodes(now_s, self._nodes, taken)

    def unreserved(self, now_s: int) -> FreeNodes:
        """What is free if all goes on as it stands, and no reservation took any."""
        return FreeNodes(now_s, self._nodes, [*self._held(now_s), *self._rooms(now_s)])

    def promised(self, now_s: int) -> FreeNodes:
        """What is free of reservations and running leases, whoever else was made room for."""
        return FreeNodes(now_s, self._nodes, [*self._reserved(), *self._held(now_s)])

    def firm(self, now_s: int) -> FreeNodes:
        """What is free if every best-effort lease gives way as soon as it can."""
        return FreeNodes(now_s, self._nodes, [*self._reserved(), *self._cannot_give_way(now_s)])

    def _reserved(self) -> Iterator[tuple[int, int, int]]:
        for coming in self.coming:
            yield coming.start_s, coming.end_s, coming.nodes
        for reservation, _ in self.running.values():
            yield reservation.start_s, reservation.end_s, reservation.nodes

    def _held(self, now_s: int, without: Collection[str] = ()) -> Iterator[tuple[int, int, int]]:
        for name, lease in self.holding.items():
            if lease.state is State.SUSPENDING:
                end_s = lease.until_s
            elif lease.state is State.RESUMING:
                end_s = lease.until_s + lease.left_s(now_s)
            elif name in without:
                end_s = now_s + self._suspend_s
            else:
                end_s = now_s + lease.left_s(now_s)
            yield now_s, end_s, lease.nodes

    def _rooms(self, now_s: int, unless: str = "") -> Iterator[tuple[int, int, int]]:
        for name, at_s in self.room_at.items():
            if name != unless:
                lease = self.waiting[name]
                yield at_s, at_s + self.full_s(lease, now_s), lease.nodes

    def _cannot_give_way(self, now_s: int) -> Iterator[tuple[int, int, int]]:
        for lease in self.holding.values():
            if lease.state is State.SUSPENDING:
                yield now_s, lease.until_s, lease.nodes
                continue
            from_s = lease.until_s if lease.state is State.RESUMING else now_s
            yield now_s, from_s + min(self._suspend_s, lease.left_s(now_s)), lease.nodes
