"""What leaves the keys that every pass reads, and when: parts and clusters that are over.

What stays of a part is a tombstone: that there was one of that name. The records themselves are
kept aside, to be shown to who asks, until the tombstone goes too.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from intertie.broker.domain.account import Account
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part
from intertie.broker.domain.records import Change, Erase, Tomb, Write
from intertie.broker.domain.usage import settled
from intertie.common.values import Struct

KEPT = timedelta(hours=24)
"""After the window's end, or the end itself where that is later: a late duplicate of a request
that made the part finds it over, and revives nothing."""
RESTS = timedelta(seconds=30)
"""After its end: who watches has seen it, and what is on its way has come."""
SILENT = timedelta(hours=1)
"""After its end, what a host still says of a part is not waited for any longer: it is lost."""


class Move(Struct, frozen=True, kw_only=True):
    """What goes together: a part with how far it is written down, a cluster with its part."""

    part: Versioned[Part] | None = None
    account: Versioned[Account] | None = None
    cluster: Versioned[ClusterRecord] | None = None

    def change(self, *, now: datetime) -> Change:
        """In one transaction, which compares all that it was decided on: each record is at one of
        its two places at every revision. What has no time left there goes at once."""
        gone = [each for each in (self.part, self.account, self.cluster) if each is not None]
        erasures = tuple(Erase(record=each.value, read_at=each.revision) for each in gone)
        if (tomb := self.tomb()).until <= now:
            return Change(erasures=erasures)
        records = [each.value for each in (self.part, self.cluster) if each is not None]
        return Change(erasures=erasures, archived=tuple(records), writes=(Write(record=tomb),))

    def tomb(self) -> Tomb:
        part = self.part.value if self.part else None
        cluster = self.cluster.value if self.cluster else None
        ends = [each for record in (part, cluster) if record for each in _ends(record)]
        either = part or cluster
        assert either is not None
        return Tomb(
            name=either.name,
            state=either.state.name,
            until=max(ends) + KEPT,
            cluster=cluster.name if cluster else "",
            cluster_uid=cluster.uid if cluster else "",
        )


def moves(view: LedgerView, *, now: datetime) -> Iterator[Move]:
    """Of all that is there. Nothing of which anything is left to be written down, or that a host
    has not given up; no part whose cluster goes on."""
    with_part: set[str] = set()
    for name, found in view.parts.items():
        part = found.value
        cluster = view.clusters.get(part.spec.cluster)
        if cluster is not None and cluster.value.part != name:
            cluster = None
        if cluster is not None:
            with_part.add(cluster.value.name)
        if not _rests(part, now) or not _given_up(part, view, now):
            continue
        account = view.accounts.get(name)
        if not settled(part, account.value if account else None):
            continue
        if cluster is None or _rests(cluster.value, now):
            yield Move(part=found, account=account, cluster=cluster)
    for name, record in view.clusters.items():
        if name not in with_part and _rests(record.value, now):
            yield Move(cluster=record)


def _rests(record: Part | ClusterRecord, now: datetime) -> bool:
    return record.over and record.end_time is not None and now >= record.end_time + RESTS


def _given_up(part: Part, view: LedgerView, now: datetime) -> bool:
    if view.told.get(part.uid):
        return False
    lost = part.end_time is not None and now >= part.end_time + SILENT
    return lost or not view.seen.get(part.uid)


def _ends(record: Part | ClusterRecord) -> tuple[datetime, ...]:
    assert record.end_time is not None
    return record.end_time, record.window.end
