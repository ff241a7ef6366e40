"""What a run left on this machine: `python3 -m setup.leftovers list > BEFORE`, then
`python3 -m setup.leftovers since BEFORE`, which prints what is new and fails if anything is."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

_OURS = ("qemu-system", "libvirtd", "virtlogd", "etcd", "intertie")
"""How the commands begin that a testbed runs; what else a machine starts meanwhile is not ours."""
_PATIENCE_S = 5
"""For how long something that is just ending may take."""


def inventory() -> set[str]:
    """Network namespaces, interfaces, mounts, folders, cgroups and processes, a line each."""
    return {
        *(f"namespace {path.name}" for path in _children("/run/netns")),
        *(f"interface {path.name}" for path in _children("/sys/class/net")),
        *(f"folder {path}" for path in _children("/run/intertie")),
        *(f"cgroup {path}" for path in _cgroups()),
        *(f"mount {point}" for point in mount_points(Path("/proc/self/mountinfo").read_text())),
        *_processes(),
    }


def left_since(before: set[str], after: set[str]) -> list[str]:
    """What is there now and was not; what has gone is nobody's leftover."""
    return sorted(after - before)


def mount_points(mountinfo: str) -> list[str]:
    return [line.split()[4] for line in mountinfo.splitlines()]


def is_ours(words: list[str]) -> bool:
    """Whether a command line is one that a testbed or a test started."""
    names = (word.rpartition("/")[2] for word in words[:2])
    return any(name.startswith(_OURS) for name in names) or words[1:3] in (
        ["-m", "testbed"],
        ["-m", "testbed.demo"],
        ["-m", "bench"],
    )


def _processes() -> Iterator[str]:
    for path in _children("/proc"):
        if not path.name.isdigit():
            continue
        try:
            words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if is_ours(words):
            yield f"process {path.name} {' '.join(words)[:120].strip()}"


def _cgroups() -> Iterator[Path]:
    top = Path("/sys/fs/cgroup")
    for pattern in ("intertie*", "*/intertie*"):
        yield from (path for path in top.glob(pattern) if path.is_dir())


def _children(folder: str) -> list[Path]:
    path = Path(folder)
    return list(path.iterdir()) if path.is_dir() else []


def main(words: list[str]) -> int:
    if words == ["list"]:
        print("\n".join(sorted(inventory())))
        return 0
    if len(words) != 2 or words[0] != "since":
        print(__doc__, file=sys.stderr)
        return 2
    before = set(Path(words[1]).read_text().splitlines())
    until = time.monotonic() + _PATIENCE_S
    while (left := left_since(before, inventory())) and time.monotonic() < until:
        time.sleep(0.2)
    for line in left:
        print(f"left behind: {line}")
    print(f"left behind: {len(left) or 'nothing'}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
