"""Puts the guest image at every site of a bench's testbed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from setup.guest_image import image_path
from testbed.bed import Testbed


def put_guest_image(bed: Testbed) -> None:
    """By the command that a user has."""
    intertie = Path(sys.executable).parent / "intertie"
    for site in bed.topology.sites:
        subprocess.run(
            [
                str(intertie), "--config", str(bed.client()), "--endpoint", site.name,
                "image", "put", "intertie-guest", str(image_path()),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
