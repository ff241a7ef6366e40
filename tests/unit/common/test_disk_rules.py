"""Data sets and volumes: what may be asked for, what workspaces have of it, and what that takes."""

from typing import Any

import pytest

from intertie.common.disk_rules import (
    MAX_DISKS,
    MAX_FURTHER_DISKS,
    check_data_size,
    check_disks_of_workspace,
)
from intertie.common.errors import FieldInvalid
from intertie.common.guarantees import (
    Guarantee,
    GuaranteeKind,
    Measured,
    of_workspace,
    with_measured,
)
from intertie.common.part_spec import FurtherDisk, further_disks, with_further_disks
from intertie.common.quantities import Vector
from intertie.common.spec import (
    Dataset,
    DiskTerm,
    Volume,
    demand_of,
    least_demand,
    normalise,
)
from intertie.common.values import replace
from tests.unit.common.builders import (
    NOW,
    Change,
    allocation,
    check_refused,
    check_taken,
    named,
    two_groups,
)

DIGEST = "b3:" + "0a" * 32
GENOMES = Dataset(name="genomes", source="genomes-v2")
SCRATCH = Volume(name="scratch", size_mib=1024, group="worker")


def data(*sets: Dataset, **fields: Any) -> Change:
    return lambda spec: replace(spec, datasets=sets or (replace(GENOMES, **fields),))


def volumes(*made: Volume, **fields: Any) -> Change:
    return lambda spec: replace(spec, volumes=made or (replace(SCRATCH, **fields),))


def both(*, name: str) -> Change:
    return lambda spec: data(name=name)(volumes(name=name)(spec))


def many(count: int) -> tuple[Dataset, ...]:
    return tuple(replace(GENOMES, name=f"d{each}") for each in range(count))


WRONG = [
    ("no name", data(name=""), "spec.datasets[0].name", "give a name"),
    ("no label", data(name="my data"), "spec.datasets[0].name", "no DNS label"),
    ("a long name", data(name="a" * 21), "spec.datasets[0].name", "at most 20"),
    ("two data sets", data(GENOMES, GENOMES), "spec.datasets[1].name", "another name"),
    ("no source", data(source=""), "spec.datasets[0].source", "name an image"),
    ("half a digest", data(source="b3:12"), "spec.datasets[0].source", "no digest"),
    ("a strange group", data(groups=("w",)), "spec.datasets[0].groups[0]", "known: head, worker"),
    ("a group twice", data(groups=("head",) * 2), "spec.datasets[0].groups[1]", "another name"),
    (
        "a cap below",
        data(disk=DiskTerm(guarantee_iops=9, cap_iops=5)),
        "spec.datasets[0].disk.cap_iops",
        "raise it",
    ),
    ("too many of a workspace", data(*many(9)), "spec.datasets[8].groups", "join some"),
    (
        "too many in all",
        data(*(replace(each, groups=("head",)) for each in many(MAX_DISKS + 1))),
        "spec.datasets",
        "at most 256",
    ),
    ("a long name of a volume", volumes(name="a" * 21), "spec.volumes[0].name", "at most 20"),
    ("two volumes", volumes(SCRATCH, SCRATCH), "spec.volumes[1].name", "another name"),
    ("both", both(name="one"), "spec.volumes[0].name", "a data set already"),
    ("no size", volumes(size_mib=0), "spec.volumes[0].size_mib", "from 1 to"),
    ("less than none", volumes(size_mib=-5), "spec.volumes[0].size_mib", "from 1 to"),
    ("absurd", volumes(size_mib=1 << 40), "spec.volumes[0].size_mib", "from 1 to"),
    ("no group", volumes(group=""), "spec.volumes[0].group", "known: head, worker"),
    (
        "absurd operations",
        volumes(disk=DiskTerm(cap_iops=-1)),
        "spec.volumes[0].disk.cap_iops",
        "from 0",
    ),
    (
        "too many with its data sets",
        lambda spec: data(*many(MAX_FURTHER_DISKS))(volumes()(spec)),
        "spec.volumes[0].group",
        "join some",
    ),
]
RIGHT = [
    ("both", lambda spec: data()(volumes()(spec))),
    ("a name that just fits", data(name="a" * 20)),
    ("by digest", data(source=DIGEST)),
    ("as many as fit", data(*many(MAX_FURTHER_DISKS))),
    ("as many in all, of different groups", data(*many(4), replace(GENOMES, groups=("head",)))),
    ("a size that just fits", volumes(size_mib=1 << 30)),
]


@pytest.mark.parametrize(("change", "field", "remedy"), named(WRONG))
def test_what_is_wrong_is_refused_with_its_field_and_a_remedy(
    change: Change, field: str, remedy: str
) -> None:
    check_refused(change, field, remedy)


@pytest.mark.parametrize("change", named(RIGHT))
def test_what_is_only_just_right_is_taken(change: Change) -> None:
    check_taken(change)


def test_a_workspace_has_the_data_sets_and_volumes_of_its_group() -> None:
    spec = replace(
        two_groups(),
        datasets=(GENOMES, replace(GENOMES, name="more", groups=("head",))),
        volumes=(SCRATCH,),
    )
    assert [each.name for each in further_disks(spec, "head")] == ["genomes", "more"]
    assert further_disks(spec, "worker") == (
        FurtherDisk(name="genomes", image="genomes-v2"),
        FurtherDisk(name="scratch", size_mib=1024),
    )


def test_what_groups_have_can_be_said_as_a_specification_again() -> None:
    spec = replace(two_groups(), datasets=(GENOMES,), volumes=(SCRATCH,))
    has = {name: further_disks(spec, name) for name in ("head", "worker")}
    again = with_further_disks(two_groups(), has)
    assert {name: further_disks(again, name) for name in has} == has


def test_a_volume_counts_as_a_root_disk_does_and_of_a_data_set_its_caps() -> None:
    spec = replace(
        two_groups(),
        datasets=(replace(GENOMES, groups=("head",), disk=DiskTerm(guarantee_mib_s=7)),),
        volumes=(replace(SCRATCH, disk=DiskTerm(guarantee_iops=40, cap_iops=50)),),
    )
    spec = normalise(spec, now=NOW)
    assert spec.datasets[0].disk.cap_mib_s == 7
    worker = demand_of(allocation(), 0, disks=further_disks(spec, "worker"))
    assert worker - demand_of(allocation(), 0) == Vector(disk_mib=1024, iops=50)
    more = least_demand(spec) - least_demand(normalise(two_groups(), now=NOW))
    assert more == Vector(disk_mib=3 * 1024, iops=3 * 50, throughput_mib_s=7)


def test_what_a_further_disk_is_promised_is_told_by_its_name() -> None:
    disk = FurtherDisk(name="scratch", size_mib=1, disk=DiskTerm(guarantee_iops=40, cap_iops=50))
    own = replace(allocation(), disk=DiskTerm(guarantee_iops=9, cap_iops=10))
    [root, other] = of_workspace("a-0", own, (), (disk,))
    assert other == Guarantee(
        kind=GuaranteeKind.DISK_IOPS,
        source="a-0",
        target="scratch",
        guarantee=40,
        cap=50,
        unit="1/s",
    )
    of_other = Measured(kind=root.kind, source="a-0", target="scratch", value=3, at=NOW)
    told = [*with_measured((root, other), (of_other,))]
    assert [each.measured for each in told] == [(), (of_other,)]
    crossed = replace(other, source="scratch", target="a-0")
    [left_out] = with_measured((crossed,), (of_other,))
    assert left_out.measured == (), "a volume that is called as a workspace is"


@pytest.mark.parametrize(
    ("disk", "field"),
    named(
        [
            ("a name of no label", FurtherDisk(name="../x", size_mib=1), "disks[0].name"),
            ("neither size nor image", FurtherDisk(name="a"), "disks[0].size_mib"),
            ("an image by name", FurtherDisk(name="a", image="data"), "disks[0].image"),
            ("both", FurtherDisk(name="a", image=DIGEST, size_mib=1), "disks[0].size_mib"),
            (
                "absurd caps",
                FurtherDisk(name="a", size_mib=1, disk=DiskTerm(cap_mib_s=-1)),
                "disks[0].disk.cap_mib_s",
            ),
        ]
    ),
)
def test_a_part_may_not_slip_anything_in_as_a_disk(disk: FurtherDisk, field: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        check_disks_of_workspace((disk,), "disks")
    assert caught.value.field == field


def test_a_part_has_no_more_disks_than_fit_and_each_its_name() -> None:
    one = FurtherDisk(name="a", size_mib=1)
    with pytest.raises(FieldInvalid, match="at most 8"):
        check_disks_of_workspace((one,) * 9, "disks")
    with pytest.raises(FieldInvalid, match="there already"):
        check_disks_of_workspace((one, one), "disks")


def test_a_data_set_is_whole_sectors() -> None:
    check_data_size(1024, "spec.datasets[0].source")
    with pytest.raises(FieldInvalid, match="truncate") as caught:
        check_data_size(1025, "spec.datasets[0].source")
    assert caught.value.field == "spec.datasets[0].source"
