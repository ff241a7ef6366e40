"""A full disk under a host's pool: its guests wait, what is asked for meanwhile says why it does
not start, nothing is lost, and with room again all goes on by itself."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.bed import Testbed
from testbed.guest import guest_image
from testbed.hosts import agent_data
from testbed.topology import HostSpec, SiteSpec, Topology
from tests.e2e.driver import User, eventually, group, make_key, spec

pytestmark = [pytest.mark.root, pytest.mark.e2e]

INSTANCE = "pool"
MIB = 1 << 20
POOL_MIB = 220
LEFT_MIB = 24
WRITTEN_MIB = 64
READY_WITHIN_S = 240


class Pool:
    """The pool of the one host, on a file system of its own."""

    def __init__(self, testbed: Testbed) -> None:
        self._folder = agent_data(testbed.places, "north", "n1")
        self._filler = self._folder / "filler"
        self._move(testbed)

    def _move(self, testbed: Testbed) -> None:
        daemons = [testbed.component(f"north/n1/{name}") for name in ("libvirtd", "nodeagent")]
        for daemon in reversed(daemons):
            daemon.terminate()
        before = self._folder.with_name("before")
        shutil.copytree(self._folder, before)
        mount = f"mount -t tmpfs -o size={POOL_MIB}m pool {self._folder}"
        subprocess.run(mount.split(), check=True, timeout=30)
        shutil.copytree(before, self._folder, dirs_exist_ok=True)
        for daemon in daemons:
            daemon.start()

    def fill(self) -> None:
        free_mib = shutil.disk_usage(self._folder).free // MIB
        with self._filler.open("wb") as file:
            for _ in range(free_mib - LEFT_MIB):
                file.write(bytes(MIB))

    def free(self) -> None:
        self._filler.unlink()


@pytest.fixture(scope="module")
def testbed() -> Iterator[Testbed]:
    north = SiteSpec(name="north", hosts=(HostSpec(name="n1"),))
    testbed = Testbed.create(Topology(sites=(north,)), INSTANCE)
    testbed.down()
    testbed.up()
    try:
        yield testbed
    finally:
        testbed.down()
        assert testbed.leftovers() == []


@pytest.fixture
def user(testbed: Testbed, tmp_path: Path) -> User:
    folder = tmp_path
    user = User(
        testbed=testbed,
        config=testbed.client(),
        folder=folder,
        key=make_key(folder),
        endpoint="north",
    )
    user.do("image", "put", "intertie-guest", str(guest_image()))
    return user


def workspace(user: User, cluster: str) -> dict[str, Any]:
    [only] = user.show(cluster)["workspaces"]
    found: dict[str, Any] = only
    return found


def runs_and_is_ready(user: User, cluster: str) -> bool:
    seen = workspace(user, cluster)
    return seen["state"] == "RUNNING" and bool(seen["ready"])


def test_guests_wait_for_room_in_a_full_pool_and_go_on(testbed: Testbed, user: User) -> None:
    """A bug: a guest that QEMU had paused for want of room stayed paused for good."""
    pool = Pool(testbed)
    user.create("writes", spec(group("a")))
    [pid] = testbed.guest_pids("north/n1")
    booted = user.in_guest("writes", "a-0", "cat /proc/sys/kernel/random/boot_id")

    pool.fill()
    place = "of=/dev/vda bs=1M seek=80 iflag=fullblock conv=fsync"
    write = f"yes intertie | dd {place} count={WRITTEN_MIB}; echo ended >/run/ended"
    user.in_guest("writes", "a-0", f"nohup sh -c '{write}' >/run/log 2>&1 </dev/null &")
    eventually(
        lambda: workspace(user, "writes")["state"] == "PAUSED",
        within_s=120,
        what="the guest waits",
    )
    eventually(
        lambda: "the host's pool is full" in workspace(user, "writes")["message"],
        within_s=30,
        what="and says why",
    )
    user.create("late", spec(group("b"), subnet="10.2.0.0/24"), wait=False)
    eventually(
        lambda: "No space left on device" in json.dumps(user.show("late")),
        within_s=60,
        what="the second one says why it does not start",
    )
    assert testbed.guest_pids("north/n1") == [pid]

    pool.free()
    for cluster in ("writes", "late"):
        eventually(
            lambda cluster=cluster: runs_and_is_ready(user, cluster),  # type: ignore[misc]
            within_s=READY_WITHIN_S,
            what=f"{cluster} is ready",
        )
    assert pid in testbed.guest_pids("north/n1")
    assert user.in_guest("writes", "a-0", "cat /proc/sys/kernel/random/boot_id") == booted
    eventually(
        lambda: user.ssh("writes", "a-0", "cat /run/ended").out == "ended\n",
        within_s=120,
        what="all is written",
    )
    read = f"echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=1M skip=80 count={WRITTEN_MIB}"
    found = user.in_guest("writes", "a-0", f"{read} 2>/dev/null | md5sum", timeout_s=180)
    size = WRITTEN_MIB * MIB
    wanted = hashlib.md5((b"intertie\n" * (size // 9 + 1))[:size]).hexdigest()
    assert found.split()[0] == wanted
    for cluster in ("writes", "late"):
        user.delete(cluster)
    assert testbed.guest_pids("north/n1") == []
