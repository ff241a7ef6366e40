"""A cluster that spans sites, and what its parts make of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from intertie.common.errors import IllegalMove, Shortfall
from intertie.common.etag import etag_of
from intertie.common.guarantees import Guarantee, Measured, broken
from intertie.common.intervals import Window
from intertie.common.layout import Numbers
from intertie.common.names import ClusterName, workspace_label
from intertie.common.part_spec import PartNic
from intertie.common.price import PriceTerm
from intertie.common.refund import RefundItem
from intertie.common.spec import ClusterSpec, Layout, layout
from intertie.common.values import replace
from intertie.metasched.domain.guarantees import guarantees_of
from intertie.metasched.domain.plan import Plan

CANCELLED = "CANCELLED"
WINDOW_OVER = "WINDOW_OVER"
WORKSPACE_FAILED = "WORKSPACE_FAILED"
PART_LOST = "PART_LOST"
"""Reasons for which a cluster ends; the first three are those of parts too."""
WAITED_TOO_LONG = "WAITED_TOO_LONG"
"""Why one ends that did not get room for longer than it may wait."""

UNREACHABLE = "site unreachable"

PATIENCE = timedelta(seconds=20)
"""A workspace that is FAILED for so long without a break is lost, as at the brokers: agents try
again by themselves what may come right, a restart of libvirtd for one."""


class ClusterState(Enum):
    REQUESTED = "REQUESTED"
    PLANNED = "PLANNED"
    HELD = "HELD"
    QUEUED = "QUEUED"
    SCHEDULED = "SCHEDULED"
    ACTIVE = "ACTIVE"
    ENDED = "ENDED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


NEXT: dict[ClusterState, frozenset[ClusterState]] = {
    ClusterState.REQUESTED: frozenset({ClusterState.PLANNED, ClusterState.REJECTED}),
    ClusterState.PLANNED: frozenset(
        {
            ClusterState.HELD,
            ClusterState.QUEUED,
            ClusterState.CANCELLED,
            ClusterState.REJECTED,
        }
    ),
    ClusterState.HELD: frozenset(
        {
            ClusterState.QUEUED,
            ClusterState.SCHEDULED,
            ClusterState.CANCELLED,
            ClusterState.REJECTED,
        }
    ),
    ClusterState.QUEUED: frozenset(
        {ClusterState.PLANNED, ClusterState.CANCELLED, ClusterState.FAILED}
    ),
    ClusterState.SCHEDULED: frozenset(
        {
            ClusterState.ACTIVE,
            ClusterState.ENDED,
            ClusterState.CANCELLED,
            ClusterState.FAILED,
        }
    ),
    ClusterState.ACTIVE: frozenset(
        {ClusterState.ENDED, ClusterState.CANCELLED, ClusterState.FAILED}
    ),
    ClusterState.ENDED: frozenset(),
    ClusterState.REJECTED: frozenset(),
    ClusterState.CANCELLED: frozenset(),
    ClusterState.FAILED: frozenset(),
}
"""Every edge there is. A cluster is written down when it is PLANNED, or QUEUED where it waits for
room, which it does again when it could not be had at all sites; one that is REJECTED is an error
to its caller and its record is deleted. One whose end was asked for before it was
decided is CANCELLED and kept: a late retry of its Create revives nothing."""

PENDING = frozenset({ClusterState.PLANNED, ClusterState.HELD})
"""Its co-allocation is not decided yet."""

LIVE = frozenset({ClusterState.SCHEDULED, ClusterState.ACTIVE})

WAITING = frozenset({ClusterState.QUEUED})
"""For room."""

_STATE_AFTER = {
    CANCELLED: ClusterState.CANCELLED,
    WORKSPACE_FAILED: ClusterState.FAILED,
    PART_LOST: ClusterState.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    reason: str
    message: str
    shortfalls: tuple[Shortfall, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Amend:
    """Other terms that the sites are being asked for; those in force stand until COMMIT."""

    tx: str
    spec: ClusterSpec
    plan: Plan
    parts: Mapping[str, str]
    numbers: Numbers
    request_key: str
    begin_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How a lease stands that runs when there is room."""

    since: datetime
    """It has waited without a break; of one that runs, when it last began to wait."""
    ran: timedelta = timedelta()
    """In stretches that are over."""
    foreseen: datetime | None = None
    """When it would start, by the last look; None: not within sight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRecord:
    name: str
    uid: str
    spec: ClusterSpec
    """Normalised; images as the owner named them."""
    owner: str
    state: ClusterState
    plan: Plan
    tx: str
    """Of the co-allocation that holds, or tries to hold, its parts."""
    parts: Mapping[str, str]
    """Site to the full name of its part."""
    request_key: str = ""
    """Of the idempotency record that was written with it."""
    create_time: datetime
    end_requested_time: datetime | None = None
    end_reason: str = ""
    end_time: datetime | None = None
    failure: Failure | None = None
    price: tuple[PriceTerm, ...] = ()
    """As its sites have agreed; none before they have."""
    refunds: tuple[RefundItem, ...] = ()
    terms: int = 0
    """The number of the terms in force: how often it was amended."""
    numbers: Numbers = field(default_factory=dict)
    """Host numbers of every workspace that ever was, from the first amend on."""
    amend: Amend | None = None
    waits: Waits | None = None
    """Of one that runs when there is room. While it is QUEUED its plan has no site, and the window
    of its request."""

    @property
    def path(self) -> ClusterName:
        return ClusterName.parse(self.name)

    @property
    def window(self) -> Window:
        return self.plan.window

    @property
    def over(self) -> bool:
        return not NEXT[self.state]

    def counts(self) -> dict[str, int]:
        return {group.name: self.plan.count(group.name) for group in self.spec.groups}

    def layout(self) -> Layout:
        """Addresses and names; the same wherever and whenever it is computed."""
        return layout(
            self.uid,
            self.spec,
            self.counts(),
            self.plan.site_of(),
            self.path.cluster_id,
            self.numbers,
        )

    def amended(self, amend: Amend) -> "ClusterRecord":
        """With the other terms in force."""
        return replace(
            self,
            spec=amend.spec,
            plan=amend.plan,
            parts=amend.parts,
            numbers=amend.numbers,
            terms=self.terms + 1,
            amend=None,
        )

    def move(self, to: ClusterState, *, now: datetime) -> "ClusterRecord":
        """The cluster after one step. `now` is given, never asked for."""
        if to not in NEXT[self.state]:
            raise IllegalMove(f"{self.name}: {self.state.name} to {to.name}")
        return replace(self, state=to, end_time=None if NEXT[to] else now)

    def ending(
        self, *, now: datetime, reason: str, failure: Failure | None = None
    ) -> "ClusterRecord":
        """Its end is asked for; its state changes once nothing is left. The first reason stands."""
        if self.over or self.end_requested_time is not None:
            return self
        return replace(self, end_requested_time=now, end_reason=reason, failure=failure)


class WorkspaceState(Enum):
    PLANNED = "PLANNED"
    STAGING = "STAGING"
    DEFINED = "DEFINED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    STOPPED = "STOPPED"
    ENDED = "ENDED"
    FAILED = "FAILED"
    SUSPENDED = "SUSPENDED"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceSeen:
    """What a site last said of one workspace."""

    label: str
    host: str = ""
    state: WorkspaceState = WorkspaceState.PLANNED
    message: str = ""
    ready: bool = False
    ready_time: datetime | None = None
    staging_done_bytes: int = 0
    staging_total_bytes: int = 0
    pending: str = ""
    restarts: int = 0
    """Anew on another host, because its own was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSeen:
    """What a site says of its part."""

    over: bool
    """In a state that it does not leave, or not known there any more."""
    end_reason: str = ""
    end_message: str = ""
    """More of that, in words."""
    ending: bool = False
    """Its end was asked for at the site."""
    workspaces: tuple[WorkspaceSeen, ...] = ()
    measured: tuple[Measured, ...] = ()
    """What its hosts measure of the promises that are kept there."""
    price: tuple[PriceTerm, ...] = ()
    refunds: tuple[RefundItem, ...] = ()
    current: bool = True
    """False: the site does not answer now, and this is what it said last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRecord:
    """What sites last said of a cluster, as it is written down for who follows its changes."""

    uid: str
    """Of the cluster: another of that name begins with nothing said."""
    parts: Mapping[str, PartSeen]
    """By site; one that never answered is not in it."""

    @property
    def worth(self) -> object:
        """Another whenever it is to be written again. Measured values change all the time, and
        only whether a promise is broken counts."""
        return self.uid, {
            site: (replace(part, measured=()), broken(part.measured))
            for site, part in self.parts.items()
        }


def told_view(record: ClusterRecord, seen: SeenRecord | None) -> "ClusterView":
    """The cluster for who follows its changes: of one that nothing was said of yet, no site is
    taken for unreachable."""
    if seen is None or seen.uid != record.uid:
        live = record.state in LIVE
        return view_of(record, dict.fromkeys(record.parts, PartSeen(over=False)) if live else {})
    return view_of(record, seen.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceView:
    """One machine, as planned and as last seen."""

    label: str
    group: str
    index: int
    site: str
    nics: tuple[PartNic, ...]
    image_digest: str
    seen: WorkspaceSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """The record with what the sites last said of its workspaces."""

    record: ClusterRecord
    workspaces: tuple[WorkspaceView, ...]
    guarantees: tuple[Guarantee, ...] = field(default=())
    price: tuple[PriceTerm, ...] = ()
    refunds: tuple[RefundItem, ...] = ()

    @property
    def etag(self) -> str:
        """Changes with the record and with every change of a workspace. What is measured changes
        all the time, what is given back with it, and who wants to end what was seen does not mean
        that."""
        return etag_of(replace(self.record, refunds=()), self.workspaces)


def failing(
    parts: Mapping[str, PartSeen], since: Mapping[str, datetime], *, now: datetime
) -> dict[str, datetime]:
    """Since when each workspace that is FAILED has been so, by label; `since` is what this was
    before. A site that is silent neither ends a failure nor begins one."""
    failed = {
        each.label: part.current
        for part in parts.values()
        for each in part.workspaces
        if each.state is WorkspaceState.FAILED
    }
    return {
        label: since.get(label, now)
        for label, current in failed.items()
        if current or label in since
    }


def progressed(
    record: ClusterRecord,
    parts: Mapping[str, PartSeen],
    *,
    now: datetime,
    failing_since: Mapping[str, datetime],
) -> ClusterRecord:
    """The cluster as its parts make it: ACTIVE once all workspaces are ready, at its end once
    no site has anything left. A workspace that its site says has FAILED for all of
    PATIENCE, or a part that a site gave up inside the window, ends the whole cluster.

    `parts` has what is known, by site; a site that never answered is not in it.
    `failing_since` is of `failing`; who does not keep it gives an empty one, and ends nothing
    for a workspace that failed.
    """
    if record.state not in LIVE:
        return record
    record = priced(record, parts)
    known = len(parts) == len(record.parts)
    for site, part in parts.items():
        lost = _lost(part, failing_since, now=now)
        if lost is not None or part.end_reason == WORKSPACE_FAILED:
            what = f"{lost.label}: {lost.message}" if lost else "a workspace failed"
            failure = Failure(reason=WORKSPACE_FAILED, message=f"{site}: {what}")
            record = record.ending(now=now, reason=WORKSPACE_FAILED, failure=failure)
        elif part.over and part.end_reason != WINDOW_OVER and now < record.window.end:
            why = part.end_reason or "it is not known there"
            if part.end_message:
                why = f"{why}: {part.end_message}"
            message = f"{site} ended its part: {why}"
            failure = Failure(reason=PART_LOST, message=message)
            record = record.ending(now=now, reason=PART_LOST, failure=failure)
    if known and all(part.over for part in parts.values()):
        return record.move(_STATE_AFTER.get(record.end_reason, ClusterState.ENDED), now=now)
    if (
        record.state is ClusterState.SCHEDULED
        and known
        and all(w.ready for part in parts.values() for w in part.workspaces)
        and any(part.workspaces for part in parts.values())
    ):
        return record.move(ClusterState.ACTIVE, now=now)
    return record


def priced(record: ClusterRecord, parts: Mapping[str, PartSeen]) -> ClusterRecord:
    """With what its sites say was agreed, on its plan too, and what they give back; a site that
    says nothing is taken at what it said before."""
    agreed = {
        site: (parts[site].price if site in parts else ()) or before
        for site in sorted(record.parts)
        for before in (tuple(each for each in record.price if each.site == site),)
    }
    price = tuple(term for terms in agreed.values() for term in terms)
    refunds = tuple(
        item
        for site in sorted(record.parts)
        for item in (parts[site].refunds if site in parts else ())
        or tuple(each for each in record.refunds if each.site == site)
    )
    if (price, refunds) == (record.price, record.refunds):
        return record
    return replace(record, price=price, refunds=refunds, plan=record.plan.at_prices(agreed))


def _lost(
    part: PartSeen, failing_since: Mapping[str, datetime], *, now: datetime
) -> WorkspaceSeen | None:
    """A workspace that the site says now is FAILED, and that was so for PATIENCE."""
    for each in part.workspaces if part.current else ():
        since = failing_since.get(each.label)
        if each.state is WorkspaceState.FAILED and since and now - since >= PATIENCE:
            return each
    return None


def view_of(record: ClusterRecord, parts: Mapping[str, PartSeen]) -> ClusterView:
    known = priced(record, parts)
    return ClusterView(
        record=record,
        workspaces=tuple(_workspaces(record, parts)),
        guarantees=tuple(
            guarantees_of(
                record.spec,
                record.plan,
                record.layout(),
                {} if record.over else {site: part.measured for site, part in parts.items()},
            )
        ),
        price=known.price or record.plan.expected(),
        refunds=known.refunds,
    )


def _workspaces(record: ClusterRecord, parts: Mapping[str, PartSeen]) -> Iterator[WorkspaceView]:
    nics, site_of, counts = record.layout().nics, record.plan.site_of(), record.counts()
    for group in record.spec.groups:
        for index in range(counts[group.name]):
            label = workspace_label(group.name, index)
            site = site_of[label]
            yield WorkspaceView(
                label=label,
                group=group.name,
                index=index,
                site=site,
                nics=nics[label],
                image_digest=record.plan.images.get(group.name, ""),
                seen=_seen(record, parts.get(site), label),
            )


def _seen(record: ClusterRecord, part: PartSeen | None, label: str) -> WorkspaceSeen:
    if record.over:
        return WorkspaceSeen(label=label, state=WorkspaceState.ENDED)
    if part is None:
        message = UNREACHABLE if record.state in LIVE else ""
        return WorkspaceSeen(label=label, message=message)
    said = next((each for each in part.workspaces if each.label == label), None)
    if part.over and (said is None or said.state is not WorkspaceState.FAILED):
        return WorkspaceSeen(label=label, state=WorkspaceState.ENDED)
    said = said or WorkspaceSeen(label=label)
    return said if part.current else replace(said, message=UNREACHABLE)
