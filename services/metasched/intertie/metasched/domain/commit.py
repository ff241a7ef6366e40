"""The coordinator's side of all-or-nothing: what may be decided, and from which facts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from intertie.common.errors import MAX_SKEW, ClockSkew, IllegalMove
from intertie.common.part_spec import PartSpec
from intertie.common.values import replace
from intertie.metasched.domain.cluster import ClusterRecord


class TxState(Enum):
    PREPARING = "PREPARING"
    COMMITTED = "COMMITTED"
    ABORTED = "ABORTED"
    SETTLED = "SETTLED"


NEXT: dict[TxState, frozenset[TxState]] = {
    TxState.PREPARING: frozenset({TxState.COMMITTED, TxState.ABORTED}),
    TxState.COMMITTED: frozenset({TxState.SETTLED}),
    TxState.ABORTED: frozenset({TxState.SETTLED}),
    TxState.SETTLED: frozenset(),
}
"""Every edge there is. SETTLED is never written: the record goes once every site has answered;
the decision stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TxRecord:
    """One attempt at a co-allocation, written while the sites are asked, and before it is
    decided."""

    tx: str
    cluster: str
    cluster_uid: str
    coordinator: str
    """SPIFFE name of who may decide."""
    owner: str
    digest: str
    parts: Mapping[str, str]
    """Site to the full name of its part."""
    create_time: datetime
    decide_by: datetime
    state: TxState = TxState.PREPARING
    replaces: int | None = None
    """The number of the cluster's terms that it amends; of a Create's, None."""
    specs: Mapping[str, PartSpec] = field(default_factory=dict)
    """What each site is told, where none was asked."""
    until: datetime | None = None
    """The end of the window that it is about; None: by a release whose decisions stay for ever."""

    @property
    def order(self) -> int:
        """In which decisions on one cluster are told."""
        return -1 if self.replaces is None else self.replaces

    @property
    def participants(self) -> tuple[str, ...]:
        return tuple(sorted(self.parts))

    def move(self, to: TxState) -> "TxRecord":
        if to not in NEXT[self.state]:
            raise IllegalMove(f"{self.tx}: {self.state.name} to {to.name}")
        return replace(self, state=to)


def was_late(skew: ClockSkew, took: timedelta) -> bool:
    """Whether the clocks may agree after all, and what a site refused was `took` or less on its
    way: it compares its clock with when that was sent."""
    return skew.offset > MAX_SKEW >= skew.offset - took


class Outcome(Enum):
    COMMIT = "COMMIT"
    ABORT = "ABORT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a site signed, as it came: nothing in it is believed before it is verified."""

    body: bytes
    signature: bytes
    certificate: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptFacts:
    """What a receipt says, once its signature is known to be that of the site's broker."""

    tx: str
    digest: str
    site: str
    part: str
    prepared: bool
    terms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The fate of one co-allocation. Write-once."""

    tx: str
    outcome: Outcome
    digest: str = ""
    receipts: tuple[Receipt, ...] = ()
    decide_time: datetime
    decided_by: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """That every site has answered for a transaction: what is to be known of it until its decision
    is forgotten."""

    tx: str
    cluster_uid: str
    settle_time: datetime
    until: datetime
    """As in TxRecord."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftPart:
    """What a site that was left may still have of a cluster, or of one that was."""

    part: str
    site: str
    cluster: str
    cluster_uid: str
    until: datetime
    """The end of its window, by which its site ends it without being told."""


def left_by(before: ClusterRecord, after: ClusterRecord) -> tuple[LeftPart, ...]:
    """Parts that are no more of the cluster by its new terms."""
    return tuple(
        LeftPart(
            part=part,
            site=site,
            cluster=before.name,
            cluster_uid=before.uid,
            until=before.window.end,
        )
        for site, part in sorted(before.parts.items())
        if site not in after.parts
    )


def tx_name(number: str) -> str:
    """`t` and 20 hex digits; also the id of the part at every site."""
    return f"t{number[:20]}"


def why_not_commit(tx: TxRecord, facts: Mapping[str, ReceiptFacts], *, now: datetime) -> str | None:
    """COMMIT takes a PREPARED receipt of every participant over one digest, before decide_by.
    None: nothing speaks against it."""
    if now >= tx.decide_by:
        return f"it was not decided by {tx.decide_by.isoformat()}"
    for site, part in sorted(tx.parts.items()):
        said = facts.get(site)
        if said is None:
            return f"{site} has not prepared"
        for problem, broken in (
            ("is signed by another site", said.site != site),
            ("is of another co-allocation", said.tx != tx.tx),
            ("is of another part", said.part != part),
            ("is over another digest", said.digest != tx.digest),
            ("does not say PREPARED", not said.prepared),
            ("is of other terms", said.terms != tx.order + 1),
        ):
            if broken:
                return f"the receipt of {site} {problem}"
    return None


def tx_of(
    cluster: ClusterRecord,
    tx: str,
    digest: str,
    *,
    coordinator: str,
    decide_by: datetime,
    now: datetime,
    until: datetime,
    parts: Mapping[str, str] | None = None,
    replaces: int | None = None,
    specs: Mapping[str, PartSpec] | None = None,
) -> TxRecord:
    """An attempt on that cluster, at the parts that it has or, by an amend, would have."""
    return TxRecord(
        tx=tx,
        cluster=cluster.name,
        cluster_uid=cluster.uid,
        coordinator=coordinator,
        owner=cluster.owner,
        digest=digest,
        parts=cluster.parts if parts is None else parts,
        create_time=now,
        decide_by=decide_by,
        replaces=replaces,
        specs=specs or {},
        until=until,
    )


def commit_of(tx: TxRecord, receipts: Mapping[str, Receipt], *, now: datetime) -> Decision:
    return Decision(
        tx=tx.tx,
        outcome=Outcome.COMMIT,
        digest=tx.digest,
        receipts=tuple(receipts[site] for site in tx.participants),
        decide_time=now,
        decided_by=tx.coordinator,
    )


def abort_of(tx: str, *, by: str, reason: str, now: datetime, digest: str = "") -> Decision:
    return Decision(
        tx=tx,
        outcome=Outcome.ABORT,
        digest=digest,
        decide_time=now,
        decided_by=by,
        reason=reason,
    )
