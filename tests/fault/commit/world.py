"""What stands in the etcds and on the hosts, read there directly: not through any service."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intertie.api.nodeagent.v1 import records_pb2
from testbed.bed import Testbed
from testbed.component import Inside
from testbed.domains import Domain, meta_domain, site_domain
from testbed.etcds import endpoints, etcdctl
from testbed.topology import META


class Unreadable(Exception):
    """An etcd did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A site's piece of a co-allocation, as its record says."""

    site: str
    tx: str
    uid: str
    """Empty where no host is told of it."""
    state: str
    ending: bool
    vcpus: Mapping[str, int]
    """By host."""
    vnis: tuple[int, ...] = ()
    participants: frozenset[str] = frozenset()
    """Sites of the co-allocation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a host's agent is told of a part."""

    generation: int
    gone: bool
    workspaces: frozenset[str]
    """Their uids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What it says of it."""

    generation: int
    running: frozenset[str]
    """Uids of workspaces."""
    gone: bool
    """Nothing of it is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """An emulator's process; the same one as long as both are the same."""

    pid: int
    start_time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    parts: tuple[Part, ...] = ()
    decisions: Mapping[str, str] = field(default_factory=dict)
    """COMMIT or ABORT by transaction."""
    participants: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Sites by transaction, of those that are not settled."""
    clusters: Mapping[str, str] = field(default_factory=dict)
    """State by cluster id."""
    ending: frozenset[str] = frozenset()
    """Clusters whose end was asked for, by id, over or not."""
    told: Mapping[tuple[str, str], Told] = field(default_factory=dict)
    """By `SITE/HOST` and part uid."""
    seen: Mapping[tuple[str, str], Seen] = field(default_factory=dict)
    guests: Mapping[str, Mapping[str, Guest]] = field(default_factory=dict)
    """By `SITE/HOST`, then by the workspace's uid."""


class Eye:
    """Looks at a testbed."""

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed
        self._sites = [site.name for site in testbed.topology.sites]
        self.hosts = [f"{site.name}/{host.name}" for site, host in testbed.topology.hosts()]

    def look(self) -> World:
        """Unreadable where an etcd does not answer. Each store is read at one revision, and the
        decisions last: what a site obeys was decided before."""
        sites = {site: self.store(site) for site in self._sites}
        meta = self.store(META)
        clusters = {
            key.rpartition("/")[2]: json.loads(value) for key, value in _below(meta, "clusters/")
        }
        return World(
            parts=tuple(part for site in self._sites for part in _parts(site, sites[site])),
            decisions={
                key.rpartition("/")[2]: json.loads(value)["outcome"]
                for key, value in _below(meta, "decision/")
            },
            participants={
                key.rpartition("/")[2]: frozenset(json.loads(value)["parts"])
                for key, value in _below(meta, "txs/")
            },
            clusters={name: record["state"] for name, record in clusters.items()},
            ending=frozenset(
                name for name, record in clusters.items() if record["end_requested_time"]
            ),
            told=dict(each for site in self._sites for each in _told(site, sites[site])),
            seen=dict(each for site in self._sites for each in _seen(site, sites[site])),
            guests=self.guests(),
        )

    def workspaces_of(self, cluster: str) -> frozenset[str]:
        """Uids of all that agents are told of it, by its full name."""
        records = (record for site in self._sites for _, record in _wanted(self.store(site)))
        return frozenset(
            each.uid for part in records if part.cluster == cluster for each in part.workspaces
        )

    def guests(self) -> dict[str, dict[str, Guest]]:
        """Emulators, whether libvirt knows them or not."""
        return {host: dict(self._guests_on(host)) for host in self.hosts}

    def _guests_on(self, host: str) -> Iterator[tuple[str, Guest]]:
        for pid in self._testbed.guest_pids(host):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            names = [word for word in words if word.startswith("guest=it-")]
            if names and stat[0] not in "ZX":
                uid = names[0].removeprefix("guest=it-").partition(",")[0]
                yield uid, Guest(pid=pid, start_time=int(stat[19]))

    def store(self, label: str) -> dict[str, bytes]:
        """Every key of a site's etcd, or the meta-scheduler's, below its prefix."""
        prefix = f"/intertie/{label}/"
        said = json.loads(self.etcdctl(label, "get", prefix, "--prefix", "-w", "json"))
        return {
            base64.b64decode(each["key"]).decode().removeprefix(prefix): base64.b64decode(
                each.get("value", "")
            )
            for each in said.get("kvs", [])
        }

    def etcdctl(self, label: str, *words: str, member: int | None = None) -> str:
        """As etcd's root, at any member that answers, or at one."""
        inside, domain, address = self._place(label)
        every = endpoints(address, self._testbed.topology.etcd_members)
        chosen = every if member is None else [every[member]]
        done = etcdctl(
            self._testbed.places, inside, domain, ",https://".join(chosen), *words,
            "--command-timeout=4s",
        )  # fmt: skip
        if done.returncode != 0:
            raise Unreadable(f"{label}: {done.stderr[-300:]}")
        return done.stdout

    def leading_member(self, label: str) -> int:
        """Which member of the etcd cluster leads it."""
        for member in range(self._testbed.topology.etcd_members):
            words = ("endpoint", "status", "-w", "json")
            [said] = json.loads(self.etcdctl(label, *words, member=member))
            if said["Status"]["leader"] == said["Status"]["header"]["member_id"]:
                return member
        raise Unreadable(f"{label}: no member leads")

    def _place(self, label: str) -> tuple[Inside, Domain, str]:
        places, topology = self._testbed.places, self._testbed.topology
        if label == META:
            meta = meta_domain(places, topology)
            return Inside(netns=places.meta_netns), meta, topology.meta_address()
        inside = Inside(netns=places.ctl_netns(label))
        return inside, site_domain(places, label), topology.ctl_address(label)


def _below(store: Mapping[str, bytes], prefix: str) -> Iterator[tuple[str, bytes]]:
    return ((key, value) for key, value in store.items() if key.startswith(prefix))


def _wanted(store: Mapping[str, bytes]) -> Iterator[tuple[str, records_pb2.WantedPart]]:
    """Of parts, not of hosts as a whole."""
    for key, value in _below(store, "wanted/"):
        if "/parts/" in key:
            yield key, records_pb2.WantedPart.FromString(value)


def _parts(site: str, store: Mapping[str, bytes]) -> Iterator[Part]:
    wanted = (record for _, record in _wanted(store))
    uids = {told.part: told.part_uid for told in wanted}
    aside = (zlib.decompress(value) for _, value in _below(store, "archive/parts/"))
    for value in (*(value for _, value in _below(store, "parts/")), *aside):
        record: dict[str, Any] = json.loads(value)
        sizes = {
            f"{each['group']}-{each['index']}": each["allocation"]["vcpus"]
            for each in record["spec"]["workspaces"]
        }
        vcpus: dict[str, int] = {}
        for each in record["placed"]:
            host = f"{site}/{each['host']}"
            vcpus[host] = vcpus.get(host, 0) + sizes[each["workspace"]]
        yield Part(
            site=site,
            tx=record["tx"],
            uid=uids.get(record["name"], ""),
            state=record["state"],
            ending=record.get("end_requested_time") is not None,
            vcpus=vcpus,
            vnis=tuple(sorted(each["vni"] for each in record.get("network_ids", ()))),
            participants=frozenset(record["participants"]),
        )


def _told(site: str, store: Mapping[str, bytes]) -> Iterator[tuple[tuple[str, str], Told]]:
    for key, record in _wanted(store):
        yield (
            (f"{site}/{key.split('/')[1]}", record.part_uid),
            Told(
                generation=record.generation,
                gone=record.gone,
                workspaces=frozenset(each.uid for each in record.workspaces),
            ),
        )


def _seen(site: str, store: Mapping[str, bytes]) -> Iterator[tuple[tuple[str, str], Seen]]:
    for key, value in _below(store, "seen/"):
        if "/parts/" not in key:
            continue
        record = records_pb2.SeenPart.FromString(value)
        running = (each.uid for each in record.workspaces if each.state == 4)
        yield (
            (f"{site}/{key.split('/')[1]}", key.rpartition("/")[2]),
            Seen(generation=record.generation, running=frozenset(running), gone=record.gone),
        )
