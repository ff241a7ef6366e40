"""Which sites a cluster has lost, and what is to be had elsewhere in their place.

A site is lost to a cluster once it has given up its part of it before the end, or was not heard of
for long. What was there begins anew at other sites, where its owner asked for that; all others
stay where they are.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from intertie.common.amend_rules import LAST_MINUTES
from intertie.common.names import workspace_label
from intertie.common.spec import ClusterSpec, OnSiteLoss
from intertie.common.values import Struct, replace
from intertie.metasched.domain.amending import Growth
from intertie.metasched.domain.cluster import (
    LIVE,
    WINDOW_OVER,
    WORKSPACE_FAILED,
    ClusterRecord,
    PartSeen,
)
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import listed


class LossPolicy(Struct, frozen=True, kw_only=True):
    site_lost_after: timedelta = timedelta(seconds=300)
    """Of silence; and a link, of carrying nothing, or less than it was to."""
    replan_within: timedelta = timedelta(seconds=60)
    """So long other sites are looked for in place of one that has given its part up, before the
    cluster ends."""


def may_be_placed_anew(record: ClusterRecord, *, now: datetime) -> bool:
    """Nothing but a lost site stands against it."""
    return (
        record.state in LIVE
        and record.end_requested_time is None
        and record.waits is None
        and record.window.end - now >= LAST_MINUTES
    )


def given_up(
    record: ClusterRecord, parts: Mapping[str, PartSeen], *, now: datetime
) -> frozenset[str]:
    """Sites that have ended their part inside the window, for what is no fault of a workspace, and
    in place of which others may be had. None of them where one may not be: the cluster ends."""
    if not may_be_placed_anew(record, now=now):
        return frozenset()
    gone = frozenset(
        site
        for site, part in parts.items()
        if part.over and part.end_reason not in (WINDOW_OVER, WORKSPACE_FAILED)
    )
    begun = now >= record.window.start
    if all(
        _may_begin_anew(record, site, begun=begun) and not awaited(record, site, gone, now=now)
        for site in gone
    ):
        return gone
    return frozenset()


def away(record: ClusterRecord, silent: frozenset[str], *, now: datetime) -> frozenset[str]:
    """Of those that were silent for long, those in place of which others may be had."""
    return frozenset(
        site for site in silent & record.parts.keys() if may_be_left(record, site, now=now)
    )


def may_be_left(record: ClusterRecord, site: str, *, now: datetime) -> bool:
    """A site that is silent: whatever goes on there, all of it may begin anew elsewhere."""
    return (
        may_be_placed_anew(record, now=now)
        and _may_begin_anew(record, site, begun=True)
        and not awaited(record, site, frozenset({site}), now=now)
    )


def at_site(record: ClusterRecord, site: str) -> Mapping[str, int]:
    """How many workspaces of each group that has any there."""
    counts = next((each.counts for each in record.plan.sites if each.site == site), {})
    return {name: count for name, count in counts.items() if count}


def awaited(record: ClusterRecord, site: str, lost: frozenset[str], *, now: datetime) -> bool:
    """Others, which are not lost with it, wait for what it still sends."""
    return any(
        each.from_site == site and each.to_site not in lost and each.end > now
        for each in record.plan.transfers
    )


def _may_begin_anew(record: ClusterRecord, site: str, *, begun: bool) -> bool:
    """What has begun there, where its owner says so."""
    return not begun or all(
        record.spec.group(name).allocation.availability.on_site_loss is OnSiteLoss.REPLACE
        for name in at_site(record, site)
    )


def growth_without(record: ClusterRecord, lost: frozenset[str]) -> Growth:
    """Who is at no lost site stays. Of a group that may have fewer, those with the highest indices
    may be left out if they are gone anyway."""
    had, homes = record.counts(), record.plan.site_of()
    standing: dict[tuple[str, str], int] = {}
    base: dict[str, int] = {}
    bounds: dict[str, tuple[int, int]] = {}
    for group in record.spec.groups:
        name, count = group.name, had[group.name]
        base[name] = 0
        for index in range(count):
            if (home := homes[workspace_label(name, index)]) not in lost:
                standing[name, home] = standing.get((name, home), 0) + 1
                base[name] = index + 1
        bounds[name] = min(count, max(group.fewest, base[name])), count
    return Growth(standing=standing, least=dict(standing), base=base, bounds=bounds)


def without_sites(spec: ClusterSpec, lost: frozenset[str]) -> ClusterSpec:
    """None of these may have anything."""
    groups = tuple(
        replace(
            each,
            placement=replace(
                each.placement,
                deny_sites=tuple(sorted({*each.placement.deny_sites, *lost})),
            ),
        )
        for each in spec.groups
    )
    return replace(spec, groups=groups)


def reasons(record: ClusterRecord, after: Plan, lost: Mapping[str, str]) -> Iterator[str]:
    """Who begins anew where, and who does not. `lost`: sites, each with why it is left."""
    was, now = record.plan.site_of(), after.site_of()
    for site, why in sorted(lost.items()):
        went: dict[str, list[str]] = {}
        for group, count in record.counts().items():
            for index in range(count):
                label = workspace_label(group, index)
                if was[label] == site:
                    there = now[label] if index < after.count(group) else ""
                    went.setdefault(there, []).append(label)
        dropped = went.pop("", [])
        told = [f"{listed(labels)} at {there}" for there, labels in sorted(went.items())]
        if told:
            yield f"{why}: anew {', '.join(told)}"
        if dropped:
            yield f"{why}: without {listed(dropped)}, which it can do without"
