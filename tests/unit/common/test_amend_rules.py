"""What of a cluster that stands may be changed."""

from datetime import timedelta
from typing import Any

import pytest

from intertie.common.amend_rules import DURATION, END_TIME, GROUPS, amended
from intertie.common.errors import FieldInvalid
from intertie.common.intervals import Window
from intertie.common.spec import (
    ClusterSpec,
    Dataset,
    DiskTerm,
    GroupPlacement,
    LeaseTerms,
    Volume,
    normalise,
)
from intertie.common.values import replace
from tests.unit.common.builders import NOW, two_groups

HOUR = timedelta(hours=1)
LATER = NOW + timedelta(minutes=30)
WINDOW = Window(NOW, NOW + HOUR)
STANDING = normalise(two_groups(), now=NOW)


def with_group(position: int, **changes: Any) -> ClusterSpec:
    """As it was first asked for, with one group otherwise."""
    groups = list(two_groups().groups)
    groups[position] = replace(groups[position], **changes)
    return replace(two_groups(), groups=tuple(groups))


def with_lease(**terms: Any) -> ClusterSpec:
    return replace(two_groups(), lease=LeaseTerms(**terms))


def asked(spec: ClusterSpec, *paths: str) -> ClusterSpec:
    return amended(STANDING, spec, paths, WINDOW, now=LATER)


def refused(spec: ClusterSpec, *paths: str) -> tuple[str, str]:
    with pytest.raises(FieldInvalid) as caught:
        asked(spec, *paths)
    return caught.value.field, caught.value.problem


def test_only_what_the_mask_names_is_taken() -> None:
    other = replace(with_group(1, count=7), lease=LeaseTerms(duration=3 * HOUR))
    longer = asked(other, DURATION)
    assert longer == replace(STANDING, lease=LeaseTerms(duration=3 * HOUR))
    more = asked(other, GROUPS)
    assert (more.lease, more.group("worker").count) == (STANDING.lease, 7)
    both = asked(other, GROUPS, DURATION)
    assert (both.lease.duration, both.group("worker").count) == (3 * HOUR, 7)


def test_what_is_asked_for_as_before_changes_nothing() -> None:
    """Defaults are filled in as they were, also in a cluster whose start has passed."""
    started = replace(STANDING, lease=replace(STANDING.lease, start_time=NOW))
    for standing in (STANDING, started):
        for late in (LATER, NOW + timedelta(minutes=59)):
            assert amended(standing, two_groups(), [GROUPS], WINDOW, now=late) == standing


def test_an_end_is_said_in_one_way() -> None:
    until = asked(with_lease(end_time=NOW + 2 * HOUR, duration=HOUR), END_TIME)
    assert until.lease == LeaseTerms(end_time=NOW + 2 * HOUR)
    shorter = asked(with_lease(duration=HOUR * 0.75), DURATION)
    assert shorter.lease == LeaseTerms(duration=HOUR * 0.75)


@pytest.mark.parametrize(
    ("spec", "paths", "field", "says"),
    [
        (two_groups(), (), "update_mask", "name one or more of spec.lease.end_time"),
        (two_groups(), ("spec.networks",), "update_mask", "'spec.networks' may not be changed"),
        (two_groups(), ("spec.lease.start_time",), "update_mask", "may not be changed"),
        (two_groups(), ("spec",), "update_mask", "may not be changed"),
        (two_groups(), (END_TIME, DURATION), "update_mask", "name one of them"),
        (two_groups(), (END_TIME,), END_TIME, "is missing"),
        (two_groups(), (DURATION,), DURATION, "is missing"),
        (with_lease(end_time=LATER), (END_TIME,), END_TIME, "must be after the start, and ahead"),
        (with_lease(duration=HOUR / 4), (DURATION,), DURATION, "which is past; Delete ends it now"),
        (with_lease(duration=-HOUR), (DURATION,), DURATION, "must be more than 0 s"),
        (
            with_lease(end_time=NOW + timedelta(days=366, minutes=10)),
            (END_TIME,),
            END_TIME,
            "more than 366 days after the start",
        ),
        (replace(two_groups(), groups=()), (GROUPS,), "spec.groups", "is empty"),
        (
            replace(two_groups(), groups=two_groups().groups[::-1]),
            (GROUPS,),
            "spec.groups",
            "they must stay head, worker, in this order",
        ),
        (with_group(1, name="helper"), (GROUPS,), "spec.groups[0].allocation.pairs[0].group", ""),
        (with_group(1, count=0), (GROUPS,), "spec.groups[1].count", "is missing"),
        (
            with_group(1, environment=replace(two_groups().groups[1].environment, image="another")),
            (GROUPS,),
            "spec.groups[1].environment.image",
            "may not be changed",
        ),
        (
            with_group(1, placement=GroupPlacement(max_per_host=1)),
            (GROUPS,),
            "spec.groups[1].placement",
            "may not be changed",
        ),
        (
            with_group(0, allocation=replace(two_groups().groups[0].allocation, disk_mib=63)),
            (GROUPS,),
            "spec.groups[0].allocation.disk_mib",
            "a disk gets no smaller; give 64 or more",
        ),
        (with_group(1, count=300), (GROUPS,), "spec.networks[0].subnet", "give a larger subnet"),
    ],
)
def test_refused_with_the_field_and_a_remedy(
    spec: ClusterSpec, paths: tuple[str, ...], field: str, says: str
) -> None:
    at, problem = refused(spec, *paths)
    assert at == field
    assert says in problem


def test_groups_may_leave_networks_to_the_default_and_not_leave_one() -> None:
    assert asked(with_group(1, networks=("net",)), GROUPS) == STANDING
    standing = normalise(with_group(1, networks=("net",)), now=NOW)
    assert amended(standing, two_groups(), [GROUPS], WINDOW, now=LATER) == standing


def test_data_sets_and_volumes_stay_as_they_are() -> None:
    disk = DiskTerm(guarantee_iops=5)
    had = replace(
        two_groups(),
        datasets=(Dataset(name="genomes", source="v2"),),
        volumes=(Volume(name="scratch", size_mib=64, group="head", disk=disk),),
    )
    standing = normalise(had, now=NOW)
    for same in (had, standing, two_groups()):
        assert amended(standing, same, [GROUPS], WINDOW, now=LATER) == standing
    more = replace(had.volumes[0], name="more")
    for field, other in (
        ("spec.datasets", replace(had, datasets=(replace(had.datasets[0], source="v3"),))),
        ("spec.volumes", replace(had, volumes=(replace(had.volumes[0], size_mib=65),))),
        ("spec.volumes", replace(had, volumes=(*had.volumes, more))),
    ):
        with pytest.raises(FieldInvalid, match="make a new cluster") as caught:
            amended(standing, other, [GROUPS], WINDOW, now=LATER)
        assert caught.value.field == field
    with pytest.raises(FieldInvalid, match=r"spec\.volumes' may not be changed"):
        amended(standing, had, ["spec.volumes"], WINDOW, now=LATER)
