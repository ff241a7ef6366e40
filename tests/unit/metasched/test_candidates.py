"""When a cluster may start, and where its groups may be."""

from datetime import timedelta

import pytest

from intertie.common.errors import FieldInvalid
from intertie.common.spec import LeaseTerms
from intertie.common.values import replace
from intertie.metasched.domain.candidates import (
    MOST_WINDOWS,
    candidate_windows,
    check_disks,
    hindrance,
    images_missing,
)
from intertie.metasched.domain.problem import ImageFound
from tests.unit.metasched.problems import DIGEST, NOW, group, offer, problem, room

HOUR = timedelta(hours=1)
SLOT = timedelta(minutes=5)


def starts(lease: LeaseTerms, horizon: timedelta = 24 * HOUR) -> list[timedelta]:
    windows = candidate_windows(lease, now=NOW, slot=SLOT, horizon=horizon)
    return [window.start - NOW for window in windows]


def test_without_a_delay_there_is_one_start() -> None:
    assert starts(LeaseTerms(duration=HOUR)) == [timedelta()]
    assert starts(LeaseTerms(start_time=NOW + HOUR, duration=HOUR)) == [HOUR]


def test_starts_are_a_slot_apart_up_to_the_longest_delay() -> None:
    assert starts(LeaseTerms(duration=HOUR, max_delay=3 * SLOT)) == [n * SLOT for n in range(4)]
    assert starts(LeaseTerms(duration=HOUR, max_delay=1.5 * SLOT)) == [timedelta(), SLOT]


def test_a_long_delay_has_wider_slots_and_never_more_windows_than_sites_answer_for() -> None:
    found = starts(LeaseTerms(duration=HOUR, max_delay=24 * HOUR))
    assert len(found) == MOST_WINDOWS
    assert found[-1] == pytest.approx(24 * HOUR, abs=timedelta(milliseconds=1))


def test_nothing_is_put_off_beyond_the_horizon() -> None:
    assert starts(LeaseTerms(duration=HOUR, max_delay=HOUR), horizon=SLOT) == [timedelta(), SLOT]
    far = LeaseTerms(start_time=NOW + HOUR, duration=HOUR, max_delay=HOUR)
    assert starts(far, horizon=SLOT) == [HOUR]


def test_a_fixed_end_stays_and_no_window_is_empty() -> None:
    lease = LeaseTerms(end_time=NOW + 2 * SLOT, max_delay=HOUR)
    windows = candidate_windows(lease, now=NOW, slot=SLOT, horizon=24 * HOUR)
    assert [window.end for window in windows] == [NOW + 2 * SLOT] * 2


def test_what_keeps_a_group_from_a_site_however_empty_is_told() -> None:
    given = problem([group()], {"a": offer(room(0, architecture="aarch64"))})
    found = hindrance(given.groups[0], given.sites[0])
    assert found is not None
    assert found.resource == "hosts"
    assert hindrance(replace(given.groups[0], architecture="aarch64"), given.sites[0]) is None


def test_an_image_is_missing_only_where_no_allowed_site_has_it() -> None:
    sites = {"a": offer(1), "b": offer(1, images={})}
    assert images_missing(problem([group()], sites)) == ()
    assert images_missing(problem([group(allow_sites=("b",))], sites)) == ("guest",)


def test_a_disk_below_its_image_at_every_allowed_site_is_the_owners_to_mend() -> None:
    large = {"guest": ImageFound(digest=DIGEST, virtual_mib=513)}
    sites = {"a": offer(1), "b": offer(1, images=large)}
    check_disks(problem([group()], sites))
    with pytest.raises(FieldInvalid) as caught:
        check_disks(problem([group(allow_sites=("b",))], sites))
    assert caught.value.field == "spec.groups[0].allocation.disk_mib"
    assert "513 or more" in caught.value.problem
