"""When a cluster may start and where its groups may be, before anything is counted."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from intertie.common.disk_rules import check_data_size
from intertie.common.errors import FieldInvalid, Shortfall
from intertie.common.intervals import Window
from intertie.common.spec import DEFAULT_DURATION, LeaseTerms
from intertie.common.values import replace
from intertie.metasched.domain.problem import DiskNeed, GroupNeed, Problem, Site

MOST_WINDOWS = 64
"""As many as a site answers for in one call."""
FEWEST_STARTS = 8
"""Of a lease with a deadline, however near that is: one that begins later than it could is not
begun sooner."""
TICK = timedelta(seconds=1)


def candidate_windows(
    lease: LeaseTerms, *, now: datetime, slot: timedelta, horizon: timedelta
) -> tuple[Window, ...]:
    """The earliest start, then one a slot up to the longest delay that the owner accepts; of one
    with a deadline up to the last start that is in time, which is always one of them unless it is
    beyond the horizon.

    Slots are widened where more than 64 starts would come out. With a fixed end, a later
    start makes the lease shorter, and no window is empty. Nothing starts beyond the horizon,
    but for the start that was asked for.
    """
    first, lasts = lease.start_time or now, lease.duration or DEFAULT_DURATION
    most = lease.max_delay if lease.deadline is None else lease.deadline - lasts - first
    delay = min(most, max(now + horizon - first, timedelta()))
    if lease.deadline is not None:
        slot = min(slot, delay / FEWEST_STARTS)
    step = max(slot, delay / (MOST_WINDOWS - 1), TICK)
    starts = [first] if delay >= timedelta() else []
    while starts and starts[-1] + step <= first + delay and len(starts) < MOST_WINDOWS:
        starts.append(starts[-1] + step)
    if starts and lease.deadline is not None and starts[-1] < first + delay:
        starts = [*starts[: MOST_WINDOWS - 1], first + delay]
    return windows_from(lease, starts)


def windows_from(lease: LeaseTerms, starts: Sequence[datetime]) -> tuple[Window, ...]:
    """One for each start, but for empty ones."""
    ends = (lease.end_time or each + (lease.duration or DEFAULT_DURATION) for each in starts)
    return tuple(Window(start, end) for start, end in zip(starts, ends, strict=True) if start < end)


def allowed(group: GroupNeed, site: str) -> bool:
    """Whether the owner lets the group be at the site."""
    return (not group.allow_sites or site in group.allow_sites) and site not in group.deny_sites


def hindrance(group: GroupNeed, site: Site) -> Shortfall | None:
    """Why not one workspace of the group may be at the site, however empty it were."""
    if not allowed(group, site.name):
        return _policy(group, site, f"{group.name} may not be at {site.name}, by its placement")
    found = site.images.get(group.image)
    if found is None:
        return Shortfall(
            site=site.name,
            resource="image",
            group=group.name,
            message=f"{site.name} has no image {group.image} for {group.name}",
        )
    if gone := next((each for each in group.further if _lacks(site, each)), None):
        return Shortfall(
            site=site.name,
            resource="image",
            group=group.name,
            message=f"{site.name} has no image {gone.image}, {gone.said} for {group.name}",
        )
    if found.virtual_mib > group.need.disk_mib:
        return Shortfall(
            site=site.name,
            resource="disk",
            wanted=found.virtual_mib,
            available=group.need.disk_mib,
            unit="MiB",
            group=group.name,
            message=f"image {group.image} at {site.name} needs a disk of {found.virtual_mib} MiB,"
            f" {group.name} has {group.need.disk_mib} MiB",
        )
    if not any(host.suits(group) for offer in site.offers for host in offer.hosts):
        kind = f"{group.architecture}, {group.hypervisor or 'any hypervisor'}"
        return Shortfall(
            site=site.name,
            resource="hosts",
            wanted=1,
            available=0,
            group=group.name,
            message=f"{site.name} offers no host ({kind}) for {group.name}",
        )
    return None


def _lacks(site: Site, disk: DiskNeed) -> bool:
    return bool(disk.image) and disk.image not in site.images


def usable_sites(problem: Problem, group: GroupNeed) -> tuple[str, ...]:
    return tuple(site.name for site in problem.sites if hindrance(group, site) is None)


def without_useless_sites(problem: Problem) -> Problem:
    """But for the sites that can have no workspace, forward nothing and have nothing that is to be
    brought elsewhere: nothing is lost by that."""
    sites = tuple(
        site
        for site in problem.sites
        if site.forwards
        or any(site.name in item.at for item in problem.items)
        or any(hindrance(group, site) is None for group in problem.groups)
        or any(at == site.name for _, at in (*problem.standing, *problem.least))
    )
    return replace(problem, sites=sites) if len(sites) < len(problem.sites) else problem


def images_missing(problem: Problem) -> tuple[str, ...]:
    """Images, and those of data sets, that none of the sites has where their group may be."""
    return tuple(
        dict.fromkeys(
            image
            for group in problem.groups
            if (places := [site for site in problem.sites if allowed(group, site.name)])
            for image in (group.image, *group.data)
            if not any(image in site.images for site in places)
        )
    )


def check_disks(problem: Problem) -> None:
    """FieldInvalid where a group's disk is smaller than its image, wherever it may be, or a data
    set is no whole sectors."""
    for number, group in enumerate(problem.groups):
        places = [site for site in problem.sites if allowed(group, site.name)]
        for each in group.further:
            for site in places if each.image else ():
                if each.image in site.images:
                    check_data_size(site.images[each.image].size_bytes, f"{each.field}.source")
        sizes = [
            site.images[group.image].virtual_mib for site in places if group.image in site.images
        ]
        if sizes and min(sizes) > group.need.disk_mib:
            raise FieldInvalid(
                f"spec.groups[{number}].allocation.disk_mib",
                f"is {group.need.disk_mib} MiB; image {group.image} needs {min(sizes)} or more",
            )


def _policy(group: GroupNeed, site: Site, message: str) -> Shortfall:
    return Shortfall(site=site.name, resource="policy", group=group.name, message=message)
