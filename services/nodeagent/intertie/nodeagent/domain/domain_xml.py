"""libvirt's document of a guest. See https://libvirt.org/formatdomain.html for every element."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.guest import READY_PORT
from intertie.nodeagent.domain.guest_terms import (
    CPU_PERIOD_US,
    MEMORY_SLOTS,
    GuestTerms,
    PlugMemory,
    Running,
)

METADATA = "https://intertie.org/workspace/1"
"""XML namespace of the mark by which an agent knows its own domains."""
STILL = "https://intertie.org/still/1"
"""XML namespace of the mark of a guest that is paused for a change."""

_TCG_CACHE_MIB = 64
"""Translated code of an emulated guest; QEMU's own default is 1 GiB a guest."""
_TCG_CACHE_TO_GROW_MIB = 128
"""Of one that may be given vCPUs while it runs: each comes with a part of the cache that is free.
A guest that boots fills the smaller one."""
_OVERHEAD_MIB = 256
"""QEMU's own memory, beside the guest's."""
_TAKEN_NS = 20_000_000
"""A kernel that brings a vCPU online has it run for longer, and one that does not for none of it;
libvirt counts by 10 ms."""
_SEED_IOPS = 100
_SEED_MIB_S = 8
"""Enough to read a seed, which is small, in a fraction of a second, and no way around the cap."""
MIB = 1024 * 1024
ROOT_DISK, SEED_DISK = "vda", "vdb"
AGENT_PORT = "org.qemu.guest_agent.0"
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    tap: str
    mac: str
    mtu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineDisk:
    """Beside its root disk and its seed."""

    file: str
    serial: str
    data: bool
    """A data set, which is read-only: its octets are the disk's, whatever they look like."""
    cap_iops: int
    """0: no cap."""
    cap_mib_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """All that the document of one guest depends on."""

    name: str
    workspace_uid: str
    part_uid: str
    title: str
    vcpus: int
    memory_mib: int
    disk: str
    disk_cache: str
    """`none` or `writeback`"""
    cap_iops: int
    """0: no cap."""
    cap_mib_s: int
    seed: str
    ready_socket: str
    console_socket: str
    console_log: str
    architecture: str
    nics: tuple[Nic, ...] = ()
    agent_channel: bool = False
    most_memory_mib: int = 0
    """What can be plugged in while it runs, its own included; 0: nothing can."""
    most_vcpus: int = 0
    """As many as it can have while it runs; 0: those that it starts with."""
    disks: tuple[MachineDisk, ...] = ()
    cpu_shares: int | None = None
    """None: libvirt can set neither CPU shares, quotas nor memory limits on this host."""
    cpu_quota_us: int | None = None
    """Of each vCPU."""


def domain_xml(kind: str, machine: Machine) -> str:
    """The document for a host of this hypervisor; KeyError: nobody has written one for it.

    A parser gives back every text as it is in `machine`; HostFailure for one that XML cannot write.
    """
    root = BUILDERS[kind](machine)
    _check_characters(root)
    ET.indent(root)
    # Written as it is, a carriage return is a line's end to a parser.
    return ET.tostring(root, encoding="unicode").replace("\r", "&#13;") + "\n"


def running_in(
    document: str, *, disk_mib: int, vcpu_times_ns: Mapping[int, int] | None = None
) -> Running:
    """What a guest has by libvirt's document of it, live where it runs; the size of its disk, and
    how long each vCPU has run by its number, are none of what the document tells. HostFailure for
    one that no agent wrote."""
    root = ET.fromstring(document)
    vcpu, memory = root.find("vcpu"), root.find("memory")
    disk = root.find(f"devices/disk/target[@dev='{ROOT_DISK}']/..")
    if vcpu is None or memory is None or disk is None:
        raise HostFailure("libvirt's document of a guest lacks its vCPUs, memory or root disk")
    shares, quota = root.findtext("cputune/shares"), root.findtext("cputune/quota")
    terms = GuestTerms(
        vcpus=int(vcpu.get("current") or vcpu.text or 0),
        memory_mib=int(memory.text or 0) // 1024,
        disk_mib=disk_mib,
        cap_iops=int(disk.findtext("iotune/total_iops_sec", "0")),
        cap_mib_s=int(disk.findtext("iotune/total_bytes_sec", "0")) // MIB,
        cpu_shares=int(shares) if shares else None,
        cpu_quota_us=int(quota) if quota else None,
    )
    sizes = root.findall("devices/memory[@model='dimm']/target/size")
    modules = tuple(int(size.text or 0) // 1024 for size in sizes)
    limit_kib = int(root.findtext("memtune/hard_limit", "0"))
    due_kib = limit_in_mib(root, terms.memory_mib) * 1024
    # A host may have no limits for memory: one that was never set is not missed.
    is_held = limit_kib == due_kib if limit_kib or modules else True
    return Running(
        terms=terms,
        limit_off=terms.cpu_shares is not None and not is_held,
        most_memory_mib=int(root.findtext("maxMemory", "0")) // 1024,
        modules=modules,
        stands_still=root.find(f"metadata/{{{STILL}}}still") is not None,
        most_vcpus=int(vcpu.text or 0),
        idle_vcpus=len(_idle(root, vcpu_times_ns or {})),
    )


def _idle(document: ET.Element, times_ns: Mapping[int, int]) -> list[int]:
    """Which vCPUs came after the start and did not run. Those of the start can not be taken out."""
    came = "vcpus/vcpu[@enabled='yes'][@hotpluggable='yes']"
    numbers = [int(each.get("id", "0")) for each in document.findall(came)]
    return [number for number in numbers if times_ns.get(number, 0) < _TAKEN_NS]


def module_xml(change: PlugMemory) -> str:
    """A memory module that is plugged into a guest that runs. libvirt takes no alias twice."""
    module = ET.Element("memory", model="dimm")
    target = ET.SubElement(module, "target")
    _text(target, "size", str(change.mib), unit="MiB")
    _text(target, "node", "0")
    ET.SubElement(module, "alias", name=f"ua-memory-{change.total_mib}")
    return ET.tostring(module, encoding="unicode")


def domain_uuid(workspace_uid: str) -> str:
    """libvirt wants one; the same for the same workspace always (RFC 9562, version 8)."""
    digits = f"{workspace_uid:0>12}"
    return f"696e7465-7274-8965-8000-{digits}"


def code_cache_mib(document: ET.Element) -> int:
    """For translated code, of an emulated guest."""
    return int(document.findtext("features/tcg/tb-cache", "0")) // 1024 or _TCG_CACHE_MIB


def limit_in_mib(document: ET.Element, memory_mib: int) -> int:
    """As `memory_limit_mib`, of the guest of this document with so much memory."""
    return memory_limit_mib(document.get("type", ""), memory_mib, code_cache_mib(document))


def memory_limit_mib(kind: str, memory_mib: int, cache_mib: int = _TCG_CACHE_MIB) -> int:
    """The most that a guest's emulator may take.

    Not in the document: there it would also be a limit on locked memory, which libvirt cannot
    set everywhere.
    """
    return memory_mib + _OVERHEAD_MIB + (cache_mib if kind == "qemu" else 0)


def _check_characters(root: ET.Element) -> None:
    for element in root.iter():
        for text in (element.text or "", *element.attrib.values()):
            if found := _NO_XML.search(text):
                raise HostFailure(
                    f"{element.tag} of the guest's document: it has the character"
                    f" U+{ord(found[0]):04X}, which XML cannot write; choose another name",
                    final=True,
                )


def _qemu(machine: Machine) -> ET.Element:
    root = _full_virtualization("qemu", machine)
    _node(ET.SubElement(root, "cpu", mode="maximum", check="none"), machine)
    tcg = ET.SubElement(_need(root, "features"), "tcg")
    cache_mib = _TCG_CACHE_TO_GROW_MIB if _may_get_vcpus(machine) else _TCG_CACHE_MIB
    _text(tcg, "tb-cache", str(cache_mib), unit="MiB")
    return root


def _kvm(machine: Machine) -> ET.Element:
    root = _full_virtualization("kvm", machine)
    _node(ET.SubElement(root, "cpu", mode="host-passthrough", check="none"), machine)
    return root


BUILDERS: Mapping[str, Callable[[Machine], ET.Element]] = {"kvm": _kvm, "qemu": _qemu}
"""libvirt's domain type to what builds its document, the preferred type first."""


def _full_virtualization(kind: str, machine: Machine) -> ET.Element:
    root = ET.Element("domain", type=kind)
    _text(root, "name", machine.name)
    _text(root, "uuid", domain_uuid(machine.workspace_uid))
    _text(root, "title", machine.title)
    mark = ET.SubElement(ET.SubElement(root, "metadata"), f"{{{METADATA}}}workspace")
    mark.set("uid", machine.workspace_uid)
    mark.set("part", machine.part_uid)
    if machine.most_memory_mib > machine.memory_mib:
        most = str(machine.most_memory_mib)
        _text(root, "maxMemory", most, slots=str(MEMORY_SLOTS), unit="MiB")
    _text(root, "memory", str(machine.memory_mib), unit="MiB")
    if _may_get_vcpus(machine):
        _text(root, "vcpu", str(machine.most_vcpus), current=str(machine.vcpus))
    else:
        _text(root, "vcpu", str(machine.vcpus))
    if machine.cpu_shares is not None:
        tune = ET.SubElement(root, "cputune")
        _text(tune, "shares", str(machine.cpu_shares))
        _text(tune, "period", str(CPU_PERIOD_US))
        _text(tune, "quota", str(machine.cpu_quota_us))
    system = ET.SubElement(root, "os")
    _text(system, "type", "hvm", arch=machine.architecture, machine="pc")
    ET.SubElement(system, "boot", dev="hd")
    features = ET.SubElement(root, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(root, "clock", offset="utc")
    _text(root, "on_poweroff", "destroy")
    _text(root, "on_reboot", "restart")
    _text(root, "on_crash", "destroy")
    devices = ET.SubElement(root, "devices")
    _root_disk(devices, machine)
    _seed_disk(devices, machine)
    for number in range(len(machine.disks)):
        _further_disk(devices, machine, number)
    for nic in machine.nics:
        _nic(devices, nic)
    _serial(devices, machine)
    _channels(devices, machine)
    ET.SubElement(devices, "controller", type="usb", model="none")
    ET.SubElement(devices, "memballoon", model="none")
    rng = ET.SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
    return root


def _may_get_vcpus(machine: Machine) -> bool:
    return machine.most_vcpus > machine.vcpus


def _node(cpu: ET.Element, machine: Machine) -> None:
    """One, with all that the guest starts with: modules are plugged into nodes."""
    if machine.most_memory_mib > machine.memory_mib:
        numa = ET.SubElement(cpu, "numa")
        cpus = f"0-{max(machine.vcpus, machine.most_vcpus) - 1}"
        memory = str(machine.memory_mib)
        ET.SubElement(numa, "cell", id="0", cpus=cpus, memory=memory, unit="MiB")


def _root_disk(devices: ET.Element, machine: Machine) -> None:
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    _driver(disk, "qcow2", machine)
    ET.SubElement(disk, "source", file=machine.disk)
    ET.SubElement(disk, "target", dev=ROOT_DISK, bus="virtio")
    _cap(disk, machine.cap_iops, machine.cap_mib_s)


def _seed_disk(devices: ET.Element, machine: Machine) -> None:
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="raw")
    ET.SubElement(disk, "source", file=machine.seed)
    ET.SubElement(disk, "target", dev=SEED_DISK, bus="virtio")
    _cap(disk, _SEED_IOPS, _SEED_MIB_S)
    ET.SubElement(disk, "readonly")


def further_device(number: int) -> str:
    """What libvirt calls a disk beside the root disk and the seed."""
    return f"vd{chr(ord('c') + number)}"


def _further_disk(devices: ET.Element, machine: Machine, number: int) -> None:
    has = machine.disks[number]
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    _driver(disk, "raw" if has.data else "qcow2", machine)
    ET.SubElement(disk, "source", file=has.file)
    ET.SubElement(disk, "target", dev=further_device(number), bus="virtio")
    _cap(disk, has.cap_iops, has.cap_mib_s)
    if has.data:
        ET.SubElement(disk, "readonly")
    _text(disk, "serial", has.serial)


def _driver(disk: ET.Element, kind: str, machine: Machine) -> None:
    driver = ET.SubElement(disk, "driver", name="qemu", type=kind, cache=machine.disk_cache)
    if machine.disk_cache == "none":
        driver.set("io", "threads")
    driver.set("discard", "unmap")


def _cap(disk: ET.Element, iops: int, mib_s: int) -> None:
    if iops or mib_s:
        tune = ET.SubElement(disk, "iotune")
        if mib_s:
            _text(tune, "total_bytes_sec", str(mib_s * MIB))
        if iops:
            _text(tune, "total_iops_sec", str(iops))


def _nic(devices: ET.Element, nic: Nic) -> None:
    """A tap that is there already: the agent makes it, plugs it in and shapes it."""
    element = ET.SubElement(devices, "interface", type="ethernet")
    ET.SubElement(element, "mac", address=nic.mac)
    ET.SubElement(element, "target", dev=nic.tap, managed="no")
    ET.SubElement(element, "model", type="virtio")
    ET.SubElement(element, "mtu", size=str(nic.mtu))
    ET.SubElement(element, "rom", enabled="no")


def _serial(devices: ET.Element, machine: Machine) -> None:
    serial = ET.SubElement(devices, "serial", type="unix")
    ET.SubElement(serial, "source", mode="bind", path=machine.console_socket)
    ET.SubElement(serial, "log", file=machine.console_log, append="on")
    ET.SubElement(serial, "target", port="0")


def _channels(devices: ET.Element, machine: Machine) -> None:
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "source", mode="bind", path=machine.ready_socket)
    ET.SubElement(channel, "target", type="virtio", name=READY_PORT)
    if machine.agent_channel:
        channel = ET.SubElement(devices, "channel", type="unix")
        ET.SubElement(channel, "source", mode="bind")
        ET.SubElement(channel, "target", type="virtio", name=AGENT_PORT)


def _text(parent: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = text


def _need(root: ET.Element, name: str) -> ET.Element:
    found = root.find(name)
    if found is None:
        raise KeyError(name)
    return found
