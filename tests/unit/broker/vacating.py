"""Leases that give way by migration, for tests that say who does and what becomes of them."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Any

from intertie.broker.domain.amounts import host_key
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.fleet import Fleet, MigrationOutcome, SeenMigration, SeenPart
from intertie.broker.domain.fleet import WorkspaceState as State
from intertie.broker.domain.giving_way import (
    Admissible,
    writes_of,
)
from intertie.broker.domain.keeping import ANSWERED_WITHIN
from intertie.broker.domain.ledger import LedgerView, calendar_of
from intertie.broker.domain.migrating import next_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.queueing import stretches_over
from intertie.broker.domain.records import Change
from intertie.common.intervals import Window
from intertie.common.quantities import DIMENSIONS
from intertie.common.values import replace
from tests.unit.broker import line
from tests.unit.broker.line import (
    best_effort,
    confirmed,
    part_of,
    reports_of,
    start,
    view,
    waits,
    with_records,
    written,
)
from tests.unit.broker.samples import HOUR, NOW, POLICY

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
LATER = NOW + 10 * MINUTE
SAVE = 4 * SECOND
"""Of 128 MiB at 50 MiB/s, and the margin."""
SENT = 40 * SECOND
"""256 MiB of disk and memory at 25 MiB/s, half of the uplink, and what hosts take to begin."""
ALONE = LATER + SENT + ANSWERED_WITHIN + SAVE
"""When there is room where one was that went now."""


def placed_on(host: str, cluster_id: str, here: LedgerView, *, now: datetime = NOW) -> LedgerView:
    """With a best-effort lease of one workspace that runs there."""
    return one(cluster_id, host, best_effort(1, 4 * HOUR), here, now=now)


def one(
    cluster_id: str, host: str, asked: Any, here: LedgerView, *, now: datetime = NOW
) -> LedgerView:
    record = waits(cluster_id, asked, now=now)
    here = start(with_records(here, record), cluster_id, now=now)
    part = part_of(here, cluster_id)
    placed = tuple(replace(each, host=host) for each in part.placed)
    return runs(with_records(here, replace(part, placed=placed, generation=3)), cluster_id)


def runs(here: LedgerView, cluster_id: str) -> LedgerView:
    """As its hosts say."""
    part = part_of(here, cluster_id)
    return replace(here, seen={**here.seen, part.uid: reports_of(part, State.RUNNING)})


def split() -> LedgerView:
    """`a` has one vCPU of four on n1, and `b`, which came later, one on n2."""
    return placed_on("n2", "b", placed_on("n1", "a", view([])), now=NOW + MINUTE)


asks = partial(line.asks, now=LATER, vcpus=4)
"""For a whole host, unless it says otherwise."""


def after(here: LedgerView, found: Admissible, *, now: datetime = LATER) -> LedgerView:
    """With what gives way as it does, and the lease for which it does."""
    urgent = confirmed("urgent", found.draft.allotment, now=now)
    here = written(here, Change(writes=tuple(writes_of(found.aside, now=now))))
    return with_records(here, urgent)


def said(
    part: Part, host: str, outcome: MigrationOutcome, message: str = ""
) -> dict[str, SeenPart]:
    [moving] = part.moving
    seen = reports_of(part, State.RUNNING)
    told = SeenMigration(number=moving.number, outcome=outcome, message=message)
    [workspace] = reports_of(part, State.RUNNING)[part.placed[0].host].workspaces
    return {
        **seen,
        host: replace(seen[host], workspaces=(replace(workspace, migration=told),)),
    }


def noted(
    here: LedgerView, seen: dict[str, SeenPart], now: datetime, fenced: Any = ()
) -> LedgerView:
    """After what `b`'s hosts say of its migration."""
    fleet: Fleet = replace(here.fleet, fenced=frozenset(fenced))
    found = next_of(part_of(here, "b"), seen, fleet, now=now)
    return here if found is None else with_records(here, found)


def passed(here: LedgerView, now: datetime) -> LedgerView:
    """After the queue's passes."""
    while (change := next(stretches_over(here, now=now), None)) is not None:
        here = written(here, change)
    return here


def gone(here: LedgerView, now: datetime = LATER + 20 * SECOND) -> LedgerView:
    """Once `b` was given to n1."""
    here = noted(here, said(part_of(here, "b"), "n1", MigrationOutcome.READY), now)
    return noted(here, said(part_of(here, "b"), "n2", MigrationOutcome.GIVEN), now)


def least_free(here: LedgerView, since: datetime = LATER) -> int:
    calendar = calendar_of(here, POLICY)
    window = Window(since, since + 9 * HOUR)
    keys = [host_key(host, each) for host in ("n1", "n2") for each in DIMENSIONS]
    return min(calendar.free(key, window) for key in keys)


def amount(part: Part, key: str, at: datetime) -> int:
    return sum(each.amounts.get(key, 0) for each in demands_of(part) if each.window.contains(at))
