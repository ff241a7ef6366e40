"""What libvirt is asked to read of a guest that runs, and to change.

Changes are made to the guest alone, not to its definition: that is written anew before each start.
"""

import xml.etree.ElementTree as ET

import libvirt
import libvirt_qemu
import structlog

from intertie.nodeagent.domain.code_cache import CodeCache, has_room
from intertie.nodeagent.domain.domain_xml import (
    AGENT_PORT,
    MIB,
    ROOT_DISK,
    STILL,
    code_cache_mib,
    limit_in_mib,
    module_xml,
    running_in,
)
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.guest_agent import LIST_VCPUS, bring_online
from intertie.nodeagent.domain.guest_terms import (
    CPU_PERIOD_US,
    CapDisk,
    Change,
    GrowDisk,
    LetGoOn,
    LimitMemory,
    PlugMemory,
    PlugVcpus,
    Running,
    WeighCpu,
)

log = structlog.get_logger(__name__)

AGENT_TIMEOUT_S = 2
_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
_UNLIMITED_KIB = 2**53 - 1
"""VIR_DOMAIN_MEMORY_PARAM_UNLIMITED, for which the binding has no name."""


def read(domain: libvirt.virDomain) -> Running:
    """HostFailure when it neither runs nor is paused, libvirtError when there is no telling."""
    if not domain.isActive():
        raise HostFailure("it does not run")
    capacity, _, _ = domain.blockInfo(ROOT_DISK)
    times_ns = {number: ran_ns for number, _, ran_ns, _ in domain.vcpus()[0]}
    return running_in(domain.XMLDesc(), disk_mib=capacity // MIB, vcpu_times_ns=times_ns)


def take(domain: libvirt.virDomain, change: Change) -> None:
    """libvirtError where it is not done."""
    match change:
        case CapDisk():
            caps = {
                libvirt.VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_IOPS_SEC: change.iops,
                libvirt.VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_BYTES_SEC: change.mib_s * MIB,
            }
            domain.setBlockIoTune(ROOT_DISK, caps, _LIVE)
        case GrowDisk():
            in_bytes = libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
            domain.blockResize(ROOT_DISK, change.mib * MIB, in_bytes)
        case WeighCpu():
            weights = {
                libvirt.VIR_DOMAIN_SCHEDULER_CPU_SHARES: change.shares,
                libvirt.VIR_DOMAIN_SCHEDULER_VCPU_PERIOD: CPU_PERIOD_US,
                libvirt.VIR_DOMAIN_SCHEDULER_VCPU_QUOTA: change.quota_us,
            }
            domain.setSchedulerParametersFlags(weights, _LIVE)
        case PlugMemory():
            _plug(domain, change)
        case PlugVcpus():
            _plug_vcpus(domain, change)
        case LetGoOn():
            _go_on(domain)
        case LimitMemory():
            limit_memory(domain)


def _plug(domain: libvirt.virDomain, change: PlugMemory) -> None:
    """Under a limit libvirt would set one of locked memory as well, which it cannot everywhere."""
    if _limits(ET.fromstring(domain.XMLDesc())):
        _limit(domain, _UNLIMITED_KIB)
    try:
        domain.attachDeviceFlags(module_xml(change), _LIVE)
    finally:
        limit_memory(domain)


def _plug_vcpus(domain: libvirt.virDomain, change: PlugVcpus) -> None:
    """An emulated guest stands still for it: what it runs takes of the cache that they need."""
    document = ET.fromstring(domain.XMLDesc())
    has, most = domain.vcpusFlags(_LIVE), domain.maxVcpus()
    if change.total <= has:
        raise HostFailure(f"it has {has} vCPUs")
    if document.get("type") != "qemu":
        domain.setVcpusFlags(change.total, _LIVE)
        return
    stood_still = domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING
    if not stood_still:
        _mark(domain, "<still/>")
    try:
        if not stood_still:
            domain.suspend()
        said = libvirt_qemu.qemuMonitorCommand(domain, '{"execute": "x-query-jit"}', 0)
        cache = CodeCache(mib=code_cache_mib(document), most_vcpus=most, said=said)
        if not has_room(cache, total=change.total):
            raise HostFailure("its emulator has no room for their code now, and will later")
        domain.setVcpusFlags(change.total, _LIVE)
    finally:
        if not stood_still:
            _go_on(domain)


def _go_on(domain: libvirt.virDomain) -> None:
    if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
        domain.resume()
    _mark(domain, None)


def _mark(domain: libvirt.virDomain, mark: str | None) -> None:
    """For whoever finds it paused: that it is to go on. None: it has."""
    kind, key = libvirt.VIR_DOMAIN_METADATA_ELEMENT, "still" if mark else None
    domain.setMetadata(kind, mark, key, STILL, _LIVE)


def use_vcpus(domain: libvirt.virDomain) -> None:
    """By the guest's agent. HostFailure or libvirtError where none does it."""
    document = ET.fromstring(domain.XMLDesc())
    if document.find(f"devices/channel/target[@name='{AGENT_PORT}'][@state='connected']") is None:
        raise HostFailure("the guest has no agent that answers")
    said = libvirt_qemu.qemuAgentCommand(domain, LIST_VCPUS, AGENT_TIMEOUT_S, 0)
    if command := bring_online(said):
        libvirt_qemu.qemuAgentCommand(domain, command, AGENT_TIMEOUT_S, 0)


def limit_memory(domain: libvirt.virDomain) -> None:
    """Holds its emulator to what goes with its memory, where libvirt manages cgroups."""
    root = ET.fromstring(domain.XMLDesc())
    if _limits(root):
        memory_mib = domain.maxMemory() // 1024
        _limit(domain, limit_in_mib(root, memory_mib) * 1024)


def _limits(document: ET.Element) -> bool:
    return document.find("cputune") is not None


def _limit(domain: libvirt.virDomain, limit_kib: int) -> None:
    try:
        domain.setMemoryParameters({libvirt.VIR_DOMAIN_MEMORY_HARD_LIMIT: limit_kib}, _LIVE)
    except libvirt.libvirtError as error:
        log.warning("guest.no_memory_limit", domain=domain.name(), problem=str(error))
