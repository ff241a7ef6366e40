"""The lease scheduler: reservations in their windows, best-effort leases around them.

Whoever uses it calls, at each moment at which something happens and at each that `next_s` names,
first `ended` for what is over, then `reserve` and `submit` for what is new, then `step`, which
decides. What it decides is a list of events. It takes suspends and resumes to last as long as
they are reserved for.
"""

from collections.abc import Iterator

from intertie.common.errors import FieldInvalid, NameTaken
from intertie.common.leasing.events import Event, Kind
from intertie.common.leasing.free_nodes import OnNodes
from intertie.common.leasing.holdings import Holdings
from intertie.common.leasing.lease import Lease, State
from intertie.common.leasing.nodes import Nodes
from intertie.common.leasing.policy import Policy
from intertie.common.leasing.requests import BestEffort, Reservation


class Scheduler:
    """Of one site with `nodes` nodes that are all alike."""

    def __init__(self, *, nodes: int, policy: Policy) -> None:
        self._count = nodes
        self._policy = policy
        self._nodes = Nodes(nodes)
        self._events: list[Event] = []
        suspension = policy.suspension
        self._suspend_s = suspension.suspend_s if suspension else 0
        self._resume_s = suspension.resume_s if suspension else 0
        self._has = Holdings(nodes=nodes, suspend_s=self._suspend_s, resume_s=self._resume_s)

    def submit(self, request: BestEffort, now_s: int) -> None:
        """Queues a best-effort lease. FieldInvalid if there never are so many nodes."""
        self._check(request.name, request.nodes)
        self._has.waiting[request.name] = Lease(request=request, submit_s=now_s)

    def reserve(self, request: Reservation, now_s: int) -> int:
        """How many nodes a reservation lacks at the worst moment of its window: with 0 it is
        accepted, and has its nodes for all of it, whatever best-effort leases have to give way.

        FieldInvalid if the window begins in the past, or there never are so many nodes.
        """
        self._check(request.name, request.nodes)
        if request.start_s < now_s:
            raise FieldInvalid("start_s", f"is {request.start_s}; must be {now_s} or later")
        lacks = request.nodes - self._has.firm(now_s).least(request.start_s, request.end_s)
        if lacks > 0:
            return lacks
        self._has.coming.append(request)
        self._has.coming.sort(key=lambda coming: coming.start_s)
        return 0

    def ended(self, name: str, now_s: int) -> None:
        """The holder of a lease or reservation that runs says that it is over; KeyError if none
        of that name does."""
        if name in self._has.running:
            self._end_reservation(name, now_s)
            return
        lease = self._has.holding[name]
        if lease.state is not State.RUNNING:
            raise KeyError(name)
        self._end(lease, now_s)

    def step(self, now_s: int) -> list[Event]:
        """Does all that is due and decides who starts; the events since the last step, in
        their order."""
        self._finish(now_s)
        self._give_way_to_reservations(now_s)
        self._start_reservations(now_s)
        if self._has.waiting and len(self._nodes):
            self._start_with_room(now_s)
            self._backfill(now_s)
        if self._has.waiting:
            self._make_room(now_s)
        events, self._events = self._events, []
        return events

    def next_s(self, now_s: int) -> int | None:
        """When something is due although nobody ends or asks for anything; None: never."""
        times = [
            now_s + lease.left_s(now_s) if lease.state is State.RUNNING else lease.until_s
            for lease in self._has.holding.values()
        ]
        for coming in self._has.coming:
            warned = coming.start_s - self._suspend_s
            times.append(warned if warned > now_s else coming.start_s)
        times += [reservation.end_s for reservation, _ in self._has.running.values()]
        times += self._has.room_at.values()
        if self._policy.review_s and self._has.waiting:
            times.append(now_s + self._policy.review_s)
        return max(now_s + 1, min(times)) if times else None

    def leases(self) -> Iterator[Lease]:
        """All best-effort leases that are not over."""
        yield from self._has.waiting.values()
        yield from self._has.holding.values()

    def _check(self, name: str, nodes: int) -> None:
        if self._has.knows(name):
            raise NameTaken(name)
        if nodes > self._count:
            raise FieldInvalid("nodes", f"is {nodes}; there are {self._count}")

    # What is due.

    def _finish(self, now_s: int) -> None:
        for name in [n for n, (held, _) in self._has.running.items() if held.end_s <= now_s]:
            self._end_reservation(name, now_s)
        for lease in list(self._has.holding.values()):
            if lease.state is State.RUNNING:
                if lease.left_s(now_s) <= 0:
                    self._end(lease, now_s)
            elif lease.until_s <= now_s:
                if lease.state is State.SUSPENDING:
                    lease.move(State.SUSPENDED, now_s)
                    self._let_go(lease, Kind.SUSPENDED, now_s)
                    self._has.waiting[lease.request.name] = lease
                else:
                    lease.move(State.RUNNING, now_s)
                    self._say(now_s, Kind.RESUMED, lease)

    def _end_reservation(self, name: str, now_s: int) -> None:
        _, nodes = self._has.running.pop(name)
        self._nodes.give_back(nodes)
        self._events.append(Event(now_s, Kind.END, name, nodes))

    def _end(self, lease: Lease, now_s: int) -> None:
        lease.move(State.ENDED, now_s)
        self._let_go(lease, Kind.END, now_s)

    def _let_go(self, lease: Lease, kind: Kind, now_s: int) -> None:
        self._say(now_s, kind, lease)
        self._nodes.give_back(lease.held)
        lease.last_held, lease.held = lease.held, ()
        del self._has.holding[lease.request.name]

    def _say(self, now_s: int, kind: Kind, lease: Lease) -> None:
        self._events.append(Event(now_s, kind, lease.request.name, lease.held))

    # Reservations.

    def _give_way_to_reservations(self, now_s: int) -> None:
        """At the last moment at which a suspend is over in time."""
        for coming in self._has.coming:
            if coming.start_s - self._suspend_s > now_s:
                break
            start_s = max(coming.start_s, now_s)
            lacks = -self._has.promised(now_s).free(start_s)
            if lacks <= 0:
                continue
            running = [
                lease
                for lease in self._has.holding.values()
                if lease.state is State.RUNNING and now_s + lease.left_s(now_s) > start_s
            ]
            rank = self._ranks(now_s)
            for lease in self._policy.preemption.for_reservation(running, lacks, rank, now_s):
                self._give_way(lease, now_s)

    def _start_reservations(self, now_s: int) -> None:
        for coming in [c for c in self._has.coming if c.start_s <= now_s]:
            if coming.nodes > len(self._nodes):
                continue  # a step came late, and so did the suspends
            self._has.coming.remove(coming)
            nodes = self._nodes.take(coming.nodes)
            self._has.running[coming.name] = (coming, nodes)
            self._events.append(Event(now_s, Kind.START, coming.name, nodes))

    def _give_way(self, lease: Lease, now_s: int) -> None:
        if self._policy.suspension is None:
            lease.move(State.QUEUED, now_s)
            self._let_go(lease, Kind.CANCEL, now_s)
            self._has.waiting[lease.request.name] = lease
            return
        lease.move(State.SUSPENDING, now_s)
        lease.until_s = now_s + self._suspend_s
        self._say(now_s, Kind.SUSPEND, lease)

    # Best-effort leases.

    def _start_with_room(self, now_s: int) -> None:
        """Those for whom others gave way, as soon as there is room; who finds that a
        reservation took it waits on like all others."""
        for name, at_s in list(self._has.room_at.items()):
            lease = self._has.waiting[name]
            free = self._has.plan(now_s, unless=name)
            least = free.least(now_s, now_s + self._span_s(lease, now_s))
            if lease.nodes <= min(least, len(self._nodes)):
                self._start(lease, now_s)
            elif at_s <= now_s:
                del self._has.room_at[name]

    def _backfill(self, now_s: int) -> None:
        waiting = self._in_order(now_s)
        if not waiting:
            return
        free = self._has.plan(now_s)
        for lease in self._policy.backfilling.starts(
            waiting,
            OnNodes(free),
            OnNodes(self._has.unreserved(now_s)),
            lambda lease: self._span_s(lease, now_s),
            lambda lease: self._has.full_s(lease, now_s),
            now_s,
        ):
            self._start(lease, now_s)

    def _make_room(self, now_s: int) -> None:
        """Lets best-effort leases give way to each other, if the policy wants it."""
        if self._policy.suspension is None:
            return
        room_s = now_s + self._suspend_s
        rank = self._ranks(now_s)
        free = self._has.plan(now_s)
        for lease in self._in_order(now_s):
            span_s = self._span_s(lease, now_s)
            missing = lease.nodes - free.least(room_s, room_s + span_s)
            if missing <= 0:
                continue  # nodes are coming free as it is
            running = [
                other
                for other in self._has.holding.values()
                if other.state is State.RUNNING and now_s + other.left_s(now_s) > room_s
            ]
            victims = self._policy.preemption.for_lease(lease, running, missing, rank, now_s)
            if not victims:
                continue
            without = {victim.request.name for victim in victims}
            after = self._has.plan(now_s, without=without)
            if after.least(room_s, room_s + span_s) < lease.nodes:
                continue
            for victim in victims:
                self._give_way(victim, now_s)
            self._has.room_at[lease.request.name] = room_s
            free = self._has.plan(now_s)

    def _start(self, lease: Lease, now_s: int) -> None:
        name = lease.request.name
        del self._has.waiting[name]
        self._has.room_at.pop(name, None)
        self._has.holding[name] = lease
        lease.held = self._nodes.take(lease.nodes, rather=lease.last_held)
        if lease.state is State.QUEUED:
            lease.move(State.RUNNING, now_s)
            self._say(now_s, Kind.START, lease)
        else:
            lease.move(State.RESUMING, now_s)
            lease.until_s = now_s + self._resume_s
            self._say(now_s, Kind.RESUME, lease)

    def _ranks(self, now_s: int) -> "_Ranks":
        return _Ranks(self._policy, now_s)

    def _in_order(self, now_s: int) -> list[Lease]:
        rank = self._ranks(now_s)
        room_at = self._has.room_at
        waiting = [lease for name, lease in self._has.waiting.items() if name not in room_at]
        return sorted(waiting, key=lambda lease: (rank(lease), lease.submit_s))

    def _span_s(self, lease: Lease, now_s: int) -> int:
        """For how long nodes must be free for it to start: to its end if it cannot be suspended,
        else until it has run for a while and been suspended."""
        full_s = self._has.full_s(lease, now_s)
        if self._policy.suspension is None:
            return full_s
        resume_s = self._resume_s if lease.state is State.SUSPENDED else 0
        return min(full_s, resume_s + self._policy.worth_s + self._suspend_s)


class _Ranks:
    """The order's rank of a lease at one moment, worked out once."""

    def __init__(self, policy: Policy, now_s: int) -> None:
        self._policy, self._now_s = policy, now_s
        self._known: dict[str, float] = {}

    def __call__(self, lease: Lease) -> float:
        name = lease.request.name
        if name not in self._known:
            self._known[name] = self._policy.order.rank(lease, self._now_s)
        return self._known[name]
