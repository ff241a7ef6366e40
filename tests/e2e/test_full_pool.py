"""A full disk under a host's pool: its guests wait, what is asked for meanwhile is refused with
what is short, nothing is lost, and with room again all goes on by itself."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.bed import Testbed
from testbed.hosts import agent_data
from testbed.topology import HostSpec
from tests.e2e.driver import Said, User, eventually, group, spec, user_with_image
from tests.e2e.one_site import SITE, begin, one_site

pytestmark = [pytest.mark.root, pytest.mark.e2e]

MIB = 1 << 20
POOL_MIB = 600
LEFT_MIB = 24
WRITTEN_MIB = 64
READY_WITHIN_S = 240


class Pool:
    """The pool of the one host, on a file system of its own."""

    def __init__(self, bed: Testbed) -> None:
        self._folder = agent_data(bed.places, SITE, "n1")
        self._filler = self._folder / "filler"
        self._move(bed)

    def _move(self, bed: Testbed) -> None:
        daemons = [bed.component(f"north/n1/{name}") for name in ("libvirtd", "nodeagent")]
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
def bed() -> Iterator[Testbed]:
    with one_site("pool", HostSpec(name="n1")) as made:
        yield made


@pytest.fixture(scope="module")
def user(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> User:
    return user_with_image(bed, tmp_path_factory.mktemp("pool"), endpoint=SITE)


def workspace(user: User, cluster: str) -> dict[str, Any]:
    [only] = user.show(cluster)["workspaces"]
    found: dict[str, Any] = only
    return found


def runs_and_is_ready(user: User, cluster: str) -> bool:
    seen = workspace(user, cluster)
    return seen["state"] == "RUNNING" and bool(seen["ready"])


def test_guests_wait_for_room_in_a_full_pool_and_go_on(bed: Testbed, user: User) -> None:
    """A bug: a guest that QEMU had paused for want of room stayed paused for good."""
    pool = Pool(bed)
    user.create("writes", spec(group("a")))
    [pid] = bed.guest_pids("north/n1")
    booted = user.in_guest("writes", "a-0", "cat /proc/sys/kernel/random/boot_id")

    pool.fill()
    place = "of=/dev/vda bs=1M seek=80 iflag=fullblock conv=fsync"
    write = f"yes intertie | dd {place} count={WRITTEN_MIB}; echo ended >/run/ended"
    begin(user, "writes", "a-0", write)
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
    names = (f"late-{number}" for number in itertools.count())
    later = spec(group("b"), subnet="10.2.0.0/24")

    def asked() -> Said:
        """A second cluster, which is not kept."""
        name = next(names)
        said = user.say(*user.create_args(name, later, "--no-wait"))
        if said.code == 0:
            user.delete(name)
        return said

    eventually(
        lambda: "NO_CAPACITY" in (said := asked()).err and "disk" in said.err,
        within_s=60,
        what="a second cluster is refused for want of disk",
    )
    assert bed.guest_pids("north/n1") == [pid]

    pool.free()
    eventually(
        lambda: runs_and_is_ready(user, "writes"), within_s=READY_WITHIN_S, what="the guest goes on"
    )
    assert bed.guest_pids("north/n1") == [pid]
    eventually(lambda: asked().code == 0, within_s=60, what="a second cluster is taken")
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
    user.delete("writes")
    assert bed.guest_pids("north/n1") == []
