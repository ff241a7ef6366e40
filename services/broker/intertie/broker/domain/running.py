"""A lease that runs, as the plug-ins of the queue see it."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.in_use import amounts_of, in_use
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.openings import seconds
from intertie.broker.domain.part import Part
from intertie.broker.domain.stretches import runs_for
from intertie.common.leasing.lease import Lease, State
from intertie.common.leasing.preemption import Rank
from intertie.common.leasing.requests import BestEffort
from intertie.common.quantities import Vector

_S = timedelta(seconds=1)

Running = tuple[Versioned[ClusterRecord], Part]
Choice = Callable[[Sequence[Lease], Rank, int], list[Lease]]
"""A plug-in's, of those that run: by their ranks, at a moment."""


def chosen(
    running: Sequence[Running], choice: Choice, view: LedgerView, policy: Policy, now: datetime
) -> list[Running]:
    """Those of them that a plug-in names, in its order. Their ranks are their places in line."""
    now_s, queue = seconds(now), policy.queue
    of = {record.value.name: (record, part) for record, part in running}
    line = queue.fairness.line(
        [
            _lease(record.value, part, now_s, counted=queue.fairness.looks)
            for record, part in running
        ],
        lambda each: queue.order.rank(each, now_s),
        now_s,
        in_use(view, policy, {part.name for _, part in running}, now=now),
    )
    places = {each.request.name: place for place, each in enumerate(line)}
    named = choice(line, lambda each: places[each.request.name], now_s)
    return [of[each.request.name] for each in named]


def _lease(record: ClusterRecord, part: Part, now_s: int, *, counted: bool) -> Lease:
    """`counted`: with what it takes."""
    assert record.waits is not None
    restore = part.keeping.restore if part.keeping is not None else timedelta()
    return Lease(
        request=BestEffort(
            name=record.name,
            nodes=max(1, len(part.spec.workspaces)),
            duration_s=max(1, -(-runs_for(record.spec) // _S)),
            tenant=part.path.tenant,
            takes=amounts_of(part) if counted else Vector(),
        ),
        submit_s=seconds(record.create_time),
        state=State.RUNNING,
        since_s=min(seconds(part.window.start + restore), now_s),
        banked_s=record.waits.ran // _S,
    )
