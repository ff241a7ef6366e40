"""A Debian system with cloud-init, nothing of it changed for Intertie, as guests of a cluster.

Left out unless `make test-stock` asks for it: the image takes minutes to build, and a guest of it a
minute or more to boot where there is no KVM.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from setup.stock_image import stock_image_path
from tests.e2e.driver import User, eventually, group, spec
from tests.e2e.test_guest_image import cloud_config, seed

pytestmark = [pytest.mark.root, pytest.mark.e2e, pytest.mark.stock, pytest.mark.timeout(1800)]

_MIB = 1024 * 1024
_READY_WITHIN_S = 900
"""Emulated, on two cores, which other guests may want too."""
_FIRMWARE = {"BIOS": (), "UEFI": ("-bios", "/usr/share/ovmf/OVMF.fd")}
_USER_DATA = """#cloud-config
timezone: Europe/Vienna
write_files:
- {path: /etc/motd-of-mine, content: "grüß Gott\\n", permissions: "0640"}
runcmd:
- [sh, -c, "sleep 5; hostname >/var/run-of-mine"]
"""
Recorder = Callable[[str, object], None]


def _stock(name: str, site: str, **environment: Any) -> dict[str, Any]:
    made = group(
        name, sites=[site], image="stock", memory_mib=512, disk_mib=2048,
        disk={"guarantee_iops": 500, "cap_iops": 1000},
    )  # fmt: skip
    made["environment"] |= {"contextualization": {"user_data": _USER_DATA}, **environment}
    return made


@pytest.fixture
def stock(user: User) -> User:
    """The user, with the image at both sites."""
    for site in ("north", "south"):
        user.at(site).do("image", "put", "stock", str(stock_image_path()), timeout_s=600)
    return user


def test_the_image_is_of_a_sane_size() -> None:
    assert stock_image_path().stat().st_size <= 500 * _MIB


def test_guests_over_two_sites_are_what_their_seeds_say(
    stock: User, record_property: Recorder
) -> None:
    """`head` says by itself that it is ready, by default; of `worker` its agent is asked."""
    began = time.monotonic()
    groups = (_stock("head", "north"), _stock("worker", "south", readiness="GUEST_AGENT"))
    stock.create("debian", spec(*groups), wait=False)
    took: dict[str, float] = {}

    def machines() -> dict[str, dict[str, Any]]:
        shown = stock.show("debian")["workspaces"]
        found = {each["name"].rsplit("/", 1)[1]: each for each in shown}
        for name, each in found.items():
            if each["ready"]:
                took.setdefault(name, round(time.monotonic() - began, 1))
        return found

    eventually(
        lambda: machines() and set(took) == {"head-0", "worker-0"},
        within_s=_READY_WITHIN_S,
        every_s=2,
        what="both guests ready",
    )
    assert stock.show("debian")["state"] == "ACTIVE"
    for name, seconds in took.items():
        record_property(f"{name}_ready_after_s", seconds)
        sys.stdout.write(f"{name} ready after {seconds} s\n")

    # Who says so by itself has done everything by then.
    assert stock.in_guest("debian", "head-0", "cat /var/run-of-mine") == "head-0\n"
    # An agent answers as soon as it runs.
    eventually(lambda: stock.ssh("debian", "worker-0", "true").code == 0, within_s=_READY_WITHIN_S)
    stock.in_guest("debian", "worker-0", "cloud-init status --wait", timeout_s=_READY_WITHIN_S)
    found = machines()
    for name, machine in found.items():
        _is_what_its_seed_says(stock, name, machine, found)
    for source, target in (("head-0", "worker-0"), ("worker-0", "head-0")):
        stock.in_guest("debian", source, f"ping -c 2 -W 5 {target}")

    stock.delete("debian")
    assert stock.show("debian")["state"] == "CANCELLED"


def _is_what_its_seed_says(
    user: User, name: str, machine: dict[str, Any], all_machines: dict[str, dict[str, Any]]
) -> None:
    def says(command: str) -> str:
        return user.in_guest("debian", name, command).strip()

    assert says("hostname") == name
    assert says("cat /etc/hostname") == name
    [own] = machine["addresses"]
    link = json.loads(says("ip -json address show up"))
    nics = [each for each in link if each.get("address") == own["mac"]]
    assert [each["operstate"] for each in nics] == ["UP"]
    addresses = {f"{a['local']}/{a['prefixlen']}" for a in nics[0]["addr_info"]}
    assert own["address"] in addresses
    assert nics[0]["mtu"] < 1500
    hosts = says("cat /etc/hosts").splitlines()
    for other, each in all_machines.items():
        address = each["addresses"][0]["address"].partition("/")[0]
        assert any(re.match(rf"{re.escape(address)}\s.*\b{other}\b", line) for line in hosts), other
    key = Path(f"{user.key}.pub").read_text().split()[1]
    assert key in says("cat /root/.ssh/authorized_keys")
    assert says("cat /etc/motd-of-mine; stat -c %a /etc/motd-of-mine") == "grüß Gott\n640"
    assert says("cat /var/run-of-mine") == name
    assert says("date +%Z") in ("CET", "CEST")
    assert says("cloud-init status") == "status: done"
    assert says("systemctl --failed --no-legend --plain") == ""
    # The root file system has grown into the disk that was asked for.
    assert int(says("df --output=size --block-size=1M / | tail -1")) > 1800


@pytest.mark.parametrize("firmware", _FIRMWARE)
def test_it_boots_by(firmware: str, tmp_path: Path, record_property: Recorder) -> None:
    """Under plain QEMU, without any network; ends itself once its user data has been run."""
    overlay, iso = tmp_path / "disk.qcow2", tmp_path / "seed.iso"
    create = f"qemu-img create -q -f qcow2 -F qcow2 -b {stock_image_path()} {overlay}"
    subprocess.run(create.split(), check=True)
    way = "[ -d /sys/firmware/efi ] && echo by-UEFI >/dev/ttyS0 || echo by-BIOS >/dev/ttyS0"
    commands = [way, "hostname >/dev/ttyS0", "poweroff"]
    meta_data = json.dumps({"instance-id": "i-1", "local-hostname": "alone"})
    network = json.dumps({"version": 2, "ethernets": {}})
    iso.write_bytes(seed(meta_data, network, cloud_config({"runcmd": commands})))
    arguments = [
        "-m 512 -machine pc -accel tcg -nodefaults -display none -no-reboot -serial stdio",
        f"-drive file={overlay},if=virtio",
        f"-drive file={iso},if=virtio,format=raw,readonly=on",
    ]
    began = time.monotonic()
    done = subprocess.run(
        ["qemu-system-x86_64", *_FIRMWARE[firmware], *" ".join(arguments).split()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_READY_WITHIN_S,
        check=False,
    )
    took = round(time.monotonic() - began, 1)
    record_property("boot_and_end_s", took)
    sys.stdout.write(f"by {firmware}: booted and ended in {took} s\n")
    said = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert f"by-{firmware}" in said
    assert "alone" in said
