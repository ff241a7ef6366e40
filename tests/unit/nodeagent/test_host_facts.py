"""What a host says that it has: the lesser of what is found and what its operator allows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from intertie.common.settings import (
    EtcdSettings,
    ListenSettings,
    PeerSettings,
    TlsSettings,
    TrustSettings,
)
from intertie.nodeagent.adapters import capabilities
from intertie.nodeagent.adapters.host_facts import FactsReader
from intertie.nodeagent.domain.ports import Offered
from intertie.nodeagent.domain.report import Capacity, Growth
from intertie.nodeagent.settings import OfferSettings, Settings, UnderlaySettings

ALLOWED = {"vcpus": 8, "memory_mib": 4096, "disk_mib": 20_000, "uplink_mbit_s": 1000}
POOL = {"iops": 5000, "throughput_mib_s": 250}
"""Of the disks: nothing finds out what they can do."""


@dataclass
class Storage:
    free: int

    def free_mib(self) -> int:
        return self.free


def reader(monkeypatch: pytest.MonkeyPatch, found: dict[str, int]) -> FactsReader:
    """Of a host of which so much is found; the link of one without `uplink_mbit_s` does not tell
    its speed."""
    monkeypatch.setattr(capabilities, "vcpus", lambda: found["vcpus"])
    monkeypatch.setattr(capabilities, "memory_mib", lambda: found["memory_mib"])
    monkeypatch.setattr(capabilities, "mtu", lambda interface: 1500)
    monkeypatch.setattr(
        capabilities,
        "link_mbit_s",
        lambda interface: found.get("uplink_mbit_s") if interface == "underlay0" else None,
    )
    key = TlsSettings(certificate=Path("c"), key=Path("k"))
    settings = Settings(
        site="north",
        host="n1",
        data=Path("/data"),
        listen=ListenSettings(addresses=("127.0.0.1:1",)),
        tls=key,
        trust=(TrustSettings(domain="north.site.intertie", roots=Path("r")),),
        etcd=EtcdSettings(endpoints=("127.0.0.1:2379",), prefix="/north"),
        imagestore=PeerSettings(address="127.0.0.1:2", server_name="imagestore"),
        underlay=UnderlaySettings(
            interface="underlay0", address="10.0.0.1", capacity_mbit_s=ALLOWED["uplink_mbit_s"]
        ),
        offer=OfferSettings(
            vcpus=ALLOWED["vcpus"],
            memory_mib=ALLOWED["memory_mib"],
            disk_mib=ALLOWED["disk_mib"],
            pool_iops=POOL["iops"],
            pool_throughput_mib_s=POOL["throughput_mib_s"],
        ),
    )
    storage: Any = Storage(found["disk_mib"])
    offered = Offered(kinds=("qemu",), architecture="x86_64")
    return FactsReader(settings, storage, offered=offered, missing=(), growth=Growth(vcpus=4))


async def told(monkeypatch: pytest.MonkeyPatch, found: dict[str, int]) -> Capacity:
    return (await reader(monkeypatch, found).read()).capacity


async def test_of_what_is_found_above_what_is_allowed_the_allowed_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    more = {amount: 3 * value for amount, value in ALLOWED.items()}
    capacity = await told(monkeypatch, more)
    assert (capacity.vcpus, capacity.memory_mib, capacity.disk_mib) == (8, 4096, 20_000)
    # What the wire carries of payload, beside headers and what is nobody's.
    assert 800 < capacity.uplink_mbit_s < 1000


@pytest.mark.parametrize("amount", ["vcpus", "memory_mib", "disk_mib"])
async def test_what_is_found_below_what_is_allowed_is_told(
    monkeypatch: pytest.MonkeyPatch, amount: str
) -> None:
    most = await told(monkeypatch, ALLOWED)
    scarce = ALLOWED[amount] // 4
    capacity = await told(monkeypatch, {**ALLOWED, amount: scarce})
    assert getattr(capacity, amount) == scarce
    others = {name for name in ALLOWED if name != amount}
    assert all(getattr(capacity, name) == getattr(most, name) for name in others)


async def test_an_uplink_slower_than_is_allowed_counts_and_one_that_does_not_tell_is_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = {**ALLOWED, "uplink_mbit_s": 100}
    assert reader(monkeypatch, slow).uplink_mbit_s() == 100
    assert 80 < (await told(monkeypatch, slow)).uplink_mbit_s < 100
    silent = {name: value for name, value in ALLOWED.items() if name != "uplink_mbit_s"}
    assert reader(monkeypatch, silent).uplink_mbit_s() == 1000
    assert 800 < (await told(monkeypatch, silent)).uplink_mbit_s < 1000


async def test_what_the_pool_can_do_is_told_as_it_is_declared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for found in (ALLOWED, dict.fromkeys(ALLOWED, 1)):
        capacity = await told(monkeypatch, found)
        assert {name: getattr(capacity, name) for name in POOL} == POOL


def test_processors_are_the_same_only_where_they_can_do_the_same() -> None:
    text = """processor\t: 0
vendor_id\t: Some
model name\t: Some CPU 3
stepping\t: 1
cpu MHz\t\t: 2000.1
flags\t\t: fpu vme avx

processor\t: 1
flags\t\t: fpu
"""
    known = capabilities.cpu_in(text)
    assert known.startswith("Some CPU 3 ")
    assert capabilities.cpu_in(text.replace("2000.1", "1200")) == known
    assert capabilities.cpu_in(text.replace("fpu vme avx", "avx vme fpu")) == known
    assert capabilities.cpu_in(text.replace(" avx", "")) != known
    assert capabilities.cpu_in(text.replace("stepping\t: 1", "stepping\t: 2")) != known
    assert capabilities.cpu_in("") == ""
