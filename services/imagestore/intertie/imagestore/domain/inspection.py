"""What a disk image says of itself. Its bytes come from strangers: everything is bounded."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from intertie.common.errors import FieldInvalid
from intertie.imagestore.domain.image import Format

HEAD_BYTES = 512
"""Enough of the beginning to inspect an image."""
MAX_VIRTUAL_BYTES = 1 << 50
_FIELD = "data"

_QCOW2_MAGIC = b"QFI\xfb"
_OTHERS = {
    b"KDMV": "VMDK",
    b"# Disk DescriptorFile": "VMDK",
    b"vhdxfile": "VHDX",
    b"conectix": "VHD",
    b"QED\0": "QED",
    b"LUKS\xba\xbe": "LUKS",
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"(\xb5/\xfd": "zstd",
    b"BZh": "bzip2",
}
_V2_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_INCOMPATIBLE = struct.Struct(">Q")
_DIRTY, _CORRUPT, _COMPRESSION, _EXTENDED_L2 = 1, 2, 8, 16
_USABLE = _DIRTY | _COMPRESSION | _EXTENDED_L2
"""Features that need nothing but this very file. An external data file is not among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    format: Format
    virtual_size_bytes: int
    """Of the disk that a guest sees."""


def inspect(head: bytes, size_bytes: int) -> Disk:
    """From the first HEAD_BYTES of an image of `size_bytes`; FieldInvalid when it is none."""
    if head.startswith(_QCOW2_MAGIC):
        return _inspect_qcow2(head, size_bytes)
    for magic, kind in _OTHERS.items():
        if head.startswith(magic):
            raise FieldInvalid(_FIELD, f"is {kind}; convert it to raw or qcow2")
    return Disk(format=Format.RAW, virtual_size_bytes=size_bytes)


def _inspect_qcow2(head: bytes, size_bytes: int) -> Disk:
    if len(head) < _V2_HEADER.size or size_bytes < _V2_HEADER.size:
        raise FieldInvalid(_FIELD, "is a qcow2 image cut short")
    (
        _,
        version,
        backing_offset,
        _,
        cluster_bits,
        virtual_bytes,
        encryption,
        l1_entries,
        l1_offset,
        *_,
    ) = _V2_HEADER.unpack_from(head)
    if version not in (2, 3):
        raise FieldInvalid(_FIELD, f"is qcow2 of version {version}; 2 and 3 are known")
    if backing_offset:
        raise FieldInvalid(_FIELD, "has a backing file; flatten it with `qemu-img convert`")
    if encryption:
        raise FieldInvalid(_FIELD, "is encrypted; convert it to a plain qcow2 image")
    if not 9 <= cluster_bits <= 21:
        raise FieldInvalid(_FIELD, f"has clusters of 2^{cluster_bits} bytes; 2^9 to 2^21 are known")
    if version == 3:
        _check_features(head)
    if not 0 < virtual_bytes <= MAX_VIRTUAL_BYTES:
        raise FieldInvalid(_FIELD, f"has a virtual size of {virtual_bytes} bytes")
    # An L1 entry stands for a table of 8-byte entries (16 with extended L2) of one cluster each.
    if l1_offset % (1 << cluster_bits) or l1_offset + 8 * l1_entries > size_bytes:
        raise FieldInvalid(_FIELD, "is a damaged or cut qcow2 image: its table is outside of it")
    if l1_entries << (2 * cluster_bits - 3) < virtual_bytes:
        raise FieldInvalid(_FIELD, "is a damaged qcow2 image: its table is too small for its size")
    return Disk(format=Format.QCOW2, virtual_size_bytes=virtual_bytes)


def _check_features(head: bytes) -> None:
    if len(head) < _V2_HEADER.size + _INCOMPATIBLE.size:
        raise FieldInvalid(_FIELD, "is a qcow2 image cut short")
    [features] = _INCOMPATIBLE.unpack_from(head, _V2_HEADER.size)
    if features & _CORRUPT:
        raise FieldInvalid(_FIELD, "is marked corrupt; repair it with `qemu-img check -r all`")
    if features & ~_USABLE:
        raise FieldInvalid(
            _FIELD, "needs more than its own bytes (external data file, unknown feature)"
        )
