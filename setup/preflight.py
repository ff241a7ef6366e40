"""Whether this machine can carry Intertie's testbed: facts in, problems out."""

from setup.facts import Facts

_ROOM_MIB = 3072


def problems(facts: Facts) -> list[str]:
    """What stands in the way, each with what to do about it; none means go on."""
    found = []
    if not facts.root:
        found.append(
            "not root: hosts are made of network namespaces and packages are installed. "
            "Run it as root, for instance with sudo."
        )
    if (facts.os_id, facts.os_version) != ("debian", "12"):
        found.append(f"unsupported system: this is {facts.os_name}. Run it on Debian 12.")
    if facts.architecture != "x86_64":
        found.append(
            f"unsupported processor: this is {facts.architecture}, and the guest image is made "
            "of x86_64 packages. Run it on an x86_64 machine."
        )
    if facts.python != (3, 11):
        version = ".".join(map(str, facts.python))
        found.append(f"Python {version} is not the 3.11 of Debian 12: apt-get install python3")
    if not facts.tun_device:
        found.append(
            "no /dev/net/tun: guests cannot be connected. Load it with `modprobe tun`; "
            "in a container, hand the device in (--device /dev/net/tun)."
        )
    if facts.kernel_lacks:
        found.append(
            f"this kernel lacks {', '.join(facts.kernel_lacks)}. Run Debian's own kernel, "
            "or load or enable what is missing."
        )
    if facts.free_disk_mib < _ROOM_MIB:
        found.append(
            f"{facts.free_disk_mib} MiB of disk are free, {_ROOM_MIB} are needed. Make room."
        )
    return found
