"""A site of its own for tests of what guests promise one another, and its guests' counters."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import libvirt

from testbed.bed import Testbed
from testbed.topology import HostSpec, SiteSpec, Topology
from tests.e2e.driver import User, eventually, standing

SITE = "north"
READY_WITHIN_S = 180
"""Emulated guests on a machine that may be busy."""


@contextmanager
def one_site(instance: str, *hosts: HostSpec, cpu_overcommit: float = 4.0) -> Iterator[Testbed]:
    """Up, and nothing left of it afterwards."""
    site = SiteSpec(name=SITE, hosts=hosts)
    topology = Topology(sites=(site,), cpu_overcommit=cpu_overcommit)
    with standing(topology, instance) as made:
        yield made


def create_all(user: User, clusters: Mapping[str, dict[str, Any]]) -> None:
    """All at the same time; returns when every guest is ready."""
    for name, specification in clusters.items():
        user.create(name, specification, wait=False)

    def ready(name: str) -> bool:
        there = user.show(name)["workspaces"]  # none, while it waits for room
        return bool(there) and all(each.get("ready") for each in there)

    for name in clusters:
        eventually(lambda name=name: ready(name), within_s=READY_WITHIN_S, what=f"{name} is ready")  # type: ignore[misc]


def begin(user: User, cluster: str, workspace: str, command: str) -> None:
    """The command goes on in the guest, by itself, for as long as the guest runs."""
    words = f"setsid sh -c '{command}' >/dev/null 2>&1 </dev/null &"
    user.in_guest(cluster, workspace, words)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestCounters:
    """What QEMU and the kernel have counted of one guest since its start, at a moment between two
    of the monotonic clock, in s."""

    after: float
    before: float
    domain: str
    cpu_ns: int
    disk_operations: int
    disk_bytes: int


def counters(bed: Testbed, host: str) -> dict[str, GuestCounters]:
    """Of every guest on the host, by `{cluster}/{workspace}`."""
    connection = libvirt.open(bed.libvirt_uri(f"{SITE}/{host}"))
    try:
        wanted = libvirt.VIR_DOMAIN_STATS_CPU_TOTAL | libvirt.VIR_DOMAIN_STATS_BLOCK
        running_ones = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
        after = time.monotonic()
        told = connection.getAllDomainStats(wanted, running_ones)
        before = time.monotonic()
        return {
            _short(domain.metadata(libvirt.VIR_DOMAIN_METADATA_TITLE, None)): GuestCounters(
                after=after,
                before=before,
                domain=domain.name(),
                cpu_ns=stats["cpu.time"],
                disk_operations=stats["block.0.rd.reqs"] + stats["block.0.wr.reqs"],
                disk_bytes=stats["block.0.rd.bytes"] + stats["block.0.wr.bytes"],
            )
            for domain, stats in told
        }
    finally:
        connection.close()


def between(first: GuestCounters, second: GuestCounters) -> tuple[float, float]:
    """Seconds from one count to a later one: at least, and at most."""
    return second.after - first.before, second.before - first.after


def _short(title: str) -> str:
    """Of `sites/{site}/tenants/{tenant}/clusters/{cluster}/workspaces/{workspace}`."""
    words = title.split("/")
    return f"{words[-3]}/{words[-1]}"
