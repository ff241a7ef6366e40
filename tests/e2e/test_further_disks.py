"""Data sets and volumes, as guests find them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.bed import Testbed
from testbed.topology import HostSpec
from tests.e2e.driver import User, group, spec, user_with_image
from tests.e2e.one_site import SITE, one_site

pytestmark = [pytest.mark.root, pytest.mark.e2e]

HOST = HostSpec(name="n1", memory_mib=1536)
DATA = b"\x1f\x8b" + os.urandom(3 * 1024 * 1024 + 512 - 2)
"""Whole sectors, no whole pages, and by its beginning no image of a disk."""
DIGEST = hashlib.sha256(DATA).hexdigest()
FIND = 'for d in /sys/block/vd*; do [ "$(cat $d/serial)" = {name} ] && echo ${{d##*/}}; done; true'
"""The guest has no udev that would make /dev/disk/by-id."""


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with one_site("disks", HOST) as made:
        yield made


@pytest.fixture(scope="module")
def user(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> User:
    folder = tmp_path_factory.mktemp("further-disks")
    user = user_with_image(bed, folder, endpoint=SITE)
    (folder / "genomes").write_bytes(DATA)
    user.do("image", "put", "--data", "genomes-v2", str(folder / "genomes"))
    return user


def asked(source: str = "genomes-v2") -> dict[str, Any]:
    disk = {"cap_iops": 200, "cap_mib_s": 50}
    return {
        **spec(group("a", 2)),
        "datasets": [{"name": "genomes", "source": source, "disk": disk}],
        "volumes": [
            {
                "name": "scratch",
                "group": "a",
                "size_mib": 64,
                "disk": {"guarantee_iops": 100, **disk},
            }
        ],
    }


def device(user: User, label: str, name: str) -> str:
    return user.in_guest("one", label, FIND.format(name=name)).strip()


def read(user: User, label: str) -> str:
    """The note on its volume."""
    found = f"/dev/{device(user, label, 'scratch')}"
    return user.in_guest("one", label, f"dd if={found} bs=1M skip=9 count=1 | tr -d '\\0'").strip()


def volumes(user: User) -> list[Path]:
    disks = user.testbed.places.host_disk(SITE, HOST.name) / "agent" / "disks"
    return sorted(disks.glob("*.volume-*"))


def test_guests_read_the_data_and_keep_what_they_write_to_their_volumes(user: User) -> None:
    said = user.say(*user.create_args("none", asked("nowhere")))
    assert said.code != 0
    assert "datasets[0].source (line" in said.err
    assert "image nowhere is not at" in said.err

    user.create("one", asked())
    for label in ("a-0", "a-1"):
        data, volume = (device(user, label, name) for name in ("genomes", "scratch"))
        assert user.in_guest("one", label, f"sha256sum </dev/{data}").split()[0] == DIGEST
        about = f"cat /sys/block/{data}/ro /sys/block/{volume}/ro /sys/block/{volume}/size"
        assert user.in_guest("one", label, about).split() == ["1", "0", str(64 * 2048)]
        assert user.ssh("one", label, f"echo x | dd of=/dev/{data} conv=fsync").code != 0
        empty = f"tr -d '\\0' </dev/{volume} | wc -c"
        assert user.in_guest("one", label, empty).strip() == "0"
        user.in_guest(
            "one",
            label,
            f"echo of-{label} | dd of=/dev/{volume} bs=1M seek=9 conv=notrunc,fsync",
        )
    assert len(volumes(user)) == 2
    promised = [each for each in user.show("one")["guarantees"] if each.get("to") == "scratch"]
    assert {(each["from"], each["kind"]) for each in promised} == {
        ("a-0", "DISK_IOPS"),
        ("a-1", "DISK_IOPS"),
    }

    refused = user.say("cluster", "migrate", "one", "a-0")
    assert refused.code != 0
    assert "stays where it is" in refused.err

    for off, on in (("stop", "start"), ("suspend", "resume")):
        user.do("cluster", off, "one")
        user.do("cluster", on, "one", "--wait")
        for label in ("a-0", "a-1"):
            assert read(user, label) == f"of-{label}", f"over {off} and {on}"
            data = device(user, label, "genomes")
            assert user.in_guest("one", label, f"sha256sum </dev/{data}").split()[0] == DIGEST

    user.delete("one")
    assert volumes(user) == []
