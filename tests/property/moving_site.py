"""The site of `test_lost_hosts`, whose workspaces go from host to host.

What is between two hosts is libvirt's handshake as it may go: the copy is whole and the source
never hears of it, or hears and dies.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

from intertie.broker.domain.cluster import workspaces_of
from intertie.broker.domain.migrating import begun
from intertie.broker.domain.records import Change, Write
from intertie.common.errors import DomainError, NotFound, WorkspaceNotRunning
from intertie.common.spec import OnHostLoss
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.migrating import Bearing, Migration, Route
from intertie.nodeagent.domain.reconcile import DomainState
from tests.property.test_lost_hosts import HOSTS, SITE, Box, Site
from tests.unit.nodeagent.memory_hypervisor import MemoryHypervisor

_ROUTE = Route(
    libvirt=Path("l"), memory=Path("m"), disk=Path("d"), here=Path("a"), there=Path("b"), mib_s=1
)


class Libvirt(MemoryHypervisor):
    """One that sends guests to those of other hosts, and knows which of its guests is which."""

    def __init__(self, site: MovingSite, name: str, disks: dict[str, int]) -> None:
        super().__init__(disks)
        self.site = site
        self.host = name
        self.lives: dict[str, int] = {}
        """Another one for each boot."""

    async def start(self, name: str) -> None:
        await super().start(name)
        self.lives[name] = next(self.site.boots)

    async def send(self, name: str, route: Route) -> None:
        self._check()
        if self.domains.get(name) is not DomainState.RUNNING:
            raise HostFailure("it does not run")
        rng = self.site.rng
        there = self.site.libvirt_at(self.site.target_of(name, self.host))
        there.domains[name] = DomainState.IN_TRANSIT
        there.lives[name] = self.lives[name]
        there.guests[name] = self.guests[name]
        whole = False
        try:
            await self.site.pause(8.0)
            self.domains[name] = DomainState.IN_TRANSIT
            await self.site.pause(4.0)
            if there.domains.get(name) is not DomainState.IN_TRANSIT or rng.random() < 0.15:
                raise HostFailure("the tunnel broke")
            there.domains[name] = DomainState.PAUSED
            whole = True
            await self.site.pause(4.0)
            if rng.random() < 0.15:
                raise HostFailure("whether it is there was not heard")
            self.domains[name] = DomainState.SENT
            await self.site.pause(4.0)
        except (HostFailure, asyncio.CancelledError):
            if not whole and there.domains.get(name) is DomainState.IN_TRANSIT:
                del there.domains[name]
            if self.domains.get(name) is DomainState.IN_TRANSIT and rng.random() < 0.7:
                self.domains[name] = DomainState.RUNNING  # else libvirtd was killed as well
            raise

    async def break_off(self, name: str) -> None:
        self._check()


class Peers:
    """The other agents, while they run and nothing is between."""

    def __init__(self, site: MovingSite, name: str) -> None:
        self._site = site
        self._name = name

    @contextlib.asynccontextmanager
    async def route(self, uid: str, migration: Migration, bearing: Bearing) -> AsyncIterator[Route]:
        await self._site.pause(3.0)
        with as_host_failure():
            await self._arrivals(migration.host).begin(uid, migration.number, self._name, bearing)
        yield _ROUTE

    async def take_over(self, uid: str, migration: Migration) -> None:
        await self._site.pause(3.0)
        if self._site.rng.random() < 0.3:
            raise HostFailure("not reached")
        with as_host_failure():
            await self._arrivals(migration.host).take_over(uid, migration.number, self._name)

    def _arrivals(self, host: str) -> Any:
        box = self._site.boxes[host]
        if not box.runs:
            raise HostFailure("not reached")
        return box.host.agent.arrivals(None)  # type: ignore[arg-type]


@contextlib.contextmanager
def as_host_failure() -> Any:
    try:
        yield
    except (NotFound, WorkspaceNotRunning) as error:
        raise HostFailure(str(error)) from error


class MovingSite(Site):
    def __init__(self, seed: int) -> None:
        self.boots = count(1)
        super().__init__(seed, "command")
        for box in self.boxes.values():
            self.equip(box)
            box.start_agent()
        self.migrations = 0

    def equip(self, box: Box) -> None:
        box.host.hypervisor = self.libvirt_of(box)
        box.host.peers = Peers(self, box.name)

    def libvirt_of(self, box: Box) -> Libvirt:
        return Libvirt(self, box.name, box.host.storage.disks)

    async def pause(self, most_s: float) -> None:
        """In which anything may happen."""
        await self.clock.sleep(self.rng.choice((0.0, self.rng.uniform(0, most_s))))

    def libvirt_at(self, host: str) -> Libvirt:
        found = self.boxes[host].host.hypervisor
        assert isinstance(found, Libvirt)
        return found

    def target_of(self, domain: str, source: str) -> str:
        for part in self.boxes[source].host.agent.known.values():
            for each in part.wanted.workspaces:
                if domain == f"it-{each.uid}" and each.migration is not None:
                    return each.migration.host
        raise HostFailure("it goes nowhere")

    def kill(self, box: Box) -> None:
        """Its agent, with all that it was at."""
        sending = box.host.agent._sending
        words = (each.task for each in sending._words.values())
        for task in (*sending._tasks.values(), *words):
            if task is not None:
                task.cancel()
        box.kill_agent()

    def power_off(self, box: Box) -> None:
        self.kill(box)
        box.power_off()
        before = box.host.hypervisor
        after = self.libvirt_of(box)
        after.defined, after.domains = before.defined, before.domains
        box.host.hypervisor = after

    async def migrate(self) -> None:
        """Some workspace, if it may."""
        view = await self.ledger.view()
        parts = [each for each in view.parts.values() if each.value.counted]
        found = self.rng.choice(parts)
        states = {
            each.label: each.state.name
            for each in workspaces_of(found.value, view.seen.get(found.value.uid, {}))
        }
        label = self.rng.choice(sorted(states))
        try:
            after = begun(found.value, states, [label], "", view, SITE, now=self.clock.now())
        except DomainError:
            return
        if after is not None:
            write = Write(record=after, read_at=found.revision)
            await self.ledger.commit(Change(writes=(write,), admitted_on=view.generation))
            self.migrations += 1

    def check(self) -> None:
        """The promise: only one that goes on runs; a copy that stands still does not."""
        running: dict[str, str] = {}
        for box in self.boxes.values():
            for guest, state in box.host.hypervisor.domains.items():
                if state is not DomainState.RUNNING:
                    continue
                assert guest not in running, f"{guest} runs on {running[guest]} and {box.name}"
                running[guest] = box.name
                self.ran_on.setdefault(guest, set()).add(box.name)

    def lives(self) -> dict[str, int]:
        return {
            guest: self.libvirt_at(name).lives[guest]
            for name, box in self.boxes.items()
            for guest, state in box.host.hypervisor.domains.items()
            if state is DomainState.RUNNING
        }

    async def step(self) -> None:
        self.check()
        await super().step()

    def trouble(self, *, gently: bool = False) -> None:
        box = self.boxes[self.rng.choice(HOSTS)]
        events = ["cut", "join", "join", "again", "again", "kill", "start", "start", "lead"]
        if not gently:
            events += ["off", "off", "start", "start", "full"]
        match self.rng.choice(events):
            case "cut":
                box.wire.up = False
            case "join":
                box.wire.up = box.wire.writes = True
            case "full":
                box.wire.writes = False
            case "off":
                self.power_off(box)
            case "kill":
                self.kill(box)
            case "start" if not box.runs:
                box.start_agent()
            case "again" if box.runs:
                self.kill(box)
                box.start_agent()
            case "lead":
                self.lead()


async def started(site: MovingSite) -> dict[str, int]:
    """Three run; which lives of them are those."""
    await site.steps(3)
    await site.create("one", 3, OnHostLoss.RESTART)
    await site.steps(8)
    lives = site.lives()
    assert len(lives) == 3
    return lives


async def settled(site: MovingSite, steps: int = 40) -> Any:
    for _ in range(steps):
        site.mend()
        await site.step()
    view = await site.ledger.view()
    for part in (each for each in view.parts.values() if each.value.counted):
        assert part.value.moving == ()
        assert (part.value.shed, part.value.left) == ((), ())
    placed = sorted(
        each.host
        for part in view.parts.values()
        if part.value.counted
        for each in part.value.placed
    )
    there = sorted(
        name
        for name, box in site.boxes.items()
        for state in box.host.hypervisor.domains.values()
        if state is DomainState.RUNNING
    )
    assert there == placed
    return view
