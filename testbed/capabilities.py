"""What libvirt found out about the emulators, kept so that not every host asks again.

A probe takes seconds of both cores under emulation, and gives the same on all hosts of one
machine. libvirt itself throws away what no longer fits the machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
from pathlib import Path

from testbed.commands import run
from testbed.places import Places

CACHE = Path("/var/cache/intertie/libvirt")
_PROGRAMS = ("libvirtd", "qemu-system-x86_64", "qemu-system-i386")
_INSIDE = Path("cache/qemu/capabilities")
_PROBE_WITHIN_S = 120


def kept() -> Path | None:
    """The folder for this machine as it is now, if it was filled."""
    folder = _folder()
    return folder if folder.is_dir() else None


def give(places: Places, site: str, host: str) -> None:
    """Puts what is kept where the host's libvirt looks for it; before or after it started."""
    if (source := kept()) is not None:
        shutil.copytree(source, places.host_run(site, host) / _INSIDE, dirs_exist_ok=True)


def probe(places: Places, site: str, host: str) -> None:
    """Has one host's libvirt ask the emulators, and keeps the answer."""
    run(
        ["virsh", "-c", places.libvirt_uri(site, host), "capabilities"],
        timeout_s=_PROBE_WITHIN_S,
    )
    fresh = CACHE / f".{places.instance}-{os.getpid()}"
    try:
        shutil.copytree(places.host_run(site, host) / _INSIDE, fresh)
        with contextlib.suppress(OSError):  # another instance was first
            fresh.rename(_folder())
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _folder() -> Path:
    parts = [platform.release(), str(Path("/dev/kvm").exists())]
    for program in _PROGRAMS:
        path = shutil.which(program)
        parts.append(f"{path}:{Path(path).stat().st_ctime_ns if path else 0}")
    return CACHE / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
