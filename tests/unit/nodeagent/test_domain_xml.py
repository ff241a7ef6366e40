"""The document that libvirt is given, against golden files."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from intertie.common.part_spec import FurtherDisk
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


DISKS = (
    FurtherDisk(name="genomes", image=DIGEST, disk=DiskTerm(cap_iops=200, cap_mib_s=20)),
    FurtherDisk(name="scratch", size_mib=64, disk=DiskTerm(guarantee_iops=90, cap_mib_s=9)),
)


def test_the_document_of_one_with_a_data_set_and_a_volume_is_the_golden_one() -> None:
    workspace = replace(WORKSPACE, disks=DISKS)
    xml = domain_xml("qemu", machine_of(PART, workspace, FILES, FACTS))
    assert xml == (GOLDEN / "domain-qemu-further-disks.xml").read_text()


def test_a_data_set_is_what_it_is_octet_by_octet_and_no_guest_writes_it() -> None:
    root = ET.fromstring(
        domain_xml("qemu", machine_of(PART, replace(WORKSPACE, disks=DISKS), FILES, FACTS))
    )
    data, volume = root.findall(".//disk")[2:]
    for disk, kind, target, serial in (
        (data, "raw", "vdc", "genomes"),
        (volume, "qcow2", "vdd", "scratch"),
    ):
        assert disk.find("driver").get("type") == kind  # type: ignore[union-attr]
        assert disk.find("target").get("dev") == target  # type: ignore[union-attr]
        assert disk.findtext("serial") == serial
        assert int(disk.findtext("iotune/total_iops_sec", "0")) > 0
    assert data.find("readonly") is not None
    assert volume.find("readonly") is None
    files = [disk.find("source").get("file") for disk in (data, volume)]  # type: ignore[union-attr]
    assert files == [str(FILES.image(DIGEST)), str(FILES.volume(WORKSPACE.uid, 1))]


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
    terms = terms_of(WORKSPACE.allocation, cgroups=cgroups)
    assert found == Running(terms=terms, most_vcpus=2)


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


@pytest.mark.parametrize(
    ("kind", "growth", "most"),
    [
        ("kvm", None, "8"),
        ("kvm", 1, None),
        ("kvm", 3, "6"),
        ("kvm", 16, "12"),
        ("qemu", None, "4"),
        ("qemu", 1, None),
        ("qemu", 3, "6"),
    ],
)
def test_a_guest_may_get_vcpus_as_its_site_lets_it_and_by_its_hypervisor_where_it_does_not_say(
    kind: str, growth: int | None, most: str | None
) -> None:
    facts = replace(FACTS, hypervisors=(kind,), vcpu_growth=growth, host_vcpus=12, memory_growth=2)
    root = ET.fromstring(domain_xml(kind, machine_of(PART, WORKSPACE, FILES, facts)))
    vcpu, cell = root.find("vcpu"), root.find("cpu/numa/cell")
    assert vcpu is not None
    assert cell is not None
    assert (vcpu.text, vcpu.get("current")) == ((most, "2") if most else ("2", None))
    assert cell.get("cpus") == f"0-{int(most or 2) - 1}", "each that may come has its memory there"
    cache = {"kvm": None, "qemu": "128" if most else "64"}[kind]
    assert root.findtext("features/tcg/tb-cache") == cache


def test_machines_that_can_be_given_none_are_made_without() -> None:
    facts = replace(FACTS, architecture="aarch64", vcpu_growth=4, host_vcpus=12)
    assert machine_of(PART, WORKSPACE, FILES, facts).most_vcpus == 2


def test_vcpus_that_came_and_did_not_run_are_seen_and_who_is_paused_for_them() -> None:
    document = """<domain type="qemu"><metadata>
      <s:still xmlns:s="https://intertie.org/still/1"/></metadata>
      <vcpu current="3">4</vcpu><memory>524288</memory><vcpus>
      <vcpu id="0" enabled="yes" hotpluggable="no"/>
      <vcpu id="1" enabled="yes" hotpluggable="yes"/>
      <vcpu id="2" enabled="yes" hotpluggable="yes"/>
      <vcpu id="3" enabled="no" hotpluggable="yes"/></vcpus>
      <features><tcg><tb-cache unit="KiB">131072</tb-cache></tcg></features>
      <cputune><shares>3072</shares></cputune>
      <memtune><hard_limit>{limit}</hard_limit></memtune>
      <devices><disk><target dev="vda"/></disk></devices></domain>"""
    limit = memory_limit_mib("qemu", 512) + 64
    whole = document.format(limit=limit * 1024)
    for times, idle in (
        ({}, 2),
        ({0: 0, 1: 30_000_000, 2: 10_000_000}, 1),
        ({1: 10**9, 2: 10**9}, 0),
    ):
        found = running_in(whole, disk_mib=7, vcpu_times_ns=times)
        assert (found.terms.vcpus, found.most_vcpus, found.idle_vcpus) == (3, 4, idle)
    assert found.stands_still
    assert not found.limit_off, "its emulator has a larger cache"
    assert running_in(document.format(limit=(limit - 64) * 1024), disk_mib=7).limit_off
    gone_on = re.sub("<metadata>.*</metadata>", "", whole, flags=re.DOTALL)
    assert not running_in(gone_on, disk_mib=7).stands_still


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
