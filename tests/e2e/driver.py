"""Drives a testbed as a user does: through the `intertie` command, and from inside guests."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from testbed.bed import Testbed
from testbed.guest import guest_image
from testbed.topology import HostSpec, SiteSpec, Topology, WanLink

INTERTIE = Path(sys.executable).parent / "intertie"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one command printed, and its exit code."""

    code: int
    out: str
    err: str


@dataclass(slots=True, kw_only=True)
class User:
    """One user of a testbed, at one endpoint."""

    testbed: Testbed
    config: Path
    folder: Path
    key: Path
    endpoint: str = "meta"
    created: list[str] = field(default_factory=list)

    def at(self, endpoint: str) -> User:
        """The same user, asking another service."""
        return User(
            testbed=self.testbed,
            config=self.config,
            folder=self.folder,
            key=self.key,
            endpoint=endpoint,
            created=self.created,
        )

    def argv(self, *args: str) -> list[str]:
        return [str(INTERTIE), "--config", str(self.config), "--endpoint", self.endpoint, *args]

    def say(self, *args: str, timeout_s: float = 180) -> Said:
        """Runs `intertie ...`; a failure is an answer too."""
        ran = subprocess.run(
            self.argv(*args), capture_output=True, text=True, timeout=timeout_s, check=False
        )
        return Said(code=ran.returncode, out=ran.stdout, err=ran.stderr)

    def do(self, *args: str, timeout_s: float = 180) -> str:
        """Runs `intertie ...`, which must succeed; what it wrote to stdout."""
        said = self.say(*args, timeout_s=timeout_s)
        assert said.code == 0, f"intertie {' '.join(args)}: {said.code}\n{said.err}{said.out}"
        return said.out

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def write(self, name: str, spec: dict[str, Any]) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"name": name, **spec}))
        return path

    def create_args(self, name: str, spec: dict[str, Any], *more: str) -> tuple[str, ...]:
        path = self.write(name, spec)
        key = f"{self.key}.pub"
        return ("cluster", "create", "-f", str(path), "--ssh-key", key, *more)

    def create(self, name: str, spec: dict[str, Any], *more: str, wait: bool = True) -> str:
        self.created.append(name)
        args = self.create_args(name, spec, "--wait" if wait else "--no-wait", *more)
        return self.do(*args).strip()

    def show(self, name: str) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.do("cluster", "show", name, "-o", "json"))
        return shown

    def workspaces(self, name: str) -> dict[str, dict[str, Any]]:
        """By label."""
        shown = self.show(name)["workspaces"]
        return {each["name"].rpartition("/")[2]: each for each in shown}

    def delete(self, name: str) -> None:
        self.do("cluster", "delete", name, "--wait")

    def ssh(self, name: str, workspace: str, command: str, *, timeout_s: float = 60) -> Said:
        """Runs a shell command inside a guest."""
        return self.say(
            "cluster", "ssh", name, workspace, "--identity", str(self.key), "--", command,
            timeout_s=timeout_s,
        )  # fmt: skip

    def on_console(self, name: str, workspace: str, command: str, *, within_s: float = 60) -> str:
        """Types a shell command into `intertie cluster console`; what the guest answers there."""
        argv = self.argv("cluster", "console", name, workspace)
        console = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return type_on_console(console, command, within_s=within_s)

    def in_guest(self, name: str, workspace: str, command: str, *, timeout_s: float = 60) -> str:
        said = self.ssh(name, workspace, command, timeout_s=timeout_s)
        assert said.code == 0, f"{workspace}: {command}: {said.code}\n{said.err}{said.out}"
        return said.out


def type_on_console(console: subprocess.Popen[bytes], command: str, *, within_s: float) -> str:
    """What a guest's shell writes in answer to a command that is typed into its serial console,
    which is joined to this process's pipes. The console is left by the end of stdin."""
    assert console.stdin
    assert console.stdout
    # Quotes in the middle: the echo of the line is not mistaken for the marks.
    console.stdin.write(f"echo BEG''IN; {command}; echo EN''D\n".encode())
    console.stdin.flush()
    heard, until = b"", time.monotonic() + within_s
    try:
        while not (found := re.search(rb"BEGIN\r?\n(.*?)END\r?\n", heard, re.S)):
            left_s = until - time.monotonic()
            ready, _, _ = select.select([console.stdout], [], [], max(left_s, 0))
            data = os.read(console.stdout.fileno(), 65536) if ready else b""
            assert data, f"no answer within {within_s} s: {heard!r}"
            heard += data
        console.stdin.close()
        assert console.wait(timeout=30) == 0
    finally:
        console.kill()
        console.wait()
        console.stdout.close()
    return found[1].decode().replace("\r", "")


@contextmanager
def standing(topology: Topology, instance: str) -> Iterator[Testbed]:
    """Up; and nothing of it is left afterwards."""
    testbed = Testbed.create(topology, instance)
    testbed.down()
    testbed.up()
    try:
        yield testbed
    finally:
        testbed.down()
        assert testbed.leftovers() == []


@contextmanager
def settings_added(testbed: Testbed, component: str, text: str) -> Iterator[None]:
    """The service is started anew with these below its settings, and with its own afterwards."""
    service = testbed.component(component)
    path = testbed.places.configs / f"{component.replace('/', '.')}.toml"
    before = path.read_text()
    path.write_text(f"{before}\n{text}\n")
    try:
        service.restart()
        yield
    finally:
        path.write_text(before)
        service.restart()


def meshed(link_mbps: int, **memory_mib: int) -> Topology:
    """Sites with a host each, which is its gateway, and a link between any two of them."""
    sites = tuple(
        SiteSpec(name=name, hosts=(HostSpec(name=f"{name[0]}1", memory_mib=memory, gateway=True),))
        for name, memory in memory_mib.items()
    )
    links = tuple(WanLink(a=a, b=b, mbps=link_mbps) for a, b in combinations(memory_mib, 2))
    return Topology(sites=sites, links=links)


def user_with_image(testbed: Testbed, folder: Path, *, endpoint: str = "meta") -> User:
    """The first user, with a key of their own; every site has the guest image."""
    key = make_key(folder)
    user = User(testbed=testbed, config=testbed.client(), folder=folder, key=key, endpoint=endpoint)
    for site in testbed.topology.sites:
        user.at(site.name).do("image", "put", "intertie-guest", str(guest_image()))
    return user


def put_at_one_site(user: User, site: str, folder: Path, *, data_mib: int) -> None:
    """What no other has: `far`, which boots as the guest image does, and `corpus`, so much data."""
    image, data = folder / "image.qcow2", folder / "corpus"
    subprocess.run(
        ["qemu-img", "convert", "-O", "qcow2", "-o", "cluster_size=2M", str(guest_image()), image],
        check=True,
        timeout=120,
    )  # fmt: skip
    with data.open("wb") as file:
        for _ in range(data_mib):
            file.write(os.urandom(1 << 20))
    user.at(site).do("image", "put", "far", str(image))
    user.at(site).do("image", "put", "corpus", str(data), "--data")


def corpus_bytes(user: User, name: str, workspace: str) -> int:
    """How large the disk is on which a guest has `corpus`."""
    find = 'cd /sys/block; for d in vd*; do [ "$(cat $d/serial)" = corpus ] && echo $d; done; true'
    disk = user.in_guest(name, workspace, find).strip()
    return int(user.in_guest(name, workspace, f"blockdev --getsize64 /dev/{disk}"))


def make_key(folder: Path) -> Path:
    """An ssh key pair for guests, made at run time."""
    path = folder / "id_ed25519"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=30
    )
    return path


def eventually(
    true: Callable[[], Any], *, within_s: float, every_s: float = 0.5, what: str = ""
) -> float:
    """Waits until `true()` is; how long it took. Fails after `within_s`."""
    began = time.monotonic()
    while True:
        if true():
            return time.monotonic() - began
        if time.monotonic() - began > within_s:
            raise AssertionError(f"not within {within_s} s: {what or true}")
        time.sleep(every_s)


def group(
    name: str,
    count: int = 1,
    *,
    sites: list[str] | None = None,
    image: str = "intertie-guest",
    vcpus: int = 1,
    memory_mib: int = 112,
    disk_mib: int = 256,
    max_per_host: int = 0,
    **allocation: Any,
) -> dict[str, Any]:
    """One group of a specification."""
    placement: dict[str, Any] = {"allow_sites": sites} if sites else {}
    if max_per_host:
        placement["max_per_host"] = max_per_host
    return {
        "name": name,
        "count": count,
        "environment": {"image": image},
        "allocation": {
            "vcpus": vcpus,
            "memory_mib": memory_mib,
            "disk_mib": disk_mib,
            **allocation,
        },
        **({"placement": placement} if placement else {}),
    }


def spec(*groups: dict[str, Any], subnet: str = "10.1.0.0/24") -> dict[str, Any]:
    """A cluster of these groups on one network, for an hour."""
    return {
        "groups": list(groups),
        "networks": [{"name": "lan", "subnet": subnet}],
        "lease": {"duration": "1h"},
    }


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
