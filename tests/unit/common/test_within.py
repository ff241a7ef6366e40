"""Which terms take nothing beyond others: those for which no site need be asked."""

from typing import Any

import pytest

from intertie.common.intervals import Window
from intertie.common.part_rules import within
from intertie.common.part_spec import HostEntry, PartSpec, Recallable
from intertie.common.spec import BandwidthTerm, DiskTerm
from intertie.common.values import replace
from tests.unit.broker.samples import HOUR, NOW, part_spec, workspace

KEPT = Recallable(keep_for=HOUR)


def spec(count: int = 2, *, pair: int = 10, link: int = 20, **allocation: Any) -> PartSpec:
    each = [workspace(index=number, **allocation) for number in range(count)]
    pairs = (("w-0", "w-1", pair),) if count > 1 else ()
    return part_spec(*each, pairs=pairs, link_mbit_s=link)


OLD = spec(vcpus=2)


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        spec(1, vcpus=2),
        spec(0),
        spec(vcpus=1),
        spec(vcpus=2, memory_mib=64),
        spec(vcpus=2, pair=5),
        spec(vcpus=2, link=0),
        spec(vcpus=2, disk=DiskTerm(cap_iops=50, cap_mib_s=10)),
        replace(OLD, window=Window(NOW, NOW + HOUR / 2)),
    ],
)
def test_what_takes_less_of_anything_is_within(new: PartSpec) -> None:
    assert within(new, OLD)


@pytest.mark.parametrize(
    "new",
    [
        spec(3, vcpus=2),
        spec(vcpus=3),
        spec(vcpus=2, memory_mib=129),
        spec(vcpus=2, disk_mib=256),
        spec(vcpus=2, disk_mib=64),
        spec(vcpus=2, pair=11),
        spec(vcpus=2, link=21),
        spec(vcpus=2, disk=DiskTerm(cap_iops=101, cap_mib_s=10)),
        spec(vcpus=2, disk=DiskTerm(cap_iops=0, cap_mib_s=10)),
        spec(vcpus=2, nic=BandwidthTerm(guarantee_mbit_s=1)),
        spec(vcpus=2, environment={"timezone": "Europe/Oslo"}),
        replace(OLD, window=Window(NOW, NOW + HOUR * 2)),
        replace(OLD, window=Window(NOW + HOUR / 4, NOW + HOUR / 2)),
        replace(OLD, cluster_uid="another"),
        replace(OLD, host_entries=(HostEntry(address="10.1.0.9", names=("other",)),)),
    ],
)
def test_what_takes_more_of_anything_or_is_otherwise_is_not(new: PartSpec) -> None:
    assert not within(new, OLD)


@pytest.mark.parametrize(
    ("new", "old", "less"),
    [
        (KEPT, KEPT, True),
        (replace(KEPT, put_aside=True), KEPT, True),
        (replace(KEPT, put_aside=True, keep_for=HOUR / 2), KEPT, True),
        (replace(KEPT, keep_for=HOUR / 2), KEPT, True),
        (replace(KEPT, keep_for=HOUR * 2), KEPT, False),
        (KEPT, replace(KEPT, put_aside=True), False),
        (replace(KEPT, cancellable=True), KEPT, False),
        (replace(KEPT, ran=HOUR), KEPT, False),
        (KEPT, None, False),
        (None, KEPT, False),
    ],
)
def test_what_is_kept_for_no_longer_is_within(
    new: Recallable | None, old: Recallable | None, less: bool
) -> None:
    """A bug: one for a shorter time was taken for more, since a coordinator's settings changed."""
    assert within(replace(OLD, recallable=new), replace(OLD, recallable=old)) is less
