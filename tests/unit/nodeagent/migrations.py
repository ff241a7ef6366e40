"""Hosts of which one sends a workspace to the other, as the tests of either see them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from intertie.common.values import replace
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.machine import MachineFacts
from intertie.nodeagent.domain.migrating import Bearing, Migration, Role, Route
from intertie.nodeagent.domain.reconcile import DomainState, Listing
from intertie.nodeagent.loops.arrivals import Arrivals
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.parts import A_UID, DIGEST, PART, WORKSPACE

DOMAIN = f"it-{A_UID}"
TAKE, SEND, ANSWER = Role.TAKE, Role.SEND, Role.ANSWER
ROUTE = Route(
    libvirt=Path("/l"),
    memory=Path("/m"),
    disk=Path("/d"),
    here=Path("/here"),
    there=Path("/there"),
    mib_s=8,
)
FACTS = MachineFacts(hypervisors=("qemu",), architecture="x86_64", disk_cache="none", cgroups=True)


def wanted(role: Role | None, generation: int, *, aside: bool = False, **changes: Any) -> Listing:
    """A part whose one workspace goes, or does not."""
    migration = role and Migration(
        number=7, role=role, host="n2", agent_address="n2:1", aside=aside
    )
    workspace = replace(WORKSPACE, migration=migration)
    part = replace(PART, workspaces=(workspace,), generation=generation, **changes)
    return Listing(parts=(part,))


class Peers:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.refuses = ""

    @contextlib.asynccontextmanager
    async def route(self, uid: str, migration: Migration, bearing: Bearing) -> AsyncIterator[Route]:
        if self.refuses:
            raise HostFailure(self.refuses)
        yield ROUTE

    async def take_over(self, uid: str, migration: Migration) -> None:
        self.told.append(f"{uid} {migration.number}")


async def up(peers: Peers, listing: Listing) -> Host:
    """A host on which all run that it is told of."""
    host = Host()
    host.peers = peers
    host.start()
    host.images.here.add(DIGEST)
    host.records.listing = listing
    for _ in range(3):
        await host.agent.sweep()
    domains = [f"it-{each.uid}" for part in listing.parts for each in part.workspaces]
    assert host.hypervisor.domains == dict.fromkeys(domains, DomainState.RUNNING)
    return host


async def running(peers: Peers) -> Host:
    return await up(peers, wanted(None, 3))


async def taking(listing: Listing) -> Host:
    """The other host, once it has made what it can."""
    host = Host()
    host.images.here.add(DIGEST)
    host.records.listing = listing
    for _ in range(2):
        await host.agent.sweep()
    return host


def arrivals_at(host: Host) -> Arrivals:
    """Of which nothing comes for a libvirt."""
    return host.agent.arrivals(None)  # type: ignore[arg-type]


def said(host: Host) -> Any:
    report = host.agent.report
    assert report is not None
    [workspace] = report[0].workspaces
    return workspace.migration


async def carried(name: str, route: Route) -> None:
    assert route == ROUTE
