"""What was promised against what guests measure, on a busy network."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from bench.images import put_guest_image
from bench.report import Row, show
from bench.site import standing
from testbed.bed import Testbed

GUARANTEE_MBIT_S, CAP_MBIT_S, IOPS = 20, 40, 150


def run(quick: bool) -> None:
    """One guest at each of two sites; bandwidth between them both ways, and disk operations."""
    with standing() as bed:
        put_guest_image(bed)
        _run(bed, seconds=4 if quick else 15)


def _run(bed: Testbed, *, seconds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key"
        subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", str(key)], check=True)
        spec = Path(folder) / "spec.yaml"
        spec.write_text(yaml.safe_dump(_spec()))
        _intertie(bed, "cluster", "create", "-f", str(spec), "--ssh-key", f"{key}.pub", "--wait")

        def measure(command: str) -> dict[str, float]:
            ssh = ("cluster", "ssh", "bench", "a-0", "--identity", str(key), "--")
            found: dict[str, float] = json.loads(_intertie(bed, *ssh, command))
            return found

        out = measure(f"measure-bandwidth b-0 {seconds}")["mbit_s"]
        back = measure(f"measure-bandwidth b-0 {seconds} reverse")["mbit_s"]
        iops = measure(f"measure-iops {seconds}")["iops"]
        _intertie(bed, "cluster", "delete", "bench", "--wait")
    promised = f"promised {GUARANTEE_MBIT_S}, cap {CAP_MBIT_S}"
    show(
        "guarantees",
        [
            _row("bandwidth, north to south", out, "Mbit/s", promised, GUARANTEE_MBIT_S),
            _row("bandwidth, south to north", back, "Mbit/s", promised, GUARANTEE_MBIT_S),
            _row("disk operations", iops, "1/s", f"promised {IOPS}, cap {IOPS}", IOPS),
        ],
        {"out_mbit_s": out, "back_mbit_s": back, "iops": iops},
    )


def _row(what: str, value: float, unit: str, against: str, promised: int) -> Row:
    return Row(what=what, value=value, unit=unit, against=against, ratio=value / promised)


def _spec() -> dict[str, object]:
    disk = {"guarantee_iops": IOPS, "cap_iops": IOPS}
    bandwidth = {"guarantee_mbit_s": GUARANTEE_MBIT_S, "cap_mbit_s": CAP_MBIT_S}

    def group(name: str, site: str, **more: object) -> dict[str, object]:
        size = {"vcpus": 1, "memory_mib": 112, "disk_mib": 256, "disk": disk}
        return {
            "name": name,
            "count": 1,
            "environment": {"image": "intertie-guest"},
            "allocation": {**size, **more},
            "placement": {"allow_sites": [site]},
        }

    return {
        "name": "bench",
        "groups": [
            group("a", "north", pairs=[{"group": "b", "bandwidth": bandwidth}]),
            group("b", "south"),
        ],
        "networks": [{"name": "lan", "subnet": "10.1.0.0/24"}],
        "lease": {"duration": "1h"},
    }


def _intertie(bed: Testbed, *args: str) -> str:
    argv = [str(Path(sys.executable).parent / "intertie"), "--config", str(bed.client()), *args]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=300).stdout
