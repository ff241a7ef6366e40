"""A lease over several sites that is put aside at all of them, and goes on at all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from intertie.common.intervals import Window
from intertie.common.part_spec import PartSpec
from intertie.common.values import replace
from intertie.metasched.domain.amending import DECIDED_BEFORE
from intertie.metasched.domain.cluster import (
    LIVE,
    Amend,
    ClusterRecord,
    ClusterState,
    PartSeen,
    WorkspaceState,
)
from intertie.metasched.domain.commit import Decision, TxRecord, commit_of, tx_of
from intertie.metasched.domain.in_time import window_on, with_promise
from intertie.metasched.domain.parts import digest_of, part_specs, said
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import (
    DiskNeed,
    GroupNeed,
    ImageFound,
    Problem,
    Promise,
    Site,
)
from intertie.metasched.domain.queue_policy import QueuePolicy
from intertie.metasched.domain.waiting import left_of, recallable_of

_RUNS = frozenset({WorkspaceState.RUNNING, WorkspaceState.PAUSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A cluster with another window, as it would be; and what each site is told."""

    record: ClusterRecord
    specs: Mapping[str, PartSpec]
    digest: str
    decide_by: datetime | None = None
    """At the latest; None: it is decided."""


def may_be_recalled(record: ClusterRecord) -> bool:
    """Whether a site may put its part aside, and that is to be put on record."""
    return (
        record.waits is not None
        and record.state in LIVE
        and record.end_requested_time is None
        and record.amend is None
    )


def recalled_end(record: ClusterRecord, parts: Mapping[str, PartSeen]) -> datetime | None:
    """The earliest end to which a site has put its part aside by itself, where that is not on
    record yet."""
    if not may_be_recalled(record):
        return None
    ends = (each.recalled_end for each in parts.values() if not each.over)
    ahead = [each for each in ends if each is not None and each > record.window.start]
    end = min(ahead, default=record.window.end)
    return end if end < record.window.end else None


def put_aside(record: ClusterRecord, end: datetime, policy: QueuePolicy) -> Stretch:
    """Nobody takes more of anything, so nobody is asked. One that is cancellable ends then."""
    assert record.waits is not None
    aside = not record.spec.lease.cancellable
    plan = replace(record.plan, window=Window(record.window.start, end))
    waits = replace(record.waits, aside=aside)
    after = replace(record, plan=plan, waits=waits, terms=record.terms + 1)
    return _stretch(record, after, policy, aside=aside)


def aside_tx(
    record: ClusterRecord,
    stretch: Stretch,
    tx: str,
    *,
    coordinator: str,
    decide_by: datetime,
    now: datetime,
) -> tuple[TxRecord, Decision]:
    """What is written to put it aside, beside its record."""
    written = tx_of(
        record,
        tx,
        stretch.digest,
        coordinator=coordinator,
        decide_by=decide_by,
        now=now,
        until=record.window.end,
        replaces=record.terms,
        specs=stretch.specs,
    )
    return written, commit_of(replace(written, parts={}), {}, now=now)


def is_saved(record: ClusterRecord, parts: Mapping[str, PartSeen]) -> bool:
    """As far as its sites say: what they have of it is for them to look at when it goes on."""
    return len(parts) == len(record.parts) and all(
        part.current
        and not part.over
        and part.keep_until is not None
        and not any(each.state in _RUNS for each in part.workspaces)
        for part in parts.values()
    )


def going_on(
    record: ClusterRecord, parts: Mapping[str, PartSeen], policy: QueuePolicy, *, now: datetime
) -> Stretch | None:
    """From now on, to its end, on the hosts that have what was saved. None: its sites keep it for
    too short a time to be asked."""
    assert record.waits is not None
    kept = min(each.keep_until for each in parts.values() if each.keep_until is not None)
    if (decide_by := kept - DECIDED_BEFORE) <= now:
        return None
    restore = max(each.restore for each in parts.values())
    window, promised = window_on(record, window_of(record, restore, now=now))
    if window is None:
        return None
    plan = replace(
        record.plan,
        window=window,
        reasons=("its sites have room for it again",),
        shortfalls=(),
    )
    waits = replace(
        record.waits,
        aside=False,
        restore=restore,
        foreseen=None,
        keep_for=policy.longest(record.spec),
    )
    scheduled = record.move(ClusterState.SCHEDULED, now=now)
    plan = with_promise(plan, promised)
    after = replace(scheduled, plan=plan, waits=waits, terms=record.terms + 1, amend=None)
    return replace(_stretch(record, after, policy, aside=False), decide_by=decide_by)


def window_of(record: ClusterRecord, restore: timedelta, *, now: datetime) -> Window:
    return Window(now, now + restore + left_of(record))


def amend_of(tx: str, after: ClusterRecord, *, now: datetime) -> Amend:
    """What is on record while the sites are being asked."""
    return Amend(
        tx=tx,
        spec=after.spec,
        plan=after.plan,
        parts=after.parts,
        numbers=after.numbers,
        request_key="",
        begin_time=now,
    )


def _stretch(
    before: ClusterRecord, after: ClusterRecord, policy: QueuePolicy, *, aside: bool
) -> Stretch:
    recallable = recallable_of(after, policy, aside=aside)
    specs = part_specs(after.name, after.uid, after.spec, after.plan, after.layout(), recallable)
    told = {site: said(each) for site, each in specs.items()}
    return Stretch(
        record=after,
        specs=specs,
        digest=digest_of({"replaces": before.terms, "sites": told}),
    )


def where_it_was(problem: Problem, plan: Plan, *, kept: bool = True) -> Problem:
    """The problem of a lease that goes on: each of its groups is at its sites, and has its image
    there. `kept`: its disks and its memory on disk too, which take nothing of what is free."""

    def at(group: GroupNeed, site: str, count: int) -> GroupNeed:
        return replace(
            group,
            name=_named(group.name, site),
            fewest=count,
            most=count,
            need=replace(group.need, disk_mib=0) if kept else group.need,
            further=_further(group, plan, kept=kept),
            saved_mib=0 if kept else group.saved_mib,
            image=plan.images[group.name],
            allow_sites=(site,),
            deny_sites=(),
            max_per_site=0,
            min_sites=0,
        )

    counts = {
        (group.name, each.site): count
        for group in problem.groups
        for each in plan.sites
        if (count := each.counts.get(group.name, 0))
    }
    groups = tuple(at(problem.group(name), site, count) for (name, site), count in counts.items())
    promises = tuple(
        replace(each, a=_named(each.a, one), b=_named(each.b, two))
        for each in problem.promises
        for one, two in _ends(each, counts)
    )
    sites = tuple(_with_images(each, plan) for each in problem.sites)
    return replace(
        problem,
        groups=groups,
        promises=promises,
        limits=(),
        max_sites=0,
        affinities=(),
        max_cost=None,
        sites=sites,
    )


def _further(group: GroupNeed, plan: Plan, *, kept: bool) -> tuple[DiskNeed, ...]:
    digests = iter(plan.data.get(group.name, ()))
    return tuple(
        replace(
            each,
            need=replace(each.need, disk_mib=0) if kept else each.need,
            image=next(digests, each.image) if each.image else "",
        )
        for each in group.further
    )


def _ends(promise: Promise, counts: Mapping[tuple[str, str], int]) -> list[tuple[str, str]]:
    ones, twos = (
        [site for name, site in counts if name == each] for each in (promise.a, promise.b)
    )
    if promise.a != promise.b:
        return [(one, two) for one in ones for two in twos]
    return [(one, two) for at, one in enumerate(ones) for two in ones[at:]]


def _named(group: str, site: str) -> str:
    return f"{group}@{site}"


def _with_images(site: Site, plan: Plan) -> Site:
    digests = (*plan.images.values(), *(each for data in plan.data.values() for each in data))
    there = {digest: ImageFound(digest=digest) for digest in digests}
    offers = tuple(replace(each, images={**each.images, **there}) for each in site.offers)
    return replace(site, offers=offers)
