"""How a service is brought to each of its points."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.driver import eventually
from tests.fault.commit.faults import SERVICES
from tests.fault.commit.rig import BLANK, Asked, Rig

STANDS_WITHIN_S = 30.0
REFUSED = ("metasched.before_abort", "metasched.aborted")
PUT = ("imagestore.received", "imagestore.published")
FETCHED = ("imagestore.found", "imagestore.sending")
"""Of an image that nobody has asked for before: brokers remember for a while what is there."""


@contextmanager
def standing(rig: Rig, point: str, folder: Path) -> Iterator[tuple[str, list[Asked]]]:
    """A cluster is being deleted and two are being created, and the service that is named stands
    at the point. Yields it and those three calls, which have come to an end after the block."""
    service = SERVICES[point.partition(".")[0]]
    image = fresh_image(folder) if point in (*PUT, *FETCHED) else None
    if image is not None and point in FETCHED:
        for site in ("north", "south"):
            rig.user.at(site).do("image", "put", image.stem, str(image))
    rig.testbed.arm(service, "metasched.before_begin" if point in REFUSED else point)
    with rig.load(image=image.stem if image and point in FETCHED else BLANK) as asked:
        if point in REFUSED:
            _refused(rig, service, point)
        if image is not None and point in PUT:
            putting = rig.user.at("south").start("image", "put", image.stem, str(image))
        _wait(rig, service, point)
        yield service, asked
    if image is not None and point in PUT:
        putting.communicate(timeout=60)
        rig.user.at("south").do("image", "put", image.stem, str(image))


def _wait(rig: Rig, service: str, point: str) -> None:
    eventually(
        lambda: rig.testbed.stands(service, point),
        within_s=STANDS_WITHIN_S,
        every_s=0.02,
        what=f"{service} stands at {point}",
    )


def _refused(rig: Rig, metasched: str, point: str) -> None:
    """A site that goes away once the plan is made does not answer, and so it ends with an ABORT."""
    broker = rig.testbed.component("south/broker")
    _wait(rig, metasched, "metasched.before_begin")
    broker.kill9()
    rig.testbed.arm(metasched, point)
    rig.testbed.component(metasched).cont()
    _wait(rig, metasched, point)
    broker.start()


def fresh_image(folder: Path) -> Path:
    """One that no host has: its bytes are drawn."""
    raw, image = folder / "raw", folder / f"fresh-{os.urandom(4).hex()}.qcow2"
    raw.write_bytes(os.urandom(2**16) + bytes(2**20 - 2**16))
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(image)]
    subprocess.run(argv, check=True, timeout=30)
    return image
