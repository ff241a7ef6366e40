"""A trace through the lease scheduler, in virtual time."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.swf import Injected, Job
from intertie.common.leasing.events import Event, Kind
from intertie.common.leasing.policy import Policy
from intertie.common.leasing.requests import BestEffort, Reservation
from intertie.common.leasing.scheduler import Scheduler


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of one job."""

    job: Job
    first_start_s: int = -1
    """-1 until it started."""
    end_s: int = -1
    suspends: int = 0
    cancels: int = 0
    left_s: int = 0
    ran_from_s: int = -1
    """-1 while it does not run."""
    stint: int = 0

    @property
    def wait_s(self) -> int:
        """All time from submit to end in which it did not run for good: in the queue, suspending,
        suspended and resuming, and runs that were lost."""
        return self.end_s - self.job.submit_s - self.job.run_s

    @property
    def first_wait_s(self) -> int:
        """Until it first started."""
        return self.first_start_s - self.job.submit_s

    def slowdown(self, bound_s: int = 10) -> float:
        """From submit to end, against its run time or the bound, whichever is longer."""
        took = (self.end_s - self.job.submit_s) / max(self.job.run_s, bound_s)
        return max(1.0, took)


@dataclass(slots=True, kw_only=True)
class Replay:
    """What a run gave."""

    outcomes: list[Outcome]
    accepted: list[Injected]
    refused: list[Injected]
    busy: list[tuple[int, int]] = field(default_factory=list)
    """From when how many nodes were held, by whomever."""
    steps: int = 0

    @property
    def completion_s(self) -> int:
        return max((outcome.end_s for outcome in self.outcomes), default=0)


def replay(
    jobs: Sequence[Job], injected: Sequence[Injected], *, nodes: int, policy: Policy
) -> Replay:
    """Every job to its end. Jobs of more nodes than there are raise FieldInvalid."""
    return _World(jobs, injected, nodes=nodes, policy=policy).run()


class _World:
    def __init__(
        self, jobs: Sequence[Job], injected: Sequence[Injected], *, nodes: int, policy: Policy
    ) -> None:
        self._scheduler = Scheduler(nodes=nodes, policy=policy)
        self._outcomes = {job.name: Outcome(job=job, left_s=job.run_s) for job in jobs}
        self._injected = {reservation.name: reservation for reservation in injected}
        self._jobs, self._reservations = list(jobs), list(injected)
        self._ends: list[tuple[int, str, int]] = []
        """When, who, and in which stint of running: a suspend makes the stint's end void."""
        self._held = 0
        self._replay = Replay(outcomes=list(self._outcomes.values()), accepted=[], refused=[])

    def run(self) -> Replay:
        jobs, reservations = iter(self._jobs), iter(self._reservations)
        job, reservation = next(jobs, None), next(reservations, None)
        now: int | None = 0
        while now is not None:
            while self._ends and self._ends[0][0] <= now:
                self._end(now)
            while reservation is not None and reservation.submit_s <= now:
                self._reserve(reservation, now)
                reservation = next(reservations, None)
            while job is not None and job.submit_s <= now:
                self._scheduler.submit(
                    BestEffort(name=job.name, nodes=job.nodes, duration_s=job.estimate_s), now
                )
                job = next(jobs, None)
            for event in self._scheduler.step(now):
                self._note(event)
            self._replay.steps += 1
            self._replay.busy.append((now, self._held))
            times = [
                self._ends[0][0] if self._ends else None,
                reservation.submit_s if reservation else None,
                job.submit_s if job else None,
                self._scheduler.next_s(now),
            ]
            now = min((time for time in times if time is not None), default=None)
        return self._replay

    def _reserve(self, wanted: Injected, now: int) -> None:
        request = Reservation(
            name=wanted.name,
            nodes=wanted.nodes,
            start_s=wanted.start_s,
            duration_s=wanted.duration_s,
        )
        lacks = self._scheduler.reserve(request, now)
        (self._replay.refused if lacks else self._replay.accepted).append(wanted)

    def _end(self, now: int) -> None:
        _, name, stint = heapq.heappop(self._ends)
        outcome = self._outcomes.get(name)
        if outcome is None or (outcome.stint == stint and outcome.ran_from_s >= 0):
            self._scheduler.ended(name, now)
            if outcome is not None:
                outcome.stint += 1

    def _note(self, event: Event) -> None:
        """What the decision does to the simulated work."""
        if event.kind in (Kind.START, Kind.RESUME):
            self._held += len(event.nodes)
        elif event.kind in (Kind.SUSPENDED, Kind.CANCEL, Kind.END):
            self._held -= len(event.nodes)
        outcome = self._outcomes.get(event.lease)
        if outcome is None:
            self._note_reservation(event)
            return
        match event.kind:
            case Kind.START | Kind.RESUMED:
                if outcome.first_start_s < 0:
                    outcome.first_start_s = event.at_s
                outcome.ran_from_s = event.at_s
                heapq.heappush(
                    self._ends, (event.at_s + outcome.left_s, event.lease, outcome.stint)
                )
            case Kind.SUSPEND | Kind.CANCEL:
                outcome.stint += 1
                if event.kind is Kind.SUSPEND:
                    outcome.suspends += 1
                    outcome.left_s -= event.at_s - outcome.ran_from_s
                else:
                    outcome.cancels += 1
                    outcome.left_s = outcome.job.run_s
                outcome.ran_from_s = -1
            case Kind.END:
                outcome.end_s = event.at_s
                outcome.ran_from_s = -1
            case _:
                pass

    def _note_reservation(self, event: Event) -> None:
        wanted = self._injected[event.lease]
        if event.kind is Kind.START and wanted.real_s < wanted.duration_s:
            heapq.heappush(self._ends, (event.at_s + wanted.real_s, event.lease, 0))
