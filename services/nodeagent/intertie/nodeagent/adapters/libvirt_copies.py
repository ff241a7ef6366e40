"""Copies of the disks of guests that run, by libvirt's backup jobs.

QEMU copies what a disk holds at one moment, base image and all, to another file, and keeps what the
guest writes meanwhile apart from it. The guest's own disk stays the file that it was: a job that is
broken off leaves nothing to be put together again.
"""

import contextlib
import json
import xml.etree.ElementTree as ET

import libvirt
import libvirt_qemu
import structlog

from intertie.nodeagent.domain.domain_xml import MIB, ROOT_DISK
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.ports import CopyJob

log = structlog.get_logger(__name__)

_AGENT_S = 5
_TO_A_FILE_THAT_IS_THERE = libvirt.VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL


def begin(domain: libvirt.virDomain, target: str, mib_s: int, *, quiesce: bool) -> bool:
    """Whether its file systems were written out. libvirtError: nothing was begun."""
    quiesced = quiesce and _freeze(domain)
    try:
        domain.backupBegin(_document(target), None, _TO_A_FILE_THAT_IS_THERE)
    finally:
        if quiesced:
            _thaw(domain)
    _slow_down(domain, mib_s)
    return quiesced


def thaw(domain: libvirt.virDomain) -> bool:
    """Whether its agent says that nothing is frozen. libvirtError where it says nothing: it may be
    at something that it was asked for before, to freeze them, say."""
    domain.agentSetResponseTimeout(_AGENT_S)
    domain.fsThaw()
    status = json.dumps({"execute": "guest-fsfreeze-status"})
    said = json.loads(libvirt_qemu.qemuAgentCommand(domain, status, _AGENT_S, 0))
    return bool(said.get("return") == "thawed")


def look(domain: libvirt.virDomain) -> CopyJob:
    """HostFailure of a guest that is off: its job has ended with it."""
    if not domain.isActive():
        raise HostFailure("its guest was switched off while its disk was copied")
    now = domain.jobStats()
    if now.get("type") != libvirt.VIR_DOMAIN_JOB_NONE:
        return CopyJob(
            over=False,
            done_bytes=now.get("disk_processed", 0),
            total_bytes=now.get("disk_total", 0),
        )
    ended = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    if ended.get("operation") != libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP:
        return CopyJob(over=True, problem="nobody knows what became of it")
    if ended.get("type") != libvirt.VIR_DOMAIN_JOB_COMPLETED:
        return CopyJob(over=True, problem=ended.get("errmsg", "it was broken off"))
    size = ended.get("disk_total", 0)
    return CopyJob(over=True, done_bytes=size, total_bytes=size)


def end(domain: libvirt.virDomain) -> None:
    """Of a guest that is off there is nothing to end."""
    if not domain.isActive():
        return
    stats = domain.jobStats()
    if stats.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP:
        with contextlib.suppress(libvirt.libvirtError):  # it may have ended just now
            domain.abortJob()


def _document(target: str) -> str:
    root = ET.Element("domainbackup", mode="push")
    disk = ET.SubElement(ET.SubElement(root, "disks"), "disk", name=ROOT_DISK, type="file")
    ET.SubElement(disk, "driver", type="qcow2")
    ET.SubElement(disk, "target", file=target)
    return ET.tostring(root, encoding="unicode")


def _freeze(domain: libvirt.virDomain) -> bool:
    """False where the guest's agent does not do it: the disk is then as after a power failure."""
    try:
        domain.agentSetResponseTimeout(_AGENT_S)
        domain.fsFreeze()
    except libvirt.libvirtError as error:
        log.info("guest.not_frozen", domain=domain.name(), problem=str(error))
        _thaw(domain)
        return False
    return True


def _thaw(domain: libvirt.virDomain) -> None:
    try:
        domain.fsThaw()
    except libvirt.libvirtError as error:
        log.info("guest.not_thawed", domain=domain.name(), problem=str(error))


def _slow_down(domain: libvirt.virDomain, mib_s: int) -> None:
    """libvirt has no limit for backup jobs, QEMU has."""
    jobs = _monitor(domain, "query-block-jobs")
    for job in jobs:
        if job.get("type") == "backup":
            _monitor(domain, "block-job-set-speed", device=job["device"], speed=mib_s * MIB)


def _monitor(domain: libvirt.virDomain, command: str, **arguments: object) -> list[dict[str, str]]:
    asked = json.dumps({"execute": command, "arguments": arguments})
    try:
        answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, asked, 0))
    except libvirt.libvirtError as error:
        log.warning("guest.copy_unbounded", domain=domain.name(), problem=str(error))
        return []
    found = answer.get("return", [])
    return found if isinstance(found, list) else []
