"""Whatever text or bytes a user gives, libvirt's document and the guest's seed carry it unchanged,
and nothing in them is there because of it.

100,000 strings of a seeded generator, made of the tricks that XML, YAML, JSON and cloud-init know
and of characters of every plane.
"""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import fields
from io import BytesIO
from itertools import islice
from typing import Any

import pytest
import yaml
from pycdlib import PyCdlib

from intertie.common.part_spec import HostEntry
from intertie.common.terms import Contextualization
from intertie.common.values import replace
from intertie.nodeagent.adapters.pycdlib_seed import seed_image
from intertie.nodeagent.domain.domain_xml import Machine, Nic, domain_xml
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.seed import seed_files
from tests.unit.nodeagent.parts import PART, WORKSPACE

STRINGS = 100_000
TRICKS = (
    "]]>", "<![CDATA[", "<!--", "-->", "&amp;", "&#0;", "&#x41;", "&lt", "&xxe;", "<", ">", "&",
    "<?xml version='1.1'?>", "<!DOCTYPE d [<!ENTITY xxe SYSTEM 'file:///etc/shadow'>]>", "</title>",
    "</domain>", "<devices><disk/></devices>", "<name>other</name>", "xmlns:q=''", "'", '"', "'/>",
    "---", "...", "%YAML 1.1\n---\n", "!!python/object/apply:os.system ['id']", "!!binary |", "&a",
    "*a", "<<: *a", "- ", ": ", "? ", " #", "# ", "|", ">-", "{}", "[", "]", "{a: b}", "~", "null",
    "yes", "0x10", "1_0", "2026-11-30", "\t", "\n", "\r", "\r\n", "\n\n", "\n- runcmd:\n  - id\n",
    "\\", "\\u0041", "\\ud83d\\ude00", "\\\\", "\\x00", "\\n", "\\\n", "@", "`", "%", "=",
    "#cloud-config\n", "#!/bin/sh\n", "## template: jinja\n{{ v1 }}", "#include http://a/", "$(id)",
    "${x}", "MIME-Version: 1.0\n", " ", "  ", "\u00a0", "\u0085", "\u2028", "\u2029", "\ufeff",
    "\ufffd", "\u200b", "\u202e", "ä", "ß", "漢", "😀", "👩‍🚀", "\U0010fffd", "\u007f", "\u0080",
    "\u009f", "e\u0301", "a", "B", "0",
)  # fmt: skip
BEYOND_XML = tuple(map(chr, (0, 1, 8, 0x0B, 0x0C, 0x0E, 0x1B, 0x1F, 0xFFFE, 0xFFFF, 0xD800)))


def strings(seed: int) -> Iterator[str]:
    """Without end, and always the same."""
    draw = random.Random(seed)
    while True:
        pieces = []
        for _ in range(draw.randint(1, 6)):
            if draw.random() < 0.8:
                pieces.append(draw.choice(TRICKS))
            else:
                plane = draw.choice((0x20, 0x80, 0x800, 0xE000, 0x1F300, 0x100000))
                pieces.append(chr(plane + draw.randrange(0x60)))
        yield "".join(pieces)


MACHINE = Machine(
    name="it-a",
    workspace_uid="aaaaaaaaaaaa",
    part_uid="bbbbbbbbbbbb",
    title="harmless",
    vcpus=1,
    memory_mib=128,
    disk="/disk",
    disk_cache="none",
    cap_iops=100,
    cap_mib_s=10,
    seed="/seed",
    ready_socket="/ready",
    console_socket="/console",
    console_log="/log",
    architecture="x86_64",
    nics=(Nic(tap="tap0", mac="02:00:00:00:00:01", mtu=1450),) * 4,
)
TEXTS = tuple(each.name for each in fields(Machine) if each.type in ("str", str))
A_DOCUMENT = len(TEXTS) + 2 * len(MACHINE.nics)


def strange_machine(texts: Iterator[str]) -> Machine:
    """With another text in each place that takes one."""
    nics = tuple(Nic(tap=next(texts), mac=next(texts), mtu=1450) for _ in MACHINE.nics)
    changes: dict[str, Any] = {name: next(texts) for name in TEXTS}
    if changes["disk_cache"] == "none":
        changes["disk_cache"] = "x"
    return replace(MACHINE, nics=nics, **changes)


def carried(root: ET.Element) -> list[str | None]:
    """What stands in the places of `strange_machine`'s texts."""
    mark = root.find("metadata/*")
    disk, seed = root.findall("devices/disk")
    ready = root.find("devices/channel/source")
    serial = root.find("devices/serial")
    assert mark is not None
    assert ready is not None
    assert serial is not None
    found: list[str | None] = []
    for nic in root.findall("devices/interface"):
        found += [nic.find("target").get("dev"), nic.find("mac").get("address")]  # type: ignore[union-attr]
    by_name = {
        "name": root.findtext("name"),
        "workspace_uid": mark.get("uid"),
        "part_uid": mark.get("part"),
        "title": root.findtext("title"),
        "disk": disk.find("source").get("file"),  # type: ignore[union-attr]
        "disk_cache": disk.find("driver").get("cache"),  # type: ignore[union-attr]
        "seed": seed.find("source").get("file"),  # type: ignore[union-attr]
        "ready_socket": ready.get("path"),
        "console_socket": serial.find("source").get("path"),  # type: ignore[union-attr]
        "console_log": serial.find("log").get("file"),  # type: ignore[union-attr]
        "architecture": root.find("os/type").get("arch"),  # type: ignore[union-attr]
    }
    assert set(by_name) == set(TEXTS)
    return [*found, *(by_name[name] for name in TEXTS)]


def shape(root: ET.Element) -> list[tuple[str, tuple[str, ...]]]:
    """Every node, in order, with the names of its attributes."""
    return [(each.tag, tuple(each.attrib)) for each in root.iter()]


def test_libvirt_s_document_carries_every_text_and_gains_no_node() -> None:
    harmless = shape(ET.fromstring(domain_xml("qemu", replace(MACHINE, disk_cache="x"))))
    texts, seen = strings(1), 0
    while seen < STRINGS:
        given = list(islice(texts, A_DOCUMENT))
        machine = strange_machine(iter(given))
        root = ET.fromstring(domain_xml("qemu", machine))
        assert shape(root) == harmless
        assert carried(root) == given
        seen += len(given)


@pytest.mark.parametrize("character", BEYOND_XML, ids=lambda each: f"U+{ord(each):04X}")
@pytest.mark.parametrize("field", ["title", "disk"])
def test_what_no_xml_can_carry_is_refused_by_name(field: str, character: str) -> None:
    """The bug: it went into the document, which libvirt then could not read."""
    machine = replace(MACHINE, **{field: f"a{character}b"})  # type: ignore[arg-type]
    with pytest.raises(HostFailure, match=f"U\\+{ord(character):04X}") as refused:
        domain_xml("qemu", machine)
    assert refused.value.final


def yaml_shape(value: Any) -> Any:
    """The same with every text taken out."""
    if isinstance(value, dict):
        return {key: yaml_shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [yaml_shape(each) for each in value]
    return type(value)


KEYS = 100
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def documents(keys: tuple[str, ...], name: str, uid: str, nonce: str) -> dict[str, Any]:
    context = Contextualization(ssh_authorized_keys=keys, user_data=b"")
    environment = replace(WORKSPACE.environment, contextualization=context)
    workspace = replace(WORKSPACE, name=name, uid=uid, nonce=nonce, environment=environment)
    entry = HostEntry(address="10.1.0.10", names=(name,))
    files = seed_files(replace(PART, host_entries=(entry,)), workspace)
    return {
        each: yaml.load(files[each], Loader=_LOADER)
        for each in ("meta-data", "vendor-data", "network-config")
    }


def test_the_seed_carries_every_text_and_gains_no_node() -> None:
    """The bug: a key whose comment has an emoji was cut in two for cloud-init, whose YAML does
    not know how JSON writes such characters."""
    harmless = yaml_shape(documents(("k",) * KEYS, "a", "b", "c"))
    texts, seen = strings(2), 0
    while seen < STRINGS:
        *keys, name, uid, nonce = islice(texts, KEYS + 3)
        found = documents(tuple(keys), name, uid, nonce)
        assert yaml_shape(found) == harmless
        meta, vendor = found["meta-data"], found["vendor-data"]
        assert meta["public-keys"] == vendor["ssh_authorized_keys"] == keys
        assert (meta["local-hostname"], meta["instance-id"]) == (name, uid)
        assert meta["intertie_nonce"] == nonce
        hosts = b64decode(vendor["write_files"][0]["content"]).decode()
        assert hosts.endswith(f"10.1.0.10 {name}\n")
        seen += len(keys) + 3


def user_datas(seed: int) -> Iterator[bytes]:
    """Texts, and bytes that are none."""
    draw = random.Random(seed)
    for text in strings(seed):
        octets = text.encode()
        yield octets if draw.random() < 0.5 else octets + draw.randbytes(draw.randrange(1, 64))


def test_user_data_is_the_guest_s_own_bytes() -> None:
    others = None
    for octets in islice(user_datas(3), STRINGS):
        context = Contextualization(user_data=octets)
        environment = replace(WORKSPACE.environment, contextualization=context)
        files = dict(seed_files(PART, replace(WORKSPACE, environment=environment)))
        assert files.pop("user-data") == octets
        assert others in (None, files)
        others = files


def test_the_image_of_a_seed_holds_its_files_and_no_other() -> None:
    names = ("meta-data", "network-config", "vendor-data", "user-data")
    for octets in islice(user_datas(4), 200):
        files = dict.fromkeys(names, octets)
        iso = PyCdlib()
        iso.open_fp(BytesIO(seed_image(files)))
        try:
            found = {each.file_identifier().decode("utf-16-be") for each in children(iso)}
            assert found == set(names)
            for name in names:
                out = BytesIO()
                iso.get_file_from_iso_fp(out, joliet_path=f"/{name}")
                assert out.getvalue() == octets
        finally:
            iso.close()


def children(iso: Any) -> list[Any]:
    return [each for each in iso.list_children(joliet_path="/") if each and each.is_file()]
