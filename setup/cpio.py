"""An archive in cpio's newc format, as the kernel unpacks it at boot.

Written here so that every file belongs to root and has one date, whoever builds, and so that the
same input gives the same bytes.
"""

import stat
from dataclasses import dataclass, field

_DATE = 1_700_000_000


@dataclass(slots=True, kw_only=True)
class Archive:
    """Files by their path in the guest, without the leading slash."""

    entries: dict[str, tuple[int, bytes, tuple[int, int]]] = field(default_factory=dict)
    """Mode, content, and device number for a device node."""

    def add_folder(self, path: str, *, mode: int = 0o755) -> None:
        """The folder and those above it. The first mode a folder got is the one it keeps."""
        head, _, _ = path.rpartition("/")
        if head:
            self.add_folder(head)
        self.entries.setdefault(path, (stat.S_IFDIR | mode, b"", (0, 0)))

    def add_file(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        self._add(path, stat.S_IFREG | mode, content)

    def add_link(self, path: str, target: str) -> None:
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def add_character_device(self, path: str, major: int, minor: int) -> None:
        self._add(path, stat.S_IFCHR | 0o600, b"", (major, minor))

    def _add(self, path: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        head, _, _ = path.rpartition("/")
        if head:
            self.add_folder(head)
        self.entries[path] = (mode, content, device)

    def pack(self) -> bytes:
        """The archive; folders come before what is in them."""
        out = bytearray()
        for number, (path, (mode, content, device)) in enumerate(sorted(self.entries.items()), 1):
            _append(out, number, path, mode, content, device)
        _append(out, 0, "TRAILER!!!", 0, b"", (0, 0))
        out.extend(bytes(-len(out) % 512))
        return bytes(out)


def _append(
    out: bytearray, inode: int, path: str, mode: int, content: bytes, device: tuple[int, int]
) -> None:
    name = path.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, _DATE, len(content), 0, 0, *device, len(name), 0)
    out.extend(b"070701" + b"".join(b"%08X" % value for value in fields) + name)
    out.extend(bytes(-len(out) % 4))
    out.extend(content)
    out.extend(bytes(-len(out) % 4))
