"""Finding and removing everything of an instance, whoever made it and however that one ended."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from testbed import cgroups
from testbed.places import DISK, NETNS, RUN, Places
from testbed.processes import instance_pids, kill_all, name_of, netns_names


def sweep(places: Places) -> None:
    """Removes it all; nothing there is no error. Guests die with their host."""
    kill_all(places)
    for name in netns_names(places):
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        left = NETNS / name
        if left.exists():
            subprocess.run(["umount", "-l", str(left)], capture_output=True, check=False)
            left.unlink(missing_ok=True)
    kill_all(places)
    for mount in reversed(_mounts(places)):
        subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
    cgroups.remove(places.cgroup_name)
    for folder in (places.disk, places.run):
        shutil.rmtree(folder, ignore_errors=True)
    for parent in (DISK, DISK.parent, RUN):
        _remove_if_empty(parent)
    unmount_if_empty(NETNS)


def unmount_if_empty(names: Path) -> None:
    """Takes away the mount on which `ip` keeps the names of namespaces, which it makes with the
    first of a machine, once no name is on it. A name that comes at this moment keeps it busy."""
    if str(names) in _mount_points() and not any(names.iterdir()):
        subprocess.run(["umount", str(names)], capture_output=True, check=False)
        _remove_if_empty(names)


def leftovers(places: Places) -> list[str]:
    """A line for everything of the instance that exists: processes, namespaces, mounts, files."""
    found = [f"process {pid} {name_of(pid)}" for pid in instance_pids(places)]
    found += [f"netns {name}" for name in netns_names(places)]
    found += [f"mount {mount}" for mount in _mounts(places)]
    found += [f"cgroup {path}" for path in cgroups.find(places.cgroup_name)]
    found += [f"folder {folder}" for folder in (places.run, places.disk) if folder.exists()]
    return found


def known_instances() -> list[str]:
    """Instances of which anything can be found."""
    names = {path.name for parent in (RUN, DISK) if parent.is_dir() for path in parent.iterdir()}
    if NETNS.is_dir():
        parts = [path.name.split("-") for path in NETNS.iterdir()]
        names |= {part[1] for part in parts if part[0] == "it" and 3 <= len(part) <= 4}
    return sorted(name for name in names if _is_instance(name))


def _is_instance(name: str) -> bool:
    try:
        Places(name)
    except ValueError:
        return False
    return True


def _mounts(places: Places) -> list[str]:
    """In the order in which they were made."""
    own = (f"{places.run}/", f"{places.disk}/")
    return [point for point in _mount_points() if point.startswith(own)]


def _mount_points() -> list[str]:
    """Not `Path.is_mount`, which does not see a folder that is bound to itself."""
    return [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
