"""What images say of themselves, the hostile ones included."""

import struct

import pytest

from intertie.common.errors import FieldInvalid
from intertie.imagestore.domain.image import Format
from intertie.imagestore.domain.inspection import inspect

MIB = 1 << 20


def qcow2(**changed: int) -> bytes:
    fields = {
        "version": 3,
        "backing_offset": 0,
        "backing_size": 0,
        "cluster_bits": 16,
        "size": 64 * MIB,
        "crypt": 0,
        "l1_size": 1,
        "l1_offset": 0x30000,
        "features": 0,
    } | changed
    head = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb",
        fields["version"],
        fields["backing_offset"],
        fields["backing_size"],
        fields["cluster_bits"],
        fields["size"],
        fields["crypt"],
        fields["l1_size"],
        fields["l1_offset"],
        0x10000,
        1,
        0,
        0,
    )
    return (head + struct.pack(">QQQII", fields["features"], 0, 0, 4, 104)).ljust(512, b"\0")


def test_a_qcow2_image_has_the_virtual_size_in_its_header() -> None:
    disk = inspect(qcow2(), 256 * 1024)
    assert (disk.format, disk.virtual_size_bytes) == (Format.QCOW2, 64 * MIB)


@pytest.mark.parametrize("features", [1, 8, 16])
def test_features_that_need_no_other_file_are_taken(features: int) -> None:
    assert inspect(qcow2(features=features), 256 * 1024).format is Format.QCOW2


def test_anything_else_is_a_raw_disk_of_its_own_size() -> None:
    disk = inspect(b"\xeb\x63\x90".ljust(512, b"\0"), 10 * MIB)
    assert (disk.format, disk.virtual_size_bytes) == (Format.RAW, 10 * MIB)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"version": 1}, "version 1"),
        ({"backing_offset": 512}, "backing file"),
        ({"crypt": 2}, "encrypted"),
        ({"cluster_bits": 8}, r"2\^8"),
        ({"cluster_bits": 4_000_000_000}, "clusters"),
        ({"size": 0}, "virtual size"),
        ({"size": 1 << 60, "l1_size": 0xFFFFFFFF}, "virtual size"),
        ({"size": 1 << 40}, "too small"),
        ({"l1_offset": 1 << 40}, "outside"),
        ({"l1_offset": 0x30001}, "outside"),
        ({"l1_size": 0xFFFFFFFF}, "outside"),
        ({"features": 2}, "corrupt"),
        ({"features": 4}, "external data file"),
        ({"features": 1 << 40}, "unknown feature"),
    ],
)
def test_a_qcow2_image_that_is_not_safe_is_refused(changed: dict[str, int], says: str) -> None:
    with pytest.raises(FieldInvalid, match=says):
        inspect(qcow2(**changed), 256 * 1024)


@pytest.mark.parametrize("cut", [4, 20, 71, 75])
def test_a_header_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(FieldInvalid, match="cut short"):
        inspect(qcow2()[:cut], cut)


@pytest.mark.parametrize(
    ("magic", "kind"), [(b"KDMV", "VMDK"), (b"vhdxfile", "VHDX"), (b"\x1f\x8b\x08", "gzip")]
)
def test_other_formats_are_named_and_refused(magic: bytes, kind: str) -> None:
    with pytest.raises(FieldInvalid, match=kind):
        inspect(magic.ljust(512, b"\0"), MIB)
