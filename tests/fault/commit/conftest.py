"""One testbed for all tests of faults, with a cluster that must outlive them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.e2e.driver import group, spec, standing, user_with_image
from tests.fault.commit.rig import BLANK, INSTANCE, Rig, topology

BOOT = "cat /proc/sys/kernel/random/boot_id"


@pytest.fixture(scope="module")
def _rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with standing(topology(), INSTANCE) as testbed:
        folder = tmp_path_factory.mktemp("fault")
        user = user_with_image(testbed, folder)
        blank = folder / "blank.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", str(blank), "1M"], check=True, timeout=30
        )
        for site in ("north", "south"):
            user.at(site).do("image", "put", BLANK, str(blank))
        rig = Rig(testbed, user)
        user.create("kept", spec(group("a", sites=["north"]), group("b", sites=["south"])))
        rig.settles(time.monotonic())
        # One that comes and goes first: what it leaves for good is no loss of the cases'.
        rig.ready_for_a_case()
        rig.clear()
        rig.old = ""
        rig.baseline = rig.look()
        rig.kept = frozenset(uid for at in rig.baseline.guests.values() for uid in at)
        rig.listings = {host: rig.listing(host) for host in rig.eye.hosts}
        boots = {name: user.in_guest("kept", name, BOOT) for name in ("a-0", "b-0")}
        yield rig
        rig.mend()
        assert {name: user.in_guest("kept", name, BOOT) for name in boots} == boots


@pytest.fixture
def rig(_rig: Rig, request: pytest.FixtureRequest) -> Iterator[Rig]:
    _rig.ready_for_a_case()
    failed = request.session.testsfailed
    yield _rig
    _rig.mend()
    if request.session.testsfailed > failed:
        _rig.old = ""
        _rig.clear()
