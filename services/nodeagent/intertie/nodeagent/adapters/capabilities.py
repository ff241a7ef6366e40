"""What this host can do: tried, not assumed."""

import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from intertie.common.names import uid_of
from intertie.nodeagent.adapters.commands import run
from intertie.nodeagent.domain.domain_xml import MIB
from intertie.nodeagent.domain.failures import HostFailure

_DEVICE = "iprobe0"
_PROGRAMS = ("ip", "bridge", "tc", "nft", "qemu-img", "setpriv")
_CGROUPS = Path("/sys/fs/cgroup")
_NET = Path("/sys/class/net")
_CPU = (
    *("vendor_id", "cpu family", "model", "stepping"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"),
)
"""What a processor is, by x86's names and ARM's."""


def missing_programs() -> tuple[str, ...]:
    return tuple(name for name in _PROGRAMS if shutil.which(name) is None)


async def missing_features() -> tuple[str, ...]:
    """A sentence for each thing that guarantees or networks need and the kernel refuses."""
    trials: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
        ("bridges cannot be made", lambda: _link("type bridge")),
        ("VXLAN devices cannot be made", lambda: _link("type vxlan id 1 dstport 47899")),
        ("taps cannot be made", _tap),
        ("ifb devices cannot be made: what guests send is not limited", lambda: _link("type ifb")),
        ("HTB is not there: bandwidth is not guaranteed", _htb),
        ("nftables does not work: guests are not kept from the host", _nft),
    )
    return tuple([sentence for sentence, trial in trials if not await _works(trial)])


async def _works(trial: Callable[[], Awaitable[None]]) -> bool:
    try:
        await trial()
    except (HostFailure, OSError):
        return False
    return True


async def _link(kind: str) -> None:
    await run("ip", "link", "add", _DEVICE, *kind.split())
    await run("ip", "link", "del", _DEVICE)


async def _tap() -> None:
    await run("ip", "tuntap", "add", "dev", _DEVICE, "mode", "tap")
    await run("ip", "link", "del", _DEVICE)


async def _htb() -> None:
    await run("ip", "link", "add", _DEVICE, "type", "bridge")
    try:
        device = ("dev", _DEVICE)
        await run("tc", "qdisc", "add", *device, "root", "handle", "1:", "htb", "default", "1")
        one = ("parent", "1:", "classid", "1:1", "htb", "rate", "1mbit")
        await run("tc", "class", "add", *device, *one)
        match = ("u32", "match", "u32", "0", "0", "at", "32", "flowid", "1:1")
        await run("tc", "filter", "add", *device, "parent", "1:", "protocol", "ip", *match)
    finally:
        await run("ip", "link", "del", _DEVICE)


async def _nft() -> None:
    await run("nft", "add table bridge intertie_probe; delete table bridge intertie_probe")


def cpu_cgroups() -> bool:
    """Whether a cgroup with CPU shares can be made here, as libvirt would for a guest."""
    for folder in (_CGROUPS / "cpu", _CGROUPS / "cpu,cpuacct"):
        if not (folder / "cpu.shares").exists():
            continue
        probe = folder / f"intertie-probe-{os.getpid()}"
        try:
            probe.mkdir()
            probe.rmdir()
        except OSError:
            return False
        return True
    try:
        return "cpu" in (_CGROUPS / "cgroup.controllers").read_text().split()
    except OSError:
        return False


def memory_mib() -> int:
    """From /proc/meminfo: libvirt's own figure was seen to be wrong."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024 // MIB
    raise HostFailure("/proc/meminfo has no MemTotal")


def boot_id() -> str:
    """Another one each time that the machine is started."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def cpu() -> str:
    """Which processors it has; empty where the kernel does not tell."""
    try:
        return cpu_in(Path("/proc/cpuinfo").read_text())
    except OSError:
        return ""


def cpu_in(cpuinfo: str) -> str:
    """Of the first of them: what it is called, and a digest of what it is and can do."""
    first = cpuinfo.strip().split("\n\n", 1)[0]
    lines = (line.partition(":") for line in first.splitlines())
    said = {name.strip(): value.strip() for name, _, value in lines}
    features = sorted((said.get("flags") or said.get("Features") or "").split())
    if not features:
        return ""
    known = [said.get(name, "") for name in _CPU]
    return f"{said.get('model name', '')} {uid_of(*known, *features)}".strip()


def vcpus() -> int:
    return len(os.sched_getaffinity(0))


def mtu(interface: str) -> int:
    try:
        return int((_NET / interface / "mtu").read_text())
    except OSError as error:
        raise HostFailure(f"{interface}: {error.strerror}") from error


def link_mbit_s(interface: str) -> int | None:
    """None where the device does not tell."""
    try:
        speed = int((_NET / interface / "speed").read_text())
    except (OSError, ValueError):
        return None
    return speed if speed > 0 else None
