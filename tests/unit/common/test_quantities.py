from datetime import UTC, datetime, timedelta

import pytest

from intertie.common.intervals import Window
from intertie.common.quantities import DIMENSIONS, RESOURCE_OF, UNIT_OF, Vector

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def window(start: int, end: int) -> Window:
    return Window(NOON + timedelta(minutes=start), NOON + timedelta(minutes=end))


def test_vectors_add_up_dimension_by_dimension() -> None:
    one = Vector(vcpus=1, memory_mib=2, disk_mib=3, iops=4, throughput_mib_s=5, uplink_mbit_s=6)
    assert one + one == one * 2
    assert one * 3 - one == one * 2
    assert Vector() - one == one * -1
    assert (Vector() - one).at_least_zero() == Vector()
    assert one.at_most(Vector(vcpus=9, memory_mib=1)) == Vector(vcpus=1, memory_mib=1)


def test_a_vector_fits_only_in_every_dimension() -> None:
    small, wide, tall = Vector(vcpus=1), Vector(vcpus=2), Vector(vcpus=1, memory_mib=1)
    assert small <= wide
    assert wide >= small
    assert not wide <= tall
    assert not tall <= wide


def test_a_shortfall_for_each_dimension_that_is_short_and_no_other() -> None:
    wanted = Vector(vcpus=4, memory_mib=512, iops=100)
    short = wanted.shortfall_from(
        Vector(vcpus=4, memory_mib=500, iops=-7), site="north", host="n1", group="worker"
    )
    assert [(each.resource, each.wanted, each.available, each.unit) for each in short] == [
        ("memory", 512, 500, "MiB"),
        ("iops", 100, 0, "1/s"),
    ]
    assert str(short[0]) == "north/n1: memory 512 MiB wanted, 500 available"


def test_every_dimension_has_a_resource_and_a_unit() -> None:
    assert set(DIMENSIONS) == set(RESOURCE_OF) == set(UNIT_OF)


def test_windows_are_half_open() -> None:
    hour = window(0, 60)
    assert hour.contains(hour.start)
    assert not hour.contains(hour.end)
    assert not hour.overlaps(window(60, 90))
    assert hour.intersect(window(60, 90)) is None
    assert hour.overlaps(window(59, 90))
    assert hour.intersect(window(30, 90)) == window(30, 60)
    assert hour.duration == timedelta(hours=1)


@pytest.mark.parametrize("end", [0, -1])
def test_a_window_ends_after_it_starts(end: int) -> None:
    with pytest.raises(ValueError, match="ends after"):
        window(0, end)


def test_a_window_knows_its_zone() -> None:
    with pytest.raises(ValueError, match="aware"):
        Window(datetime(2026, 3, 1), datetime(2026, 3, 2))
