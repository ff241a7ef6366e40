"""Puts the guest image at every site of a bench's testbed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from testbed.bed import Testbed
from testbed.guest import guest_image


def put_guest_image(bed: Testbed) -> None:
    """By the command that a user has."""
    intertie = Path(sys.executable).parent / "intertie"
    for site in bed.topology.sites:
        subprocess.run(
            [
                str(intertie), "--config", str(bed.client()), "--endpoint", site.name,
                "image", "put", "intertie-guest", str(guest_image()),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
