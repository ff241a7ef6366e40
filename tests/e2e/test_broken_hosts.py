"""Hosts that cannot do what they are asked, and guests that say nothing: the cluster fails as a
whole and says why, nothing of it is left, and once the host is well the same is had."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from testbed.bed import Testbed
from tests.e2e.driver import User, eventually, group, spec

pytestmark = [pytest.mark.root, pytest.mark.e2e]

NORTH = ("north/n1", "north/n2")
FAILS_WITHIN_S = 120
"""20 s of patience, and the attempts before."""
GONE_WITHIN_S = 60


@contextmanager
def useless(bed: Testbed, component: str, program: str) -> Iterator[None]:
    """For this component alone, every call of the program fails."""
    path = str(Path(shutil.which(program) or program).resolve())
    inside = ("nsenter", f"--mount=/proc/{bed.component(component).pid}/ns/mnt", "--")
    subprocess.run([*inside, "mount", "--bind", "/bin/false", path], check=True, timeout=10)
    try:
        yield
    finally:
        subprocess.run([*inside, "umount", path], check=True, timeout=10)


def guests(user: User) -> list[int]:
    places = (*NORTH, "south/s1", "south/s2")
    return [pid for place in places for pid in user.testbed.guest_pids(place)]


def fails(user: User, name: str, asked: dict[str, Any]) -> str:
    """Creates it, and sees that it is to end; why."""
    user.create(name, asked, wait=False)
    eventually(
        lambda: user.show(name).get("failure"), within_s=FAILS_WITHIN_S, what=f"{name} fails"
    )
    failure = user.show(name)["failure"]
    assert failure["reason"] == "WORKSPACE_FAILED"
    message: str = failure["message"]
    return message


def is_taken_back(user: User, name: str) -> None:
    eventually(
        lambda: user.show(name)["state"] == "FAILED", within_s=GONE_WITHIN_S, what=f"{name} failed"
    )
    assert guests(user) == []


BOTH = spec(group("a", sites=["north"]), group("b", sites=["south"]))


def works(user: User, name: str) -> None:
    user.create(name, BOTH)
    user.delete(name)


@pytest.mark.parametrize(
    ("daemon", "program", "why"),
    [
        pytest.param(
            "libvirtd",
            "qemu-system-x86_64",
            "qemu",
            id="libvirt refuses the guest",
            marks=pytest.mark.more_guests,
        ),
        pytest.param(
            "nodeagent",
            "tc",
            "tc",
            id="traffic control fails",
            marks=pytest.mark.more_guests,
        ),
    ],
)
def test_a_host_that_cannot_fails_the_cluster_with_its_reason(
    user: User, daemon: str, program: str, why: str
) -> None:
    name = f"no-{daemon}"
    with ExitStack() as broken:
        for host in NORTH:
            broken.enter_context(useless(user.testbed, f"{host}/{daemon}", program))
        message = fails(user, name, BOTH)
    is_taken_back(user, name)
    assert message.startswith("north: a-0: ")
    assert why in message.lower()
    works(user, f"yes-{daemon}")


def test_a_guest_that_never_becomes_ready_fails_its_cluster(user: User, tmp_path: Path) -> None:
    silent = tmp_path / "silent.qcow2"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", str(silent), "1M"]
    subprocess.run(argv, check=True, timeout=30)
    image = f"silent-{os.urandom(3).hex()}"
    user.at("south").do("image", "put", image, str(silent))
    mute = group("b", sites=["south"], image=image)
    mute["environment"]["ready_within"] = "5s"
    message = fails(user, "mute", spec(group("a", sites=["north"]), mute))
    is_taken_back(user, "mute")
    assert message == (
        "south: b-0: not ready within 5 s of its start: it wrote nothing to org.intertie.ready.0"
    )
