"""The same guests as a cluster's, started by bare `virsh`: the peer of a deployment.

Domains, seeds and base images are taken from the cluster while it runs, so that both boot the same
thing; what the peer does not have is everything around it: no admission, no networks, no classes.
Its guests have names and files of their own, which no agent takes for its own.
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

WITHIN_S = 300


class GuestNotReady(RuntimeError):
    """A guest did not write to its ready channel in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BareGuest:
    host: str
    """`SITE/HOST`."""
    name: str
    """Of its domain and its tap."""
    folder: Path
    base: str
    size_bytes: int

    @property
    def disk(self) -> Path:
        return self.folder / f"{self.name}.qcow2"

    @property
    def seed(self) -> Path:
        """Copied while the cluster runs: to make it is not what takes time."""
        return self.folder / f"{self.name}.iso"

    @property
    def document(self) -> Path:
        return self.folder / f"{self.name}.xml"

    @property
    def ready_socket(self) -> Path:
        return self.folder / f"{self.name}.ready"


def copies(bed: Testbed, hosts: Iterable[str]) -> list[BareGuest]:
    """Of every guest on these hosts."""
    return [
        _copy(bed, host, name, f"bare{number}")
        for host in hosts
        for number, name in enumerate(_virsh(bed, host, "list", "--name").split())
    ]


def seconds_to_ready(bed: Testbed, guests: list[BareGuest]) -> float:
    """All at once, from the making of their overlays until the last has said that it is ready."""
    try:
        began = time.monotonic()
        with ThreadPoolExecutor(max_workers=len(guests)) as pool:
            list(pool.map(lambda guest: _boot(bed, guest), guests))
        return time.monotonic() - began
    finally:
        for guest in guests:
            _virsh(bed, guest.host, "destroy", guest.name, check=False)
            bed.run(guest.host, ["ip", "link", "del", guest.name])
            shutil.rmtree(guest.folder, ignore_errors=True)


def _copy(bed: Testbed, host: str, original: str, name: str) -> BareGuest:
    root = ET.fromstring(_virsh(bed, host, "dumpxml", "--inactive", original))
    disk, seed = (each.attrib["file"] for each in root.iterfind("devices/disk/source"))
    info = subprocess.run(
        ["qemu-img", "info", "-U", "--output=json", disk],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    about = json.loads(info.stdout)
    site, _, host_name = host.partition("/")
    folder = bed.places.host_disk(site, host_name) / "bare" / name
    folder.mkdir(parents=True, exist_ok=True)
    guest = BareGuest(
        host=host,
        name=name,
        folder=folder,
        base=about["full-backing-filename"],
        size_bytes=about["virtual-size"],
    )
    shutil.copy(seed, guest.seed)
    guest.document.write_text(_renamed(root, guest))
    return guest


def _renamed(root: ET.Element, guest: BareGuest) -> str:
    for tag in ("uuid", "title", "metadata"):
        for each in root.findall(tag):
            root.remove(each)
    _only(root, "name").text = guest.name
    disk, seed = root.iterfind("devices/disk/source")
    disk.set("file", str(guest.disk))
    seed.set("file", str(guest.seed))
    _only(root, "devices/interface/target").set("dev", guest.name)
    _only(root, "devices/channel/source").set("path", str(guest.ready_socket))
    for serial in root.iterfind("devices/serial"):
        _only(serial, "source").set("path", str(guest.folder / f"{guest.name}.tty"))
        _only(serial, "log").set("file", str(guest.folder / f"{guest.name}.log"))
    for console in root.findall("devices/console"):
        _only(root, "devices").remove(console)
    return ET.tostring(root, encoding="unicode")


def _only(root: ET.Element, path: str) -> ET.Element:
    found = root.find(path)
    assert found is not None, f"a guest's domain has no {path}"
    return found


def _boot(bed: Testbed, guest: BareGuest) -> None:
    overlay = ("-f", "qcow2", "-b", guest.base, "-F", "qcow2", str(guest.disk))
    subprocess.run(
        ["qemu-img", "create", "-q", *overlay, str(guest.size_bytes)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    script = f"ip tuntap add dev {guest.name} mode tap && ip link set {guest.name} up"
    made = bed.run(guest.host, ["sh", "-c", script])
    if made.returncode != 0:
        raise RuntimeError(f"{guest.name}: {made.stderr}")
    _virsh(bed, guest.host, "create", str(guest.document))
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(WITHIN_S)
        end.connect(str(guest.ready_socket))
        try:
            said = end.recv(1)
        except TimeoutError:
            said = b""
    if not said:
        raise GuestNotReady(f"{guest.name} on {guest.host}")


def _virsh(bed: Testbed, host: str, *words: str, check: bool = True) -> str:
    argv = ["virsh", "-q", "-c", bed.libvirt_uri(host), *words]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if check and ran.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {ran.stderr.strip()}")
    return ran.stdout
