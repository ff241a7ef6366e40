"""What is on a host now, as sorted lines: two listings are equal when nothing was left between."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from testbed.commands import run
from testbed.hosts import agent_data
from testbed.places import NETNS, Places
from testbed.processes import instance_pids, name_of


def inventory(places: Places, site: str, host: str) -> list[str]:
    """Domains, guests' processes, links, addresses, forwarding, shaping, firewall and files.

    Files are those of the node agent (`agent/...`) and of libvirt (`libvirt/...`); a caller
    who lets the agent keep something, such as its image cache, leaves out those lines.
    """
    netns = places.host_netns(site, host)
    lines = [
        *_domains(places, site, host),
        *(f"process {name_of(pid)}" for pid in guest_pids(places, site, host)),
        *_links(netns),
        *_shaping(netns),
        *_forwarding(netns),
        *_firewall(netns),
        *_files(agent_data(places, site, host), "agent"),
        *_files(places.host_disk(site, host) / "libvirt", "libvirt"),
    ]
    return sorted(lines)


def _domains(places: Places, site: str, host: str) -> Iterator[str]:
    names = run(["virsh", "-c", places.libvirt_uri(site, host), "list", "--all", "--name"])
    for name in names.split():
        yield f"domain {name}"


def guest_pids(places: Places, site: str, host: str) -> list[int]:
    """Emulators, whether libvirt knows them or not."""
    space = (NETNS / places.host_netns(site, host)).stat().st_ino
    found = []
    for pid in instance_pids(places):
        try:
            inside = os.stat(f"/proc/{pid}/ns/net").st_ino == space
        except OSError:
            continue
        if inside and name_of(pid).startswith("qemu"):
            found.append(pid)
    return sorted(found)


def _json(argv: list[str]) -> list[dict[str, Any]]:
    text = run(argv).strip()
    found: list[dict[str, Any]] = json.loads(text) if text else []
    return found


def _links(netns: str) -> Iterator[str]:
    for link in _json(["ip", "-n", netns, "-j", "-d", "addr"]):
        kind = link.get("linkinfo", {}).get("info_kind", "plain")
        master = f" in {link['master']}" if "master" in link else ""
        yield f"link {kind} {link['ifname']}{master}"
        for address in link.get("addr_info", []):
            if address["family"] == "inet":
                yield f"address {link['ifname']} {address['local']}/{address['prefixlen']}"


def _shaping(netns: str) -> Iterator[str]:
    for qdisc in _json(["tc", "-n", netns, "-j", "qdisc", "show"]):
        if qdisc["kind"] != "noqueue":
            yield f"qdisc {qdisc['dev']} {qdisc['kind']} {_place(qdisc)}"
    names = [link["ifname"] for link in _json(["ip", "-n", netns, "-j", "link"])]
    for name in names:
        for line in run(["tc", "-n", netns, "class", "show", "dev", name]).splitlines():
            yield f"class {name} {' '.join(line.split()[1:3])}"
        for parent in ((), ("ingress",)):
            text = run(["tc", "-n", netns, "filter", "show", "dev", name, *parent])
            for line in text.splitlines():
                if line.startswith("filter"):
                    yield f"filter {name} {' '.join(line.split()[1:])}"


def _place(qdisc: dict[str, Any]) -> str:
    return "root" if qdisc.get("root") else str(qdisc.get("parent", ""))


def _forwarding(netns: str) -> Iterator[str]:
    """Entries that somebody wrote; learned ones come and go by themselves."""
    for entry in _json(["bridge", "-n", netns, "-j", "fdb", "show"]):
        if "dst" in entry and entry.get("state") == "permanent":
            yield f"forward {entry['ifname']} {entry['mac']} to {entry['dst']}"


def _firewall(netns: str) -> Iterator[str]:
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{netns}", "nft", "--stateless", "list", "ruleset"],
        capture_output=True,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        if line.strip() not in ("", "}"):
            yield f"firewall {line.strip()}"


def _files(folder: Path, label: str) -> Iterator[str]:
    for top, _, names in os.walk(folder):
        for name in names:
            yield f"file {label}/{(Path(top) / name).relative_to(folder)}"
