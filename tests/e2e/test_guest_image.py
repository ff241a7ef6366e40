"""The guest image under plain QEMU: size, time to readiness, what the seed makes of it."""

import base64
import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pycdlib
import pytest
import yaml

from setup.guest_image import image_path

pytestmark = pytest.mark.e2e

_MIB = 1024 * 1024
_READY_WITHIN_S = 15.0
_NONCE = "5f0c2a"
_MAC = "52:54:00:0a:00:01"
_SECOND_MAC = "52:54:00:0a:00:02"
_HOSTS = "127.0.0.1 localhost\n10.77.0.1 head-0\n10.77.0.2 worker-0\n"

_META_DATA = {"instance-id": "i-1", "local-hostname": "head-0", "intertie_nonce": _NONCE}
_NETWORK_CONFIG = {
    "version": 2,
    "ethernets": {
        "n1": {"match": {"macaddress": _SECOND_MAC}, "addresses": ["10.78.0.1/24"]},
        "n0": {
            "match": {"macaddress": _MAC.upper()},
            "addresses": ["10.77.0.1/24"],
            "mtu": 1390,
            "routes": [{"to": "10.99.0.0/16", "via": "10.77.0.254"}],
        },
    },
}
_HOSTS_FILE = {
    "path": "/etc/hosts",
    "encoding": "b64",
    "content": base64.b64encode(_HOSTS.encode()).decode(),
}
_USER_DATA = {
    "ssh_authorized_keys": ["ssh-ed25519 AAAAC3Nz owner@example", "ssh-ed25519 BBBB second"],
    "write_files": [
        _HOSTS_FILE,
        {"path": "/opt/a b/note", "content": 'one "two"\n\\three\té\n', "permissions": "0750"},
    ],
    "runcmd": ["echo from-a-line >/run/line", ["sh", "-c", "echo from-a-list >/run/list"]],
}

_VENDOR_DATA = {
    "ssh_authorized_keys": ["ssh-ed25519 CCCC cluster"],
    "write_files": [
        _HOSTS_FILE,
        {"path": "/opt/both", "content": "vendor", "permissions": "0600"},
    ],
    "runcmd": ["echo vendor >>/run/order"],
}
_OWN_DATA = {
    "ssh_authorized_keys": ["ssh-ed25519 DDDD own"],
    "write_files": [{"path": "/opt/both", "content": "user"}],
    "runcmd": ["echo user >>/run/order"],
}


@dataclass(slots=True, kw_only=True)
class Guest:
    """A running guest with its console and what it said of itself."""

    process: subprocess.Popen[bytes]
    console: socket.socket
    monitor: Path
    ready: dict[str, object]
    ready_after_s: float

    def run(self, command: str, *, within_s: float = 30) -> str:
        """What a command prints on the console's shell."""
        self.console.settimeout(within_s)
        self.console.sendall(f"stty -echo; echo BEGIN''; {command}; echo END''\n".encode())
        said = b""
        while b"END\r\n" not in said:
            chunk = self.console.recv(65536)
            assert chunk, "the console was closed"
            said += chunk
        text = said.decode().replace("\r\n", "\n")
        return text.rpartition("BEGIN\n")[2].partition("END\n")[0]


def seed(
    meta_data: str, network_config: str, user_data: str, vendor_data: str | None = None
) -> bytes:
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, rock_ridge="1.09", vol_ident="cidata")
    files = {"meta-data": meta_data, "network-config": network_config, "user-data": user_data}
    if vendor_data is not None:
        files["vendor-data"] = vendor_data
    for number, (name, text) in enumerate(files.items()):
        content = text.encode()
        iso.add_fp(io.BytesIO(content), len(content), f"/F{number}.;1", rr_name=name)
    out = io.BytesIO()
    iso.write_fp(out)
    iso.close()
    return out.getvalue()


@contextmanager
def booted(
    folder: Path, seed_iso: bytes, *, memory_mib: int = 128, disk_mib: int = 128, iops: int = 0
) -> Iterator[Guest]:
    """A guest on an overlay of the image, once it is ready; it ends with the block."""
    overlay, iso = folder / "disk.qcow2", folder / "seed.iso"
    iso.write_bytes(seed_iso)
    create = f"qemu-img create -q -f qcow2 -F qcow2 -b {image_path()} {overlay} {disk_mib}M"
    subprocess.run(create.split(), check=True)
    sockets = {name: folder / name for name in ("ready", "console", "monitor")}
    arguments = [
        f"-m {memory_mib} -machine q35 -accel tcg -nodefaults -display none",
        f"-drive file={overlay},if=none,id=disk,throttling.iops-total={iops}",
        "-device virtio-blk-pci,drive=disk,bootindex=1",
        f"-drive file={iso},if=none,id=seed,format=raw,readonly=on",
        "-device virtio-blk-pci,drive=seed",
        f"-netdev hubport,hubid=0,id=n0 -device virtio-net-pci,netdev=n0,mac={_MAC}",
        f"-netdev hubport,hubid=0,id=n1 -device virtio-net-pci,netdev=n1,mac={_SECOND_MAC}",
        "-device virtio-serial-pci",
        f"-chardev socket,id=ready,path={sockets['ready']},server=on,wait=off",
        "-device virtserialport,chardev=ready,name=org.intertie.ready.0",
        f"-chardev socket,id=console,path={sockets['console']},server=on,wait=off",
        f"-serial chardev:console -qmp unix:{sockets['monitor']},server=on,wait=off",
    ]
    begin = time.monotonic()
    process = subprocess.Popen(["qemu-system-x86_64", *" ".join(arguments).split()])
    try:
        console = _connect(sockets["console"])
        with _connect(sockets["ready"]) as ready, console:
            ready.settimeout(90)
            line = ready.makefile("rb").readline()
            yield Guest(
                process=process,
                console=console,
                monitor=sockets["monitor"],
                ready=json.loads(line),
                ready_after_s=time.monotonic() - begin,
            )
    finally:
        process.kill()
        process.wait()


def _connect(path: Path) -> socket.socket:
    until = time.monotonic() + 10
    while True:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(path))
        except OSError:
            sock.close()
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return sock


def cloud_config(config: object) -> str:
    return "#cloud-config\n" + json.dumps(config)


def json_seed() -> bytes:
    return seed(json.dumps(_META_DATA), json.dumps(_NETWORK_CONFIG), cloud_config(_USER_DATA))


def two_part_seed(user_data: str) -> bytes:
    """What the user says beside what Intertie says, as a node agent makes it."""
    vendor_data = cloud_config(_VENDOR_DATA)
    return seed(json.dumps(_META_DATA), json.dumps(_NETWORK_CONFIG), user_data, vendor_data)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with booted(tmp_path_factory.mktemp("guest"), json_seed(), iops=300) as guest:
        yield guest


def test_the_image_is_at_most_64_mib() -> None:
    assert image_path().stat().st_size <= 64 * _MIB


def test_the_json_of_the_seed_is_the_yaml_that_cloud_init_reads() -> None:
    assert yaml.safe_load(cloud_config(_USER_DATA)) == _USER_DATA
    assert yaml.safe_load(json.dumps(_NETWORK_CONFIG)) == _NETWORK_CONFIG


def test_a_guest_is_ready_within_15_s(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The best of three counts: other work on the machine only ever adds to it."""
    took: list[float] = []
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with booted(folder, json_seed()) as guest:
            took.append(guest.ready_after_s)
        if took[-1] <= _READY_WITHIN_S:
            break
    record_property("guest_ready_after_s", round(min(took), 1))
    sys.stdout.write(f"guest ready after {min(took):.1f} s\n")
    assert min(took) <= _READY_WITHIN_S


def test_it_is_ready_with_96_mib_of_memory(tmp_path: Path) -> None:
    with booted(tmp_path, json_seed(), memory_mib=96) as guest:
        assert guest.ready["event"] == "ready"


def test_it_says_who_it_is_and_repeats_the_nonce(guest: Guest) -> None:
    assert guest.ready["event"] == "ready"
    assert guest.ready["nonce"] == _NONCE
    assert guest.ready["hostname"] == "head-0"
    assert guest.ready["problems"] == []


def test_interfaces_are_found_by_their_addresses(guest: Guest) -> None:
    said = guest.run("ip -o -4 address show; ip -o link show; ip route")
    devices = {
        mac: next(line.split(": ")[1] for line in said.splitlines() if mac in line)
        for mac in (_MAC, _SECOND_MAC)
    }
    assert f"{devices[_MAC]}    inet 10.77.0.1/24" in said
    assert f"{devices[_SECOND_MAC]}    inet 10.78.0.1/24" in said
    assert f"{devices[_MAC]}: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1390" in said
    assert f"10.99.0.0/16 via 10.77.0.254 dev {devices[_MAC]}" in said


def test_files_keys_and_commands_of_the_user_data(guest: Guest) -> None:
    assert guest.run("cat /etc/hosts") == _HOSTS
    assert guest.run("cat '/opt/a b/note'") == 'one "two"\n\\three\té\n'
    assert guest.run("stat -c %a '/opt/a b/note' /root/.ssh/authorized_keys") == "750\n600\n"
    keys = guest.run("cat /root/.ssh/authorized_keys").splitlines()
    assert keys == _USER_DATA["ssh_authorized_keys"]
    assert guest.run("cat /run/line /run/list") == "from-a-line\nfrom-a-list\n"


def test_names_of_the_hosts_file_are_known(guest: Guest) -> None:
    assert "1 packets received" in guest.run("ping -c 1 -W 5 head-0")


@pytest.mark.parametrize("mode", ["read", "write"])
def test_the_meter_of_iops_reaches_a_throttle_and_sees_it(guest: Guest, mode: str) -> None:
    measured = json.loads(guest.run(f"measure-iops 3 {mode}"))
    assert measured["mode"] == mode
    assert 240 <= measured["iops"] <= 345


@pytest.mark.parametrize(("word", "direction"), [("", "to"), ("reverse", "from")])
def test_the_meter_of_bandwidth(guest: Guest, word: str, direction: str) -> None:
    measured = json.loads(guest.run(f"measure-bandwidth 127.0.0.1 1 {word}"))
    assert measured["direction"] == direction
    assert measured["mbit_s"] > 10


def test_meters_say_why_they_cannot(guest: Guest) -> None:
    assert "error" in json.loads(guest.run("measure-bandwidth 127.0.0.9:x 1"))
    assert "error" in json.loads(guest.run("measure-iops 1 sideways"))


def test_a_seed_that_is_not_json_is_a_problem_and_not_the_end(tmp_path: Path) -> None:
    iso = seed(json.dumps(_META_DATA), "version: 2\n", "#!/bin/sh\necho ran >/run/ran\n")
    with booted(tmp_path, iso, disk_mib=64) as guest:
        assert guest.ready["problems"] == ["network-config is not JSON"]
        assert guest.run("cat /run/ran") == "ran\n"
        assert "no room" in json.loads(guest.run("measure-iops 1"))["error"]


def test_user_data_adds_to_vendor_data_and_has_the_last_word(tmp_path: Path) -> None:
    with booted(tmp_path, two_part_seed(cloud_config(_OWN_DATA))) as guest:
        assert guest.ready["problems"] == []
        assert guest.run("cat /etc/hosts") == _HOSTS
        keys = guest.run("cat /root/.ssh/authorized_keys").splitlines()
        assert keys == ["ssh-ed25519 CCCC cluster", "ssh-ed25519 DDDD own"]
        assert guest.run("cat /opt/both; echo; cat /run/order") == "user\nvendor\nuser\n"


@pytest.mark.parametrize(
    ("user_data", "problems", "ran"),
    [
        ("#!/bin/sh\ncat /etc/hosts >/run/ran\n", [], _HOSTS),
        ("#cloud-config\nruncmd:\n- echo >/run/ran\n", ["user-data is not JSON"], ""),
    ],
    ids=["a script", "YAML"],
)
def test_vendor_data_holds_whatever_the_user_gives(
    tmp_path: Path, user_data: str, problems: list[str], ran: str
) -> None:
    with booted(tmp_path, two_part_seed(user_data)) as guest:
        assert guest.ready["problems"] == problems
        assert guest.run("cat /etc/hosts") == _HOSTS
        assert guest.run("cat /root/.ssh/authorized_keys") == "ssh-ed25519 CCCC cluster\n"
        assert guest.run("cat /run/ran 2>/dev/null") == ran


def test_a_time_zone_is_a_problem_for_it_has_none(tmp_path: Path) -> None:
    vendor_data = cloud_config({"timezone": "Europe/Vienna"})
    iso = seed(json.dumps(_META_DATA), json.dumps(_NETWORK_CONFIG), cloud_config({}), vendor_data)
    with booted(tmp_path, iso) as guest:
        assert guest.ready["problems"] == [
            "timezone Europe/Vienna: this image has no time zones, its clock shows UTC"
        ]
        assert guest.run("date +%Z") == "UTC\n"


def test_the_power_button_ends_it_cleanly(tmp_path: Path) -> None:
    with booted(tmp_path, json_seed()) as guest, _connect(guest.monitor) as monitor:
        for command in ("qmp_capabilities", "system_powerdown"):
            monitor.sendall(json.dumps({"execute": command}).encode())
        assert guest.process.wait(timeout=30) == 0
