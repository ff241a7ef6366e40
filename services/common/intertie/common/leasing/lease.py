"""One best-effort lease from its request to its end, and what it has done so far."""

from dataclasses import dataclass, field
from enum import Enum

from intertie.common.leasing.requests import BestEffort


class State(Enum):
    """What a lease is doing. It holds nodes in RUNNING, SUSPENDING and RESUMING only."""

    QUEUED = "queued"
    RUNNING = "running"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    RESUMING = "resuming"
    ENDED = "ended"


NEXT: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING}),
    State.RUNNING: frozenset({State.SUSPENDING, State.QUEUED, State.ENDED}),
    State.SUSPENDING: frozenset({State.SUSPENDED}),
    State.SUSPENDED: frozenset({State.RESUMING}),
    State.RESUMING: frozenset({State.RUNNING}),
    State.ENDED: frozenset(),
}
"""Every edge there is. RUNNING to QUEUED is a cancel: what was done is lost."""


class IllegalMove(Exception):
    """A bug of the scheduler: no such edge."""


@dataclass(slots=True, kw_only=True, eq=False)
class Lease:
    """Changed by the scheduler only; policies read it."""

    request: BestEffort
    submit_s: int
    state: State = State.QUEUED
    since_s: int = 0
    """When it came into its state."""
    until_s: int = 0
    """When suspending or resuming is done."""
    banked_s: int = 0
    """Of running, up to the last suspend."""
    held: tuple[int, ...] = field(default=())
    last_held: tuple[int, ...] = field(default=())

    @property
    def nodes(self) -> int:
        return self.request.nodes

    def done_s(self, now_s: int) -> int:
        """How long it has run in all, and kept."""
        return self.banked_s + (now_s - self.since_s if self.state is State.RUNNING else 0)

    def left_s(self, now_s: int) -> int:
        """How long it may run still."""
        return self.request.duration_s - self.done_s(now_s)

    def waited_s(self, now_s: int) -> int:
        """How long it was here without running."""
        return now_s - self.submit_s - self.done_s(now_s)

    def move(self, to: State, now_s: int) -> None:
        if to not in NEXT[self.state]:
            raise IllegalMove(f"{self.request.name}: {self.state.name} to {to.name}")
        if self.state is State.RUNNING:
            self.banked_s = 0 if to is State.QUEUED else self.done_s(now_s)
        self.state, self.since_s = to, now_s
