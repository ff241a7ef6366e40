"""libvirt itself takes the agent's documents: its schema, and its own fake hypervisor."""

from __future__ import annotations

import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from intertie.nodeagent.adapters import libvirt_hypervisor
from intertie.nodeagent.adapters.libvirt_hypervisor import LibvirtHypervisor, offered, state_of
from intertie.nodeagent.domain.domain_xml import BUILDERS, METADATA
from intertie.nodeagent.domain.failures import HypervisorSilent
from intertie.nodeagent.domain.reconcile import DomainState
from tests.unit.nodeagent.parts import A_UID

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "nodeagent").glob("domain-*.xml"))


@pytest.fixture
def connection() -> Iterator[libvirt.virConnect]:
    opened = libvirt.open("test:///default")
    yield opened
    opened.close()


@pytest.mark.parametrize("document", GOLDEN, ids=lambda path: path.stem)
def test_the_document_is_valid_and_nothing_of_it_is_lost(
    connection: libvirt.virConnect, document: Path
) -> None:
    given = document.read_text()
    domain = connection.defineXMLFlags(given, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    kept = ET.fromstring(domain.XMLDesc())
    for path in (
        "cputune/quota",
        "devices/disk/iotune/total_iops_sec",
        "devices/disk/iotune/total_bytes_sec",
        "on_poweroff",
    ):
        assert kept.findtext(path) == ET.fromstring(given).findtext(path) is not None
    caps = [tune.findtext("total_iops_sec") for tune in kept.findall("devices/disk/iotune")]
    assert len(caps) == len(kept.findall("devices/disk"))
    assert all(caps)
    target = kept.find("devices/interface/target")
    assert target is not None
    assert target.attrib == {"dev": f"it{A_UID[:8]}0", "managed": "no"}
    mark = kept.find(f"metadata/{{{METADATA}}}workspace")
    assert mark is not None
    assert mark.get("uid") == A_UID


def test_a_word_that_libvirt_does_not_know_is_refused(connection: libvirt.virConnect) -> None:
    """That it is its schema which says so: the test above could not fail otherwise."""
    wrong = GOLDEN[0].read_text().replace("on_poweroff", "on_powerof")
    with pytest.raises(libvirt.libvirtError):
        connection.defineXMLFlags(wrong, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)


def capabilities(arch: str, *kinds: str) -> str:
    domains = "".join(f"<domain type='{kind}'/>" for kind in kinds)
    return (
        f"<capabilities><host><cpu><arch>{arch}</arch></cpu></host>"
        f"<guest><os_type>hvm</os_type><arch name='{arch}'>{domains}</arch></guest>"
        "<guest><os_type>hvm</os_type><arch name='s390x'><domain type='kvm'/></arch></guest>"
        "</capabilities>"
    )


def test_every_hypervisor_that_has_a_builder_is_offered_in_the_builders_order() -> None:
    """Two were once named in the adapter, and one architecture."""
    found = offered(capabilities("aarch64", *tuple(BUILDERS)[::-1], "exotic"))
    assert found.kinds == tuple(BUILDERS)
    assert found.architecture == "aarch64"
    assert offered(capabilities("x86_64", "qemu")).kinds == ("qemu",)


def test_libvirt_names_its_architecture_where_it_is_looked_for(
    connection: libvirt.virConnect,
) -> None:
    found = offered(connection.getCapabilities())
    assert found.architecture == "i686"
    assert found.kinds == ()


async def test_only_the_agent_s_own_domains_are_seen() -> None:
    """libvirt's fake host has a running domain named `test`, which is none of the agent's."""
    assert await LibvirtHypervisor("test:///default").states() == {}
    assert DomainState.RUNNING in DomainState


def test_a_guest_that_its_disk_paused_is_told_from_one_that_somebody_did() -> None:
    paused = libvirt.VIR_DOMAIN_PAUSED
    assert state_of(paused, libvirt.VIR_DOMAIN_PAUSED_IOERROR) is DomainState.STALLED
    assert state_of(paused, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP) is DomainState.STARTING
    assert state_of(paused, libvirt.VIR_DOMAIN_PAUSED_MIGRATION) is DomainState.IN_TRANSIT
    for reason in (libvirt.VIR_DOMAIN_PAUSED_USER, libvirt.VIR_DOMAIN_PAUSED_WATCHDOG):
        assert state_of(paused, reason) is DomainState.PAUSED


def test_a_guest_that_was_sent_is_told_from_one_that_was_switched_off() -> None:
    off = libvirt.VIR_DOMAIN_SHUTOFF
    assert state_of(off, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED) is DomainState.SENT
    assert state_of(off, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN) is DomainState.POWERED_OFF
    assert state_of(off, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED) is DomainState.OFF
    assert state_of(libvirt.VIR_DOMAIN_SHUTDOWN, 0) is DomainState.ENDING


async def test_a_libvirt_that_is_not_there_is_silence_not_absence(tmp_path: Path) -> None:
    hypervisor = LibvirtHypervisor(f"qemu+unix:///system?socket={tmp_path}/none")
    with pytest.raises(HypervisorSilent):
        await hypervisor.states()


async def test_a_libvirt_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    import socket

    path = tmp_path / "silent"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        uri = f"qemu+unix:///system?socket={path}"
        hypervisor = LibvirtHypervisor(uri, timeout_s=0.2)
        for _ in range(2):
            with pytest.raises(HypervisorSilent):
                await hypervisor.states()


async def test_a_save_that_is_given_up_leaves_the_others_their_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []
    over = threading.Event()
    really_open = libvirt.open

    def noted_open(uri: str) -> libvirt.virConnect:
        opened.append(uri)
        return really_open(uri)

    monkeypatch.setattr(libvirt, "open", noted_open)
    monkeypatch.setattr(libvirt_hypervisor, "_LONG_S", 0.1)
    monkeypatch.setattr(libvirt_hypervisor, "_save", lambda *_: over.wait(30))
    hypervisor = LibvirtHypervisor("test:///default")
    await hypervisor.counters()
    with pytest.raises(HypervisorSilent):
        await hypervisor.save("guest", "/nowhere")
    await hypervisor.counters()
    over.set()
    assert opened.count("test:///default") == 2
