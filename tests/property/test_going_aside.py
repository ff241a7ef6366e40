"""Workspaces that are put aside and go from host to host so, while agents, hosts and brokers are
killed and cut off at any moment: none ever runs twice, none goes on with a memory that is not its
last, and none that no host was lost of begins anew.

The site is that of `moving_site`, whose guests also go while they run.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from intertie.broker.domain.acting import acted
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.part import workspace_uid
from intertie.broker.domain.records import Change, Write
from intertie.common.actions import Action
from intertie.common.errors import DomainError
from intertie.common.spec import OnHostLoss
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.migrating import Bearing, Channel, Migration
from intertie.nodeagent.domain.ports import Deliver
from tests.property.moving_site import Libvirt, MovingSite, Peers, as_host_failure, settled, started
from tests.property.test_lost_hosts import Box
from tests.unit.nodeagent.host import MemoryStorage

STEPS = 160


@pytest.fixture(autouse=True)
def short_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intertie.broker.domain.migrating.SENT_WITHIN", timedelta(seconds=20))


class Pool(MemoryStorage):
    """Files with content: the number of the save that a disk, and a memory, are of."""

    def __init__(self) -> None:
        super().__init__()
        self.on_disk: dict[str, int] = {}
        self.in_memory: dict[str, int] = {}

    def memory_bytes(self, uid: str) -> int:
        return 1

    async def take_in(self, uid: str) -> None:
        memory = self.came.pop((uid, Channel.MEMORY_FILE), None)
        size, saved = self.came[uid, Channel.DISK_FILE].split()
        self.on_disk[uid] = int(saved)
        if memory is not None:
            self.in_memory[uid] = int(memory)
            self.came[uid, Channel.MEMORY_FILE] = memory
        self.came[uid, Channel.DISK_FILE] = size
        await super().take_in(uid)


class SavingLibvirt(Libvirt):
    """What a guest has in memory is how often it was saved, and its disk has that too."""

    async def save(self, name: str, path: str) -> None:
        await super().save(name, path)
        uid, pool = name.removeprefix("it-"), self.pool
        pool.on_disk[uid] = pool.in_memory[uid] = next(self.site.boots)

    async def restore(self, name: str, path: str) -> None:
        self._check()
        uid, pool = name.removeprefix("it-"), self.pool
        if uid not in pool.disks:
            raise HostFailure("it has no disk here")
        assert pool.in_memory[uid] == pool.on_disk[uid], f"{uid} goes on with an older memory"
        await self.site.pause(3.0)
        await super().restore(name, path)
        self.lives[name], self.guests[name] = self.aside.last[name]

    async def start(self, name: str) -> None:
        await super().start(name)
        self.aside.last[name] = self.lives[name], self.guests[name]

    async def saved_mib(self, path: str) -> int:
        return 64

    @property
    def aside(self) -> PuttingAside:
        assert isinstance(self.site, PuttingAside)
        return self.site

    @property
    def pool(self) -> Pool:
        found = self.site.boxes[self.host].host.storage
        assert isinstance(found, Pool)
        return found


class Couriers(Peers):
    def _arrivals(self, host: str) -> Any:
        """One of each agent: it knows what has begun to come."""
        box = self._site.boxes[host]
        if not box.runs:
            raise HostFailure("not reached")
        agent = box.host.agent
        assert isinstance(self._site, PuttingAside)
        return self._site.arrivals.setdefault(agent, agent.arrivals(None))  # type: ignore[arg-type]

    @contextlib.asynccontextmanager
    async def delivery(
        self, uid: str, migration: Migration, bearing: Bearing
    ) -> AsyncIterator[Deliver]:
        await self._site.pause(3.0)
        with as_host_failure():
            await self._arrivals(migration.host).begin(uid, migration.number, self._name, bearing)

        async def deliver(channel: Channel) -> None:
            pool: Any = self._site.boxes[self._name].host.storage
            is_disk = channel is Channel.DISK_FILE
            text = (
                f"{pool.disks[uid]} {pool.on_disk.get(uid, 0)}" if is_disk else pool.in_memory[uid]
            )
            await self._site.pause(8.0)
            with as_host_failure():
                tunnel = self._arrivals(migration.host).tunnel(
                    uid, migration.number, self._name, channel, 1
                )
                async with tunnel as stream:
                    await stream.send(str(text).encode())
                    await self._site.pause(4.0)
                    if self._site.rng.random() < 0.1:
                        raise HostFailure("the tunnel broke")
                    stream.end()
                    assert [each async for each in stream.received()] == [str(text).encode()]
            if self._site.rng.random() < 0.1:
                raise HostFailure("whether it is there was not heard")

        yield deliver


class PuttingAside(MovingSite):
    def __init__(self, seed: int) -> None:
        self.arrivals: dict[Any, Any] = {}
        self.last: dict[str, Any] = {}
        """Of each guest, which life of it is the last, and what it was started with."""
        super().__init__(seed)
        self.went_aside: set[str] = set()

    def equip(self, box: Box) -> None:
        box.host.storage = Pool()
        super().equip(box)
        box.host.peers = Couriers(self, box.name)

    def libvirt_of(self, box: Box) -> Libvirt:
        return SavingLibvirt(self, box.name, box.host.storage.disks)

    def kill(self, box: Box) -> None:
        for task in box.host.agent._steps._memory._tasks.values():
            task.cancel()
        super().kill(box)

    async def switch(self, action: Action) -> None:
        view = await self.ledger.view()
        parts = [each for each in view.parts.values() if each.value.counted]
        if not parts:
            return
        found = self.rng.choice(parts)
        label = self.rng.choice(found.value.placed).workspace
        try:
            after = acted(found.value, view.seen.get(found.value.uid, {}), action, [label])
        except DomainError:
            return
        if after is not None:
            write = Write(record=after, read_at=found.revision)
            await self.ledger.commit(Change(writes=(write,)))

    async def act(self) -> None:
        match self.rng.random():
            case chance if chance < 0.15:
                await self.switch(Action.SUSPEND)
            case chance if chance < 0.25:
                await self.switch(Action.RESUME)
            case chance if chance < 0.6:
                await self.migrate()

    async def step(self) -> None:
        """Notes which have come to other hosts as they were put aside."""
        before = dict((await self.ledger.view()).parts)
        await super().step()
        after = (await self.ledger.view()).parts
        for name, part in before.items():
            for moving in part.value.moving:
                if moving.aside and after[name].value.host_of(moving.workspace) == moving.host:
                    self.went_aside.add(moving.workspace)

    async def check_counted(self) -> None:
        """Where there is anything of one, its disk counts."""
        for part in (each.value for each in (await self.ledger.view()).parts.values()):
            if not part.counted:
                continue
            sizes = {
                workspace_uid(part.name, each.label): each.allocation.disk_mib
                for each in part.spec.workspaces
            }
            for host, box in self.boxes.items():
                there = sum(sizes.get(uid, 0) for uid in box.host.storage.uids())
                for demand in demands_of(part):
                    assert demand.amounts.get(f"host/{host}/disk_mib", 0) >= there

    async def resume_all(self) -> None:
        for _ in range(40):
            await self.switch(Action.RESUME)


@pytest.mark.parametrize("seed", range(16))
async def test_none_runs_twice_nor_with_an_older_memory(seed: int) -> None:
    site = PuttingAside(seed)
    await site.steps(3)
    await site.create("one", 2, OnHostLoss.RESTART)
    await site.create("two", 2, OnHostLoss.RESTART)
    for number in range(STEPS):
        if number > 8:
            await site.act()
            if site.rng.random() < 0.12:
                site.trouble()
        await site.step()
    await settle(site, 80)


@pytest.mark.parametrize("seed", range(16))
async def test_none_begins_anew_while_no_host_is_lost(seed: int, monkeypatch: Any) -> None:
    """Agents and brokers die, and are cut off, but no host is off, nor taken for lost."""
    monkeypatch.setattr("tests.property.test_lost_hosts.LOST_AFTER", timedelta(days=1))
    site = PuttingAside(seed)
    before = await started(site)
    for _ in range(STEPS):
        await site.act()
        if site.rng.random() < 0.12:
            site.trouble(gently=True)
        await site.step()
        await site.check_counted()
    await settle(site, 60)
    assert site.lives() == before


async def settle(site: PuttingAside, steps: int) -> None:
    site.mend()
    for _ in range(4):
        await site.steps(10)
        await site.resume_all()
    await settled(site, steps)


async def test_they_get_there_where_nothing_happens() -> None:
    """The simulation does come to what it is about."""
    site = PuttingAside(3)
    before = await started(site)
    for _ in range(3):
        while len(site.lives()) > 0:
            await site.switch(Action.SUSPEND)
            await site.step()
        for _ in range(30):
            await site.migrate()
            await site.step()
        await settle(site, 40)
        assert site.lives() == before
    assert len(site.went_aside) > 1
