"""What of a cluster that stands may be changed: the specification that results, or why not."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from intertie.common.errors import FieldInvalid
from intertie.common.intervals import Window
from intertie.common.spec import (
    ClusterSpec,
    Group,
    LeaseTerms,
    capped_disk,
    normalise,
    validate,
)
from intertie.common.spec_rules import MAX_SPAN
from intertie.common.values import field_names, replace

END_TIME, DURATION, GROUPS = "spec.lease.end_time", "spec.lease.duration", "spec.groups"
PATHS = (END_TIME, DURATION, GROUPS)
"""Of an update mask."""

LAST_MINUTES = timedelta(minutes=2)
"""Before its end in which a lease gets no more."""

NEW_CLUSTER = "may not be changed; leave it as it is, or make a new cluster"


def amended(
    standing: ClusterSpec,
    asked: ClusterSpec,
    paths: Sequence[str],
    window: Window,
    *,
    now: datetime,
) -> ClusterSpec:
    """`standing`, which is normalised and was admitted for `window`, with what `paths` name taken
    from `asked`; normalised too.

    FieldInvalid for what may not be changed, and for what may not be asked for at all: the result
    is judged by the rules of every specification.
    """
    _paths_are_known(paths)
    check_may_change(standing)
    lease = _lease(standing.lease, asked.lease, paths)
    result = replace(
        standing, groups=asked.groups if GROUPS in paths else standing.groups, lease=lease
    )
    # The start is the one that was admitted, which may be past by now.
    start = window.start if window.start > now else None
    judged = replace(result, lease=replace(lease, start_time=start))
    validate(judged, now=now)
    _end_is_ahead(window_of(lease, window), paths, window.start, now)
    result = replace(result, groups=normalise(judged, now=now).groups)
    if GROUPS in paths:
        _groups_are_the_same(standing.groups, result.groups)
        _disks_are_the_same(standing, asked)
    return result


def check_may_change(standing: ClusterSpec) -> None:
    """A lease that waits for room keeps its terms."""
    if standing.lease.kind is not None:
        raise FieldInvalid(
            "update_mask",
            f"is of a lease that is {standing.lease.kind.value}, whose terms stay as they are; "
            "delete it, and make a new cluster",
        )


def window_of(lease: LeaseTerms, admitted: Window) -> Window:
    """From the start that was admitted until the end that the terms say. FieldInvalid where that
    is no time at all."""
    end = lease.end_time or admitted.start + (lease.duration or admitted.duration)
    if end <= admitted.start:
        raise FieldInvalid(END_TIME, "must be after the start")
    return Window(admitted.start, end)


def _paths_are_known(paths: Sequence[str]) -> None:
    """A mask names one or more of the three paths, and one way to say the end."""
    if not paths:
        raise FieldInvalid("update_mask", f"is empty; name one or more of {', '.join(PATHS)}")
    for path in paths:
        if path not in PATHS:
            raise FieldInvalid(
                "update_mask", f"{path!r} {NEW_CLUSTER}; what may be is {', '.join(PATHS)}"
            )
    if END_TIME in paths and DURATION in paths:
        raise FieldInvalid("update_mask", f"names {END_TIME} and {DURATION}; name one of them")


def _lease(standing: LeaseTerms, asked: LeaseTerms, paths: Sequence[str]) -> LeaseTerms:
    """Of end and duration the one that the mask names."""
    if END_TIME in paths:
        if asked.end_time is None:
            raise FieldInvalid(END_TIME, "is missing, and the mask names it; say when it is to end")
        return replace(standing, end_time=asked.end_time, duration=None)
    if DURATION in paths:
        if asked.duration is None:
            raise FieldInvalid(DURATION, "is missing, and the mask names it; say how long, 2h say")
        return replace(standing, duration=asked.duration, end_time=None)
    return standing


def _end_is_ahead(after: Window, paths: Sequence[str], start: datetime, now: datetime) -> None:
    """A lease that is made shorter ends later than now, and lasts 366 days at most."""
    named = [each for each in (END_TIME, DURATION) if each in paths]
    if not named:
        return
    if after.end <= now:
        raise FieldInvalid(
            named[0],
            f"would have ended it at {after.end.isoformat(timespec='seconds')}, which is past; "
            "Delete ends it now",
        )
    if after.end - start > MAX_SPAN:
        raise FieldInvalid(named[0], "is more than 366 days after the start; give an earlier end")


def _groups_are_the_same(standing: Sequence[Group], asked: Sequence[Group]) -> None:
    """Groups keep their names, their order, and all but how many they are and what each gets; a
    disk gets no smaller."""
    before, after = [each.name for each in standing], [each.name for each in asked]
    if before != after:
        raise FieldInvalid(
            "spec.groups",
            f"are {', '.join(after)}; they must stay {', '.join(before)}, in this order",
        )
    for position, (old, new) in enumerate(zip(standing, asked, strict=True)):
        at = f"spec.groups[{position}]"
        for field in _differing(old, new):
            raise FieldInvalid(f"{at}.{field}", NEW_CLUSTER)
        had, gets = old.allocation.disk_mib, new.allocation.disk_mib
        if gets < had:
            raise FieldInvalid(
                f"{at}.allocation.disk_mib",
                f"{gets} MiB is less than the {had} MiB that there are, and a disk gets no "
                f"smaller; give {had} or more",
            )


def _disks_are_the_same(standing: ClusterSpec, asked: ClusterSpec) -> None:
    """Data sets and volumes stay as they are; who says none does not speak of them."""
    for name, said, had in (
        ("datasets", asked.datasets, standing.datasets),
        ("volumes", asked.volumes, standing.volumes),
    ):
        normal = tuple(replace(each, disk=capped_disk(each.disk)) for each in said)
        if normal and normal != had:
            raise FieldInvalid(f"spec.{name}", NEW_CLUSTER)


def _differing(old: Group, new: Group) -> Iterator[str]:
    if old.environment != new.environment:
        for name in field_names(type(old.environment)):
            if getattr(old.environment, name) != getattr(new.environment, name):
                yield f"environment.{name}"
    for name in ("networks", "placement"):
        if getattr(old, name) != getattr(new, name):
            yield name
