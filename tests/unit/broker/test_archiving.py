"""What of a ledger is put aside, and what stays where every pass reads it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from intertie.broker.domain.account import Account
from intertie.broker.domain.archiving import KEPT, RESTS, SILENT, moves
from intertie.broker.domain.cluster import ClusterRecord, ClusterState
from intertie.broker.domain.fleet import SeenPart
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.records import Change, Write
from intertie.common.values import replace
from tests.contract.test_ledger import a_cluster
from tests.fakes.accounts import Accounts
from tests.unit.broker.samples import HOUR, NOW, part

END = NOW + HOUR
ENDED = part(state=PartState.ENDED, end_time=END, end_reason="WINDOW_OVER", confirm_time=NOW)
WRITTEN = Account(name=ENDED.name, until=END, number=1)
OVER = replace(a_cluster(), state=ClusterState.ENDED, end_time=END)
LATER = END + RESTS


def view(
    found: Part | None = ENDED,
    account: Account | None = WRITTEN,
    *clusters: ClusterRecord,
    **more: Any,
) -> LedgerView:
    parts = [found] if found else []
    accounts = [account] if account else []
    return LedgerView(
        parts={each.name: Versioned(value=each, revision=1) for each in parts},
        accounts={each.name: Versioned(value=each, revision=2) for each in accounts},
        clusters={each.name: Versioned(value=each, revision=3) for each in clusters},
        **more,
    )


def names(found: LedgerView, now: datetime = LATER) -> list[tuple[str, str]]:
    tombs = [each.tomb() for each in moves(found, now=now)]
    return [(each.name.rpartition("/")[2], each.cluster.rpartition("/")[2]) for each in tombs]


def test_a_part_that_is_over_and_written_down_goes_with_its_account() -> None:
    [move] = moves(view(), now=LATER)
    change = move.change(now=LATER)
    assert [each.record for each in change.erasures] == [ENDED, WRITTEN]
    assert [each.read_at for each in change.erasures] == [1, 2]
    assert change.archived == (ENDED,)
    assert move.tomb().until == END + KEPT


def test_a_part_that_never_began_goes_without_one() -> None:
    held = part(state=PartState.RELEASED, end_time=END)
    assert names(view(held, None)) == [("t1", "")]


def test_a_cluster_goes_with_its_part() -> None:
    assert names(view(ENDED, WRITTEN, OVER)) == [("t1", "one")]


def test_a_cluster_that_never_had_a_part_goes_alone() -> None:
    queued = replace(OVER, state=ClusterState.CANCELLED)
    assert names(view(None, None, queued)) == [("one", "one")]


def test_the_tombstone_is_kept_for_as_long_as_a_duplicate_may_come() -> None:
    """After an early end, for the window that was."""
    early = replace(ENDED, end_time=NOW, end_requested_time=NOW)
    [move] = moves(view(early, replace(WRITTEN, until=NOW)), now=LATER)
    assert move.tomb().until == END + KEPT
    late = replace(OVER, window=replace(OVER.window, end=END + HOUR))
    [move] = moves(view(ENDED, WRITTEN, late), now=LATER)
    assert move.tomb().until == END + HOUR + KEPT


TOLD: dict[str, Any] = {"told": {ENDED.uid: {"n1": 3}}}
SEEN: dict[str, Any] = {
    "seen": {ENDED.uid: {"n1": SeenPart(part_uid=ENDED.uid, host="n1", generation=1)}}
}


@pytest.mark.parametrize(
    "stays",
    [
        view(replace(ENDED, state=PartState.CONFIRMED, end_time=None)),
        view(ENDED, None),  # nothing is written down
        view(ENDED, replace(WRITTEN, until=NOW)),  # something is left to be
        view(ENDED, WRITTEN, replace(OVER, state=ClusterState.SUSPENDED, end_time=None)),
        view(ENDED, WRITTEN, **TOLD),
        view(ENDED, WRITTEN, **SEEN),
    ],
    ids=["lives", "unwritten", "half-written", "cluster-goes-on", "told", "seen"],
)
def test_what_anybody_still_needs_stays(stays: LedgerView) -> None:
    assert names(stays) == []


def test_what_is_just_over_rests() -> None:
    assert names(view(), LATER - RESTS / 2) == []


def test_a_host_that_is_lost_keeps_nothing_for_ever() -> None:
    assert names(view(ENDED, WRITTEN, **SEEN), END + SILENT) == [("t1", "")]
    assert names(view(ENDED, WRITTEN, **TOLD), END + SILENT) == []


def test_a_part_of_a_name_that_is_used_again_goes_alone() -> None:
    anew = replace(a_cluster(), part="sites/north/tenants/demo/parts/t2")
    assert names(view(ENDED, WRITTEN, anew)) == [("t1", "")]


def test_what_is_over_for_long_goes_at_once_and_leaves_nothing() -> None:
    """As after a day on which nobody led."""
    [move] = moves(view(ENDED, WRITTEN, OVER), now=END + KEPT)
    change = move.change(now=END + KEPT)
    assert [each.record for each in change.erasures] == [ENDED, WRITTEN, OVER]
    assert (change.archived, change.writes) == ((), ())


async def test_what_is_over_for_long_goes_by_the_same_rules() -> None:
    """A bug: a day after its end a part went though its cluster went on, and a cluster without its
    part."""
    site = Accounts()
    goes_on = replace(OVER, part=ENDED.name, state=ClusterState.SUSPENDED, end_time=None)
    over = replace(
        part("t2", state=PartState.ENDED, end_time=END, confirm_time=NOW),
        spec=replace(ENDED.spec, cluster=f"{OVER.name}-2"),
    )
    unwritten = replace(OVER, name=over.spec.cluster, part=over.name)
    await site.write(ENDED)
    await site.accounting.sweep()
    await site.write(over)
    writes = tuple(Write(record=each) for each in (goes_on, unwritten))
    await site.ledger.commit(Change(writes=writes))
    await site.clock.advance(30 * 3600)
    await site.retention.sweep()
    left = await site.ledger.view()
    assert set(left.parts) == {ENDED.name, over.name}
    assert set(left.clusters) == {goes_on.name, unwritten.name}
    await site.accounting.sweep()
    await site.retention.sweep()
    left = await site.ledger.view()
    assert (set(left.parts), set(left.clusters)) == ({ENDED.name}, {goes_on.name})
