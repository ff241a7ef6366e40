"""The same guests as a cluster's, started by bare `virsh`: the peer of a deployment.

Domains, seeds and base images are taken from the cluster while it runs, so that both boot the same
thing; what the peer does not have is everything around it: no admission, no networks, no classes.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from testbed.bed import Testbed

AT_ONCE = 8
WITHIN_S = 300


class GuestNotReady(RuntimeError):
    """A guest did not write to its ready channel in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BareGuest:
    host: str
    """`SITE/HOST`."""
    name: str
    xml: str
    seed: Path
    """A copy that outlives the cluster."""
    base: str


def copies(bed: Testbed, hosts: Iterable[str], folder: Path) -> list[BareGuest]:
    """Of every guest on these hosts."""
    found = []
    for host in hosts:
        for name in _virsh(bed, host, "list", "--name").split():
            xml = _virsh(bed, host, "dumpxml", "--inactive", name)
            disk, seed = _sources(xml)
            kept = folder / f"{name}.iso"
            shutil.copy(seed, kept)
            info = subprocess.run(
                ["qemu-img", "info", "-U", "--output=json", disk],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            base = _backing(info.stdout)
            found.append(BareGuest(host=host, name=name, xml=xml, seed=kept, base=base))
    return found


def seconds_to_ready(bed: Testbed, guests: list[BareGuest]) -> float:
    """All at once, from the making of their overlays until the last has said that it is ready."""
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(max_workers=max(AT_ONCE, len(guests))) as pool:
            list(pool.map(lambda guest: _boot(bed, guest), guests))
        return time.monotonic() - began
    finally:
        for guest in guests:
            _virsh(bed, guest.host, "destroy", guest.name, check=False)
            bed.run(guest.host, ["ip", "link", "del", _tap(guest)])
            for path in _sources(guest.xml):
                Path(path).unlink(missing_ok=True)


def _boot(bed: Testbed, guest: BareGuest) -> None:
    disk, seed = _sources(guest.xml)
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", guest.base, "-F", "qcow2", disk]
    subprocess.run(create, check=True, stdout=subprocess.DEVNULL)
    shutil.copy(guest.seed, seed)
    tap = _tap(guest)
    script = f"ip tuntap add dev {tap} mode tap && ip link set {tap} up"
    made = bed.run(guest.host, ["sh", "-c", script])
    if made.returncode != 0:
        raise RuntimeError(f"{guest.name}: {made.stderr}")
    document = guest.seed.with_suffix(".xml")
    document.write_text(guest.xml)
    _virsh(bed, guest.host, "create", str(document))
    _wait_ready(guest)


def _wait_ready(guest: BareGuest) -> None:
    root = ET.fromstring(guest.xml)
    path = next(
        source.attrib["path"]
        for channel in root.iter("channel")
        if (source := channel.find("source")) is not None
    )
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(WITHIN_S)
        end.connect(path)
        try:
            if end.recv(1):
                return
        except TimeoutError:
            pass
    raise GuestNotReady(guest.name)


def _virsh(bed: Testbed, host: str, *words: str, check: bool = True) -> str:
    argv = ["virsh", "-q", "-c", bed.libvirt_uri(host), *words]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if check and ran.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {ran.stderr.strip()}")
    return ran.stdout


def _sources(xml: str) -> tuple[str, str]:
    """Root disk and seed."""
    root = ET.fromstring(xml)
    files = [
        source.attrib["file"]
        for disk in root.iter("disk")
        if (source := disk.find("source")) is not None
    ]
    return files[0], files[1]


def _tap(guest: BareGuest) -> str:
    root = ET.fromstring(guest.xml)
    return next(
        target.attrib["dev"]
        for interface in root.iter("interface")
        if (target := interface.find("target")) is not None
    )


def _backing(info: str) -> str:
    found: str = json.loads(info)["full-backing-filename"]
    return found
