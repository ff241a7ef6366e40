"""Whether this machine can carry a testbed; asked before anything is changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_TOOLS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "bridge": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "libvirtd": "libvirt-daemon",
    "virtlogd": "libvirt-daemon",
    "virsh": "libvirt-clients",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "etcd": "etcd-server",
    "etcdctl": "etcd-client",
    "nft": "nftables",
}
"""Command to Debian package."""


class MachineUnfit(RuntimeError):
    """The message says what is missing and what to do about it, a line each."""


def check_machine() -> None:
    problems = []
    if os.geteuid() != 0:
        problems.append("not root: the testbed makes network namespaces; run it as root")
    if not Path("/dev/net/tun").exists():
        problems.append("no /dev/net/tun: guests need it; load the kernel's tun module")
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool) is None})
    if missing:
        problems.append(f"commands are missing: apt-get install {' '.join(missing)}")
    if problems:
        raise MachineUnfit("\n".join(problems))
