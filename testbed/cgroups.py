"""A cgroup a host, so that libvirts of several hosts on one machine do not meet in one tree.

Each host gets a folder `it-{instance}/{site}-{host}` below the testbed's own place in every usable
controller; inside the host, that folder is the controller's root. Only cgroup v1 is used: where the
controllers are in v2, CPU shares are not enforced on the testbed and `controllers` says so.

A host has a quota: all that runs on it, guests and daemons, gets together no more processor time
than the host has vCPUs, however many processors the machine has. So a host can be overcommitted.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory")
_ROOT = Path("/sys/fs/cgroup")
_SEARCH_DEPTH = 6
_PERIOD_US = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """One mounted v1 hierarchy and this process's own place in it."""

    controllers: tuple[str, ...]
    mount: Path
    own: Path


def hierarchies(mountinfo: str, own_cgroup: str) -> tuple[Hierarchy, ...]:
    """From the texts of /proc/self/mountinfo and /proc/self/cgroup."""
    places: dict[str, str] = {}
    for line in own_cgroup.splitlines():
        _, names, path = line.split(":", 2)
        places |= dict.fromkeys(names.split(","), path)
    found: dict[Path, Hierarchy] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        mount = Path(before.split(" ")[4])
        if kind != "cgroup" or mount.parent != _ROOT:
            continue
        usable_here = tuple(name for name in CONTROLLERS if name in options.split(","))
        if usable_here:
            own = mount / places.get(usable_here[0], "/").lstrip("/")
            found[mount] = Hierarchy(controllers=usable_here, mount=mount, own=own)
    return tuple(found.values())


def _here() -> tuple[Hierarchy, ...]:
    own = Path("/proc/self")
    return hierarchies((own / "mountinfo").read_text(), (own / "cgroup").read_text())


def usable() -> tuple[Hierarchy, ...]:
    """Those in which this process may make cgroups; tried, not assumed."""
    good = []
    for hierarchy in _here():
        trial = hierarchy.own / f"it-trial-{os.getpid()}"
        with contextlib.suppress(OSError):
            trial.mkdir()
            trial.rmdir()
            good.append(hierarchy)
    return tuple(good)


def controllers() -> tuple[str, ...]:
    return tuple(name for hierarchy in usable() for name in hierarchy.controllers)


def ensure(instance_folder: str, host_folder: str, *, vcpus: int) -> dict[str, Path]:
    """Makes the host's cgroup in every usable hierarchy, with a quota of so many processors: name
    of the mount folder to cgroup."""
    made = {}
    for hierarchy in usable():
        folder = hierarchy.own
        for name in (instance_folder, host_folder):
            parent, folder = folder, folder / name
            folder.mkdir(exist_ok=True)
            if "cpuset" in hierarchy.controllers:
                for knob in ("cpuset.cpus", "cpuset.mems"):
                    (folder / knob).write_text((parent / knob).read_text())
        if "cpu" in hierarchy.controllers:
            (folder / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (folder / "cpu.cfs_quota_us").write_text(str(vcpus * _PERIOD_US))
        made[hierarchy.mount.name] = folder
    return made


def of_guest(instance_folder: str, host_folder: str, domain: str) -> dict[str, Path]:
    """Where libvirt has put a guest that runs: controller to cgroup."""
    return {
        controller: folder
        for hierarchy in usable()
        for controller in hierarchy.controllers
        for folder in (hierarchy.own / instance_folder / host_folder / "machine").glob(
            f"qemu-*-{domain}.libvirt-qemu"
        )
    }


def find(instance_folder: str) -> Iterator[Path]:
    """The instance's cgroups wherever they are: whoever made them may have had another place."""
    for hierarchy in _here():
        base = len(hierarchy.mount.parts)
        for folder, subfolders, _ in os.walk(hierarchy.mount):
            if instance_folder in subfolders:
                yield Path(folder) / instance_folder
            if len(Path(folder).parts) - base >= _SEARCH_DEPTH:
                subfolders.clear()


def remove(instance_folder: str, *, within_s: float = 5) -> None:
    """Empty cgroups only; a dying process may keep one busy for a moment."""
    until = time.monotonic() + within_s
    for top in list(find(instance_folder)):
        while True:
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
            if not top.exists() or time.monotonic() > until:
                break
            time.sleep(0.05)
