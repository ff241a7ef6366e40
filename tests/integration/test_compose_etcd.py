"""The etcds of compose.yaml without the containers: started with its settings, only addresses and
folders changed, they make one cluster, and its health check sees how it fares."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from intertie.common.etcd.client import Etcd
from intertie.common.etcd.roles import provision
from intertie.common.settings import EtcdSettings
from testbed.pki import Authority
from tests.integration.etcd_server import free_ports

COMPOSE = Path(__file__).parents[2] / "compose.yaml"
MEMBERS = ("north-etcd-1", "north-etcd-2", "north-etcd-3")
WITHIN_S = 60


class Member:
    """One of the file's services, as a process on loopback."""

    def __init__(self, name: str, service: dict[str, Any], changed: Callable[[str], str]) -> None:
        self.name = name
        settings = {key: changed(value) for key, value in service["environment"].items()}
        self._environment = os.environ | settings
        self._command = service["command"]
        self._check = [changed(word) for word in service["healthcheck"]["test"][1:]]
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def running(self, log: Path) -> Iterator[None]:
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=out, stderr=out
            )
        try:
            yield
        finally:
            self.kill()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def healthy(self) -> bool:
        checked = subprocess.run(self._check, capture_output=True, timeout=30, check=False)
        return checked.returncode == 0


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """As docs/configuration.md has them."""
    folder = tmp_path / "certificates"
    authority = Authority(folder)
    authority.create("etcd authority")
    authority.issue(
        "etcd",
        common_name="etcd",
        spiffe="spiffe://north.site.intertie/etcd",
        dns=("etcd.north.site.intertie", *MEMBERS),
        addresses=("127.0.0.1",),
    )
    authority.issue("root", common_name="root", spiffe="spiffe://north.site.intertie/operator/root")
    authority.roots.rename(folder / "ca.pem")
    return folder


@pytest.fixture
def endpoints() -> list[str]:
    return [f"127.0.0.1:{port}" for port in free_ports(3)]


@pytest.fixture
def members(tmp_path: Path, certificates: Path, endpoints: list[str]) -> Iterator[list[Member]]:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    peers = [f"127.0.0.1:{port}" for port in free_ports(3)]
    with ExitStack() as stack:
        started = []
        for number, name in enumerate(MEMBERS):
            places = {
                **{f"{other}:2379": at for other, at in zip(MEMBERS, endpoints, strict=True)},
                **{f"{other}:2380": at for other, at in zip(MEMBERS, peers, strict=True)},
                "0.0.0.0:2379": endpoints[number],
                "127.0.0.1:2379": endpoints[number],
                "0.0.0.0:2380": peers[number],
                "/etc/etcd/certificates": str(certificates),
                "/var/lib/etcd": str(tmp_path / name),
            }

            def changed(value: str, places: dict[str, str] = places) -> str:
                for old, new in places.items():
                    value = value.replace(old, new)
                return value

            member = Member(name, services[name], changed)
            stack.enter_context(member.running(tmp_path / f"{name}.log"))
            started.append(member)
        yield started


def wait_for(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < end, f"not within {WITHIN_S} s: {what}"
        time.sleep(0.2)


async def test_three_members_are_one_cluster_that_outlives_one(
    members: list[Member], certificates: Path, endpoints: list[str]
) -> None:
    for member in members:
        wait_for(member.healthy, f"{member.name} is healthy")
    settings = EtcdSettings(
        endpoints=tuple(endpoints),
        ca=certificates / "ca.pem",
        certificate=certificates / "root.pem",
        key=certificates / "root.key",
        server_name="etcd.north.site.intertie",
        prefix="/intertie/north",
    )
    root = await Etcd.connect(settings)
    try:
        # Users by their certificates' common names, as the services are known.
        await provision(root, ["n1"])
    finally:
        await root.close()
    assert all(member.healthy() for member in members)

    first, second, third = members
    first.kill()
    assert not first.healthy()
    wait_for(lambda: second.healthy() and third.healthy(), "two members go on")
    second.kill()
    wait_for(lambda: not third.healthy(), "one of three is not enough")
