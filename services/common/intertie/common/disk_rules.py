"""What may be asked for beside root disks: data sets and volumes, and the disks of a part."""

from collections import Counter
from collections.abc import Sequence

from intertie.common.errors import FieldInvalid
from intertie.common.names import check_label, is_digest
from intertie.common.part_spec import FurtherDisk
from intertie.common.term_rules import (
    MAX_DISK_MIB,
    check_disk,
    check_image,
    check_range,
    check_unique,
    unknown,
)
from intertie.common.terms import ClusterSpec

MAX_FURTHER_DISKS = 8
"""Of one workspace. Each takes a slot of its machine, as its NICs do."""
MAX_DISKS = 256
"""Data sets of a cluster, and volumes."""
MAX_SERIAL = 20
"""Of a virtio disk: a longer one would be cut short."""
SECTOR_BYTES = 512


def check_further_disks(spec: ClusterSpec) -> None:
    """Data sets and volumes have names of their own, short enough for a serial, and are of groups
    of the cluster; no workspace has more than 8 of them."""
    groups = tuple(group.name for group in spec.groups)
    for name, size in (("datasets", len(spec.datasets)), ("volumes", len(spec.volumes))):
        if size > MAX_DISKS:
            raise FieldInvalid(f"spec.{name}", f"has {size}; at most {MAX_DISKS} are allowed")
    had: Counter[str] = Counter()
    for position, data in enumerate(spec.datasets):
        at = f"spec.datasets[{position}]"
        _check_serial(data.name, f"{at}.name")
        check_image(data.source, f"{at}.source")
        check_disk(data.disk, f"{at}.disk")
        for place, name in enumerate(data.groups):
            if name not in groups:
                raise FieldInvalid(f"{at}.groups[{place}]", unknown("group", name, groups))
        check_unique(data.groups, f"{at}.groups", "")
        for name in data.groups or groups:
            _one_more(had, name, f"{at}.groups")
    check_unique([each.name for each in spec.datasets], "spec.datasets", "name")
    data_names = {each.name for each in spec.datasets}
    for position, volume in enumerate(spec.volumes):
        at = f"spec.volumes[{position}]"
        _check_serial(volume.name, f"{at}.name")
        check_range(volume.size_mib, 1, MAX_DISK_MIB, f"{at}.size_mib", "MiB")
        check_disk(volume.disk, f"{at}.disk")
        if volume.group not in groups:
            raise FieldInvalid(f"{at}.group", unknown("group", volume.group, groups))
        if volume.name in data_names:
            raise FieldInvalid(
                f"{at}.name", f"{volume.name!r} is a data set already; give each another name"
            )
        _one_more(had, volume.group, f"{at}.group")
    check_unique([each.name for each in spec.volumes], "spec.volumes", "name")


def check_disks_of_workspace(disks: Sequence[FurtherDisk], field: str) -> None:
    """Of one workspace of a part: each is of a digest or of a size, under a name of its own."""
    if len(disks) > MAX_FURTHER_DISKS:
        raise FieldInvalid(field, f"has {len(disks)}; at most {MAX_FURTHER_DISKS}")
    for position, each in enumerate(disks):
        at = f"{field}[{position}]"
        _check_serial(each.name, f"{at}.name")
        check_disk(each.disk, f"{at}.disk")
        if not each.image:
            check_range(each.size_mib, 1, MAX_DISK_MIB, f"{at}.size_mib", "MiB")
        elif not is_digest(each.image):
            raise FieldInvalid(f"{at}.image", "must be a digest: `b3:` and 64 hexadecimal digits")
        elif each.size_mib:
            raise FieldInvalid(f"{at}.size_mib", "goes only with a volume; leave it out")
    check_unique([each.name for each in disks], field, "name")


def check_data_size(size_bytes: int, field: str) -> None:
    """A disk is whole sectors."""
    if size_bytes % SECTOR_BYTES:
        raise FieldInvalid(
            field,
            f"has {size_bytes} bytes, and disks are multiples of {SECTOR_BYTES}; put it again "
            f"with zeros at its end, as by `truncate -s %{SECTOR_BYTES}`",
        )


def _check_serial(name: str, field: str) -> None:
    check_label(name, field)
    if len(name) > MAX_SERIAL:
        raise FieldInvalid(
            field,
            f"has {len(name)} characters; at most {MAX_SERIAL} are allowed, for guests know the "
            "disk by it",
        )


def _one_more(had: Counter[str], group: str, field: str) -> None:
    had[group] += 1
    if had[group] > MAX_FURTHER_DISKS:
        raise FieldInvalid(
            field,
            f"gives each workspace of {group!r} more than {MAX_FURTHER_DISKS} data sets and "
            "volumes; join some",
        )
