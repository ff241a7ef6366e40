"""Sends a guest that runs to the libvirt of another host.

By libvirt's own handshake, from libvirt to libvirt, with one difference: the copy stands still when
all of it is there (VIR_MIGRATE_PAUSED). By itself libvirt lets it go on before the source knows,
and the source goes on too where that answer is lost: then there are two.
"""

import xml.etree.ElementTree as ET
from pathlib import Path

import libvirt

from intertie.nodeagent.domain.domain_xml import ROOT_DISK
from intertie.nodeagent.domain.migrating import Route

_FLAGS = (
    libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_NON_SHARED_INC  # the image below its disk is there already
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_PAUSED
)
_MEMORY_WHILE_IT_RUNS = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_AUTO_CONVERGE
"""Under KVM. An emulated guest stands still while its memory is sent, and runs on only while its
disk is: sent while it ran, its kernel fell over after the move now and then (ADR 25)."""

_DOWNTIME_MS = 100
"""In which what is left of its memory is to be sent while it stands still; QEMU's own default is
300. What comes after that, libvirt's handshake and the agents', comes on top."""


def send(domain: libvirt.virDomain, route: Route) -> None:
    """libvirtError where it came to nothing."""
    domain.migrateSetMaxDowntime(_DOWNTIME_MS)
    flags = libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE
    document = there(domain.XMLDesc(flags), here=route.here, there=route.there)
    parameters = {
        libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{route.memory}",
        libvirt.VIR_MIGRATE_PARAM_DISKS_URI: f"unix://{route.disk}",
        libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS: [ROOT_DISK],
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: document,
        libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: document,
        libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: route.mib_s,
    }
    how = _FLAGS | _MEMORY_WHILE_IT_RUNS
    if _is_emulated(document):
        # Its disk is there by then, and leaves its half to the memory.
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = 2 * route.mib_s
        how = _FLAGS
    domain.migrateToURI3(f"qemu+unix:///system?socket={route.libvirt}", parameters, how)


def _is_emulated(document: str) -> bool:
    return ET.fromstring(document).get("type") == "qemu"


def break_off(domain: libvirt.virDomain) -> None:
    try:
        domain.abortJob()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise


def rooted(document: str, data: Path) -> str:
    """The guest as the host has it whose agent's files are in `data`, where it may have been saved
    by another one."""
    disks = ET.fromstring(document).iterfind("devices/disk")
    found = {disk.find("target"): disk.find("source") for disk in disks}
    for target, source in found.items():
        if target is not None and target.get("dev") == ROOT_DISK and source is not None:
            return there(document, here=Path(source.get("file", "")).parent.parent, there=data)
    raise ValueError("it has no root disk")


def there(document: str, *, here: Path, there: Path) -> str:
    """The guest as the other host has it: its files are elsewhere, what is below its disk is for
    that host to find, and the limit of its emulator is set once it runs, as at every start."""
    root = ET.fromstring(document)
    for limit in root.findall("memtune"):
        root.remove(limit)
    for disk in root.iter("disk"):
        for backing in disk.findall("backingStore"):
            disk.remove(backing)
    for element in root.iter():
        for name in ("file", "path"):
            if (path := element.get(name)) and Path(path).is_relative_to(here):
                element.set(name, str(there / Path(path).relative_to(here)))
    return ET.tostring(root, encoding="unicode")
