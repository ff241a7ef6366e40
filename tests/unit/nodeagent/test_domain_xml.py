"""The document that libvirt is given, against golden files."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from intertie.common.terms import DiskTerm, Environment, Readiness
from intertie.common.values import replace
from intertie.nodeagent.domain.domain_xml import (
    domain_xml,
    memory_limit_mib,
    module_xml,
    running_in,
)
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.guest_terms import PlugMemory, Running, terms_of
from intertie.nodeagent.domain.machine import MachineFacts, hypervisor_for, machine_of
from tests.unit.nodeagent.parts import DIGEST, PART, WORKSPACE

GOLDEN = Path(__file__).parents[2] / "golden" / "nodeagent"
FACTS = MachineFacts(hypervisors=("qemu",), architecture="x86_64", disk_cache="none", cgroups=True)
FILES = WorkspaceFiles(Path("/var/lib/intertie/n1"))


@pytest.mark.parametrize("kind", ["qemu", "kvm"])
def test_the_document_is_the_golden_one(kind: str) -> None:
    xml = domain_xml(kind, machine_of(PART, WORKSPACE, FILES, FACTS))
    assert xml == (GOLDEN / f"domain-{kind}.xml").read_text()


def test_every_disk_is_capped_at_its_guarantee_when_no_cap_is_given() -> None:
    disk = DiskTerm(guarantee_iops=70, guarantee_mib_s=3)
    workspace = replace(WORKSPACE, allocation=replace(WORKSPACE.allocation, disk=disk))
    root = ET.fromstring(domain_xml("qemu", machine_of(PART, workspace, FILES, FACTS)))
    assert root.findtext(".//iotune/total_iops_sec") == "70"
    assert root.findtext(".//iotune/total_bytes_sec") == str(3 * 1024 * 1024)


def test_no_disk_is_without_a_cap_the_seed_included() -> None:
    root = ET.fromstring(domain_xml("qemu", machine_of(PART, WORKSPACE, FILES, FACTS)))
    disks = root.findall(".//disk")
    assert [disk.find("target").get("dev") for disk in disks] == ["vda", "vdb"]  # type: ignore[union-attr]
    for disk in disks:
        assert int(disk.findtext("iotune/total_iops_sec", "0")) > 0
        assert int(disk.findtext("iotune/total_bytes_sec", "0")) > 0


def test_a_guest_that_names_no_architecture_gets_the_host_s() -> None:
    facts = replace(FACTS, architecture="aarch64")
    assert machine_of(PART, WORKSPACE, FILES, facts).architecture == "aarch64"


def test_the_guest_agent_has_a_channel_only_where_it_tells_readiness() -> None:
    environment = Environment(image=DIGEST, readiness=Readiness.GUEST_AGENT)
    for workspace, channels in ((WORKSPACE, 1), (replace(WORKSPACE, environment=environment), 2)):
        root = ET.fromstring(domain_xml("qemu", machine_of(PART, workspace, FILES, FACTS)))
        assert len(root.findall(".//channel")) == channels


def test_a_host_without_cgroups_is_asked_for_none() -> None:
    facts = replace(FACTS, cgroups=False)
    root = ET.fromstring(domain_xml("qemu", machine_of(PART, WORKSPACE, FILES, facts)))
    assert root.find("cputune") is None


def test_the_memory_limit_leaves_room_for_the_emulator() -> None:
    assert memory_limit_mib("kvm", 512) > 512
    assert memory_limit_mib("qemu", 512) > memory_limit_mib("kvm", 512)


def test_a_hypervisor_that_is_not_there_is_no_matter_of_time() -> None:
    kvm = replace(WORKSPACE, environment=Environment(image=DIGEST, hypervisor="kvm"))
    with pytest.raises(HostFailure, match="kvm") as failure:
        hypervisor_for(kvm, ("qemu",))
    assert failure.value.final
    assert hypervisor_for(WORKSPACE, ("qemu",)) == "qemu"


@pytest.mark.parametrize("cgroups", [False, True])
def test_what_is_written_for_a_guest_is_read_as_its_terms(cgroups: bool) -> None:
    facts = replace(FACTS, cgroups=cgroups)
    document = domain_xml("qemu", machine_of(PART, WORKSPACE, FILES, facts))
    root = ET.fromstring(document)
    memory = root.find("memory")
    assert memory is not None
    # As libvirt gives it back.
    memory.text, memory.attrib["unit"] = str(512 * 1024), "KiB"
    found = running_in(ET.tostring(root, encoding="unicode"), disk_mib=1024)
    assert found == Running(terms=terms_of(WORKSPACE.allocation, cgroups=cgroups))


def test_a_document_that_no_agent_wrote_is_not_read_as_a_guest_of_nothing() -> None:
    with pytest.raises(HostFailure, match="root disk"):
        running_in("<domain><vcpu>1</vcpu><memory>1</memory></domain>", disk_mib=1)


def test_a_guest_may_grow_only_where_its_site_lets_it() -> None:
    """And one that may not has the very document that it had before there were such guests."""
    for growth, most in ((1, None), (2, "1024"), (4, "2048")):
        facts = replace(FACTS, memory_growth=growth)
        root = ET.fromstring(domain_xml("qemu", machine_of(PART, WORKSPACE, FILES, facts)))
        assert root.findtext("maxMemory") == most
        assert (root.find("cpu/numa/cell") is None) == (most is None)
        assert root.findtext("memory") == "512"


def test_modules_are_read_and_what_the_emulator_is_held_to() -> None:
    document = """<domain><vcpu current="1">2</vcpu><maxMemory slots="16">1048576</maxMemory>
      <memory>786432</memory><devices>
      <disk><target dev="vda"/></disk>
      <memory model="dimm"><target><size unit="KiB">262144</size></target>
      <alias name="dimm0"/></memory>
      <memory model="nvdimm"><target><size unit="KiB">1</size></target></memory>
      </devices></domain>"""
    found = running_in(document, disk_mib=7)
    assert (found.terms.vcpus, found.terms.memory_mib, found.terms.disk_mib) == (1, 768, 7)
    assert (found.most_memory_mib, found.modules) == (1024, (256,))
    assert not found.limit_off, "on a host without cgroups"
    shares = "<cputune><shares>1024</shares></cputune>"
    for limit_mib, off in ((memory_limit_mib("qemu", 768), False), (768 + 1000, True), (0, True)):
        memtune = f"<memtune><hard_limit unit='KiB'>{limit_mib * 1024}</hard_limit></memtune>"
        limited = document.replace("<domain>", f"<domain type='qemu'>{shares}{memtune}")
        assert running_in(limited, disk_mib=7).limit_off is off
    never = limited.replace('model="dimm"', 'model="nvdimm"').replace(memtune, "")
    assert not running_in(never, disk_mib=7).limit_off, "one that was never held is not missed"
    module = ET.fromstring(module_xml(PlugMemory(mib=256, total_mib=768)))
    assert module.findtext("target/size") == "256"
