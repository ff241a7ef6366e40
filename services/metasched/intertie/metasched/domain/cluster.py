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
from intertie.common.snapshot import Snapshot
from intertie.common.spec import ClusterSpec, Layout, layout
from intertie.common.values import replace
from intertie.common.ways import Way, lost_ways
from intertie.metasched.domain.data import Arrival
from intertie.metasched.domain.guarantees import guarantees_of
from intertie.metasched.domain.plan import Plan

CANCELLED = "CANCELLED"
WINDOW_OVER = "WINDOW_OVER"
WORKSPACE_FAILED = "WORKSPACE_FAILED"
PART_LOST = "PART_LOST"
"""Reasons for which a cluster ends; the first three are those of parts too."""
WAITED_TOO_LONG = "WAITED_TOO_LONG"
"""Why one ends that did not get room for longer than it may wait."""
PREEMPTED = "PREEMPTED"
"""Why one ends that is cancelled for others, as its terms allow."""
DEADLINE_MISSED = "DEADLINE_MISSED"
"""Why one ends that was not done in time."""

UNREACHABLE = "site unreachable"


class ClusterState(Enum):
    REQUESTED = "REQUESTED"
    PLANNED = "PLANNED"
    HELD = "HELD"
    QUEUED = "QUEUED"
    SCHEDULED = "SCHEDULED"
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
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
            ClusterState.SUSPENDED,
            ClusterState.ENDED,
            ClusterState.CANCELLED,
            ClusterState.FAILED,
        }
    ),
    ClusterState.ACTIVE: frozenset(
        {
            ClusterState.SUSPENDED,
            ClusterState.ENDED,
            ClusterState.CANCELLED,
            ClusterState.FAILED,
        }
    ),
    ClusterState.SUSPENDED: frozenset(
        {
            ClusterState.SCHEDULED,
            ClusterState.ENDED,
            ClusterState.CANCELLED,
            ClusterState.FAILED,
        }
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
"""It has a window, and terms that may be changed."""
STANDING = LIVE | {ClusterState.SUSPENDED}
"""Its sites have parts of it."""

WAITING = frozenset({ClusterState.QUEUED, ClusterState.SUSPENDED})
"""For room."""


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
    """Empty: nobody asked, a lease that waits is to go on."""
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
    restore: timedelta = timedelta()
    """At the beginning of its window, in which its memory comes back."""
    keep_for: timedelta | None = None
    """For so long its sites keep it at most, as they were asked when it last began or went on, or
    was to: what they hold they have agreed to. None: it has never been begun, or by a release that
    did not write it down."""
    aside: bool = False
    """A site has put it aside: its window is not its last, and what it has is kept after it."""


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
    left: tuple[str, ...] = ()
    """Sites that were lost to it. None of them is ever asked for anything of it again."""
    waits: Waits | None = None
    """Of one that runs when there is room, or is to be done by a deadline. While it is QUEUED its
    plan has no site, and the window of its request."""

    @property
    def path(self) -> ClusterName:
        return ClusterName.parse(self.name)

    @property
    def window(self) -> Window:
        return self.plan.window

    @property
    def over(self) -> bool:
        return not NEXT[self.state]

    @property
    def queues(self) -> bool:
        """Where it cannot be had at once, it is QUEUED."""
        return self.waits is not None and self.spec.lease.deadline is None

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
        """With the other terms in force. A site that has no part any more has left."""
        left = (site for site in self.parts if site not in amend.parts)
        return replace(
            self,
            left=(*self.left, *left),
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
    snapshot: Snapshot | None = None
    """The newest that was asked for."""
    migrating_to: str = ""


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
    recalled_end: datetime | None = None
    """The end of its window to which the site has put it aside by itself."""
    keep_until: datetime | None = None
    """Of one that is put aside: until when the site has disk for what is kept."""
    restore: timedelta = timedelta()
    """Likewise: how long going on takes there."""
    arrivals: tuple[Arrival, ...] = ()
    """Of what is brought there."""
    ways: tuple[Way, ...] = ()
    """From its gateway to other sites of the cluster; none while that is silent."""
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
        only whether a promise is broken, or a way lost, counts."""
        return self.uid, {
            site: (
                replace(part, measured=(), ways=()),
                broken(part.measured),
                lost_ways(part.ways),
            )
            for site, part in self.parts.items()
        }


def told_view(record: ClusterRecord, seen: SeenRecord | None) -> "ClusterView":
    """The cluster for who follows its changes: of one that nothing was said of yet, no site is
    taken for unreachable."""
    if seen is None or seen.uid != record.uid:
        live = record.state in STANDING
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
    arrivals: Mapping[tuple[str, str], Arrival] = field(default_factory=dict)
    """By item and site."""
    ways: Mapping[str, tuple[Way, ...]] = field(default_factory=dict)
    """What each site says of its own, while it answers."""

    @property
    def lost(self) -> Mapping[str, tuple[Way, ...]]:
        """Of `ways`, all that is a change: those that are lost, by the site that says so."""
        lost = {site: lost_ways(ways) for site, ways in self.ways.items()}
        return {site: ways for site, ways in lost.items() if ways}

    @property
    def etag(self) -> str:
        """Changes with the record and with every change of a workspace. What is measured changes
        all the time, what is given back with it, and who wants to end what was seen does not mean
        that."""
        arrived = (sorted(self.arrivals.items()),) if self.arrivals else ()
        return etag_of(replace(self.record, refunds=()), self.workspaces, *arrived)


def priced(record: ClusterRecord, parts: Mapping[str, PartSeen]) -> ClusterRecord:
    """With what its sites say was agreed, on its plan too, and what they give back; a site that
    says nothing is taken at what it said before."""
    agreed = {
        site: (parts[site].price if site in parts else ()) or before
        for site in sorted(record.parts)
        for before in (tuple(each for each in record.price if each.site == site),)
    }
    gone = tuple(each for each in record.price if each.site in record.left)
    price = (*(term for terms in agreed.values() for term in terms), *gone)
    refunds = tuple(
        item
        for site in sorted({*record.parts, *record.left})
        for item in (parts[site].refunds if site in parts else ())
        or tuple(each for each in record.refunds if each.site == site)
    )
    if (price, refunds) == (record.price, record.refunds):
        return record
    plan = record.plan.at_prices(agreed)
    plan = replace(plan, cost=plan.cost + sum(each.amount for each in gone))
    return replace(record, price=price, refunds=refunds, plan=plan)


def priced_in_the_end(record: ClusterRecord, site: str, part: PartSeen) -> ClusterRecord:
    """With what a site that was left charges and gives back, now that its part is over. One that
    does not know it any more is taken at what it said before."""
    if not part.price:
        return record
    before = sum(each.amount for each in record.price if each.site == site)
    price = (*(each for each in record.price if each.site != site), *part.price)
    refunds = (*(each for each in record.refunds if each.site != site), *part.refunds)
    cost = record.plan.cost - before + sum(each.amount for each in part.price)
    return replace(record, price=price, refunds=refunds, plan=replace(record.plan, cost=cost))


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
        arrivals={
            (each.item, site): each for site, part in parts.items() for each in part.arrivals
        },
        ways={
            site: part.ways
            for site, part in parts.items()
            if part.ways and part.current and not record.over
        },
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
        message = UNREACHABLE if record.state in STANDING else ""
        return WorkspaceSeen(label=label, message=message)
    said = next((each for each in part.workspaces if each.label == label), None)
    if part.over and (said is None or said.state is not WorkspaceState.FAILED):
        return WorkspaceSeen(label=label, state=WorkspaceState.ENDED)
    said = said or WorkspaceSeen(label=label)
    return said if part.current else replace(said, message=UNREACHABLE)
