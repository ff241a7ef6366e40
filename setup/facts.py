"""What this machine is, as far as it matters before anything is changed on it."""

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_OS_RELEASE = Path("/etc/os-release")
_TUN = Path("/dev/net/tun")
_MIB = 1024 * 1024

KERNEL_PROBES = {
    "bridge": "ip link add br0 type bridge",
    "veth": "ip link add v0 type veth peer name v1",
    "VXLAN": "ip link add vx0 type vxlan id 1 dstport 4789 local 127.0.0.1",
    "ifb": "ip link add ifb0 type ifb",
    "HTB": "tc qdisc add dev v0 root handle 1: htb && "
    "tc class add dev v0 parent 1: classid 1:1 htb rate 10mbit",
    "ingress redirection": "tc qdisc add dev v1 ingress && tc filter add dev v1 parent ffff: "
    "protocol all u32 match u32 0 0 action mirred egress redirect dev ifb0",
}
"""What the testbed needs of the kernel, and commands that work only where it is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One machine, before set-up."""

    root: bool
    os_id: str
    os_version: str
    os_name: str
    """As the system calls itself, for messages."""
    architecture: str
    python: tuple[int, int]
    tun_device: bool
    kernel_lacks: tuple[str, ...] | None
    """Names from KERNEL_PROBES; None where the commands to find out are not installed yet."""
    free_disk_mib: int
    """On the file system with less room, of the tree's and the guest image's."""


def probe(tree: Path) -> Facts:
    """Looks at this machine. Changes nothing."""
    release = _os_release(_OS_RELEASE.read_text() if _OS_RELEASE.exists() else "")
    root = os.geteuid() == 0
    return Facts(
        root=root,
        os_id=release.get("ID", ""),
        os_version=release.get("VERSION_ID", ""),
        os_name=release.get("PRETTY_NAME", "an unknown system"),
        architecture=platform.machine(),
        python=(sys.version_info.major, sys.version_info.minor),
        tun_device=_TUN.exists(),
        kernel_lacks=probe_kernel() if root else None,
        free_disk_mib=min(shutil.disk_usage(path).free // _MIB for path in (tree, "/var")),
    )


def probe_kernel() -> tuple[str, ...] | None:
    """Tries each of KERNEL_PROBES in a network namespace that ends with the trial."""
    if not all(shutil.which(tool) for tool in ("ip", "tc", "unshare")):
        return None
    script = "\n".join(f"{{ {way}; }} || echo '{name}'" for name, way in KERNEL_PROBES.items())
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return ("network namespaces",)
    return tuple(done.stdout.splitlines())


def _os_release(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name: value.strip().strip('"') for name, value in pairs}
