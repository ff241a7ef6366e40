"""A site whose hosts are lost, cut off, and come back at any moment, with all that they had in
mind: no workspace ever runs twice.

Broker loops and agents are the product's own, and what passes between them is bytes, as in etcd.
Hosts are powers, notes on disks, and guests.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

from intertie.api.nodeagent.v1 import records_pb2
from intertie.broker.adapters.agent_records import (
    facts_from_bytes,
    seen_from_bytes,
    standing_to_bytes,
    wanted_to_bytes,
)
from intertie.broker.adapters.fences import SelfFence as FenceByItself
from intertie.broker.domain.cluster import HOST_LOST, ClusterState
from intertie.broker.domain.fleet import HostFacts
from intertie.broker.domain.lost_hosts import HostState
from intertie.broker.domain.networks import NetworkId
from intertie.broker.domain.ports import Fence, NotCertain
from intertie.broker.domain.records import Change, Write
from intertie.broker.loops.lost_hosts import LostHosts
from intertie.broker.loops.reconcile import Reconcile
from intertie.common.spec import AvailabilityTerm, LeaseTerms, OnHostLoss
from intertie.common.values import replace
from intertie.nodeagent.convert import (
    facts_to_proto,
    part_from_proto,
    seen_to_proto,
    standing_from_proto,
)
from intertie.nodeagent.domain import report as told
from intertie.nodeagent.domain.failures import HostFailure, RecordsUnreadable
from intertie.nodeagent.domain.reconcile import ALIVE, DomainState, Listing
from intertie.nodeagent.domain.standing import Standing
from intertie.nodeagent.loops.report import Reporter
from tests.fakes.clock import FakeClock, turns
from tests.fakes.ledger import MemoryLedger
from tests.unit.broker.samples import POLICY, facts
from tests.unit.broker.standing import ALLOCATION, admitted, group, spec
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.memory_hypervisor import MemoryHypervisor
from tests.unit.nodeagent.parts import DIGEST, NOW

HOSTS = ("n1", "n2", "n3")
SITE = replace(POLICY, hosts=HOSTS, links=())
STEP_S = 2.0
STEPS = 150
LOST_AFTER = timedelta(seconds=30)
FENCE_AFTER = timedelta(seconds=40)
MARGIN = timedelta(seconds=10)


class Wire:
    """What one agent reads and writes, through the site's ledger."""

    def __init__(self, ledger: MemoryLedger, host: str) -> None:
        self._ledger = ledger
        self._host = host
        self.up = True
        self.writes = True
        """False: as with an etcd that is full, which is read all the same."""

    async def wanted(self) -> Listing:
        self._check()
        parts = [
            part_from_proto(records_pb2.WantedPart.FromString(wanted_to_bytes(each)))
            for (host, _), each in self._ledger.wanted.items()
            if host == self._host
        ]
        record = (await self._ledger.view()).hosts.get(self._host)
        standing = Standing()
        if record is not None:
            octets = standing_to_bytes(record.value)
            standing = standing_from_proto(records_pb2.WantedHost.FromString(octets))
        return Listing(parts=tuple(parts), standing=standing)

    async def write_facts(self, found: told.HostFacts, *, now: Any) -> None:
        self._check(writes=True)
        octets = facts_to_proto(found, now=now).SerializeToString()
        heard = facts_from_bytes(octets, self._host)
        assert heard is not None
        self._ledger.report(heard)

    async def write_seen(self, part: told.SeenPart, *, now: Any) -> None:
        self._check(writes=True)
        heard = seen_from_bytes(seen_to_proto(part, now=now).SerializeToString(), self._host)
        assert heard is not None
        self._ledger.see(heard)

    async def delete_seen(self, part_uid: str) -> None:
        self._check(writes=True)
        self._ledger.unsee(self._host, part_uid)

    async def seen_uids(self) -> frozenset[str]:
        self._check()
        return frozenset()

    def _check(self, *, writes: bool = False) -> None:
        if not self.up or (writes and not self.writes):
            raise RecordsUnreadable("away")


class Box:
    """A machine of the site: what survives its power is in `host`."""

    def __init__(self, name: str, ledger: MemoryLedger, clock: FakeClock, fences: bool) -> None:
        self.name = name
        self.clock = clock
        self.wire = Wire(ledger, name)
        self.host = Host(
            clock=clock, records=self.wire, fence_after=FENCE_AFTER if fences else timedelta()
        )
        self.host.images.here.add(DIGEST)
        self.runs = True
        """Its agent does."""
        self.boots = 0
        self._reporter = self._a_reporter()

    @property
    def guests(self) -> set[str]:
        domains = self.host.hypervisor.domains
        return {name for name, state in domains.items() if state in ALIVE}

    async def turn(self) -> None:
        """What an agent does in one period, as often as it is there."""
        if not self.runs:
            return
        await self.host.agent.sweep()
        try:
            await self._reporter.tell()
            if int(self.clock.monotonic()) % 4 == 0:
                await self.host.agent.tell(await self._facts())
        except HostFailure:
            pass

    def kill_agent(self) -> None:
        self.runs = False

    def start_agent(self) -> None:
        self.host.start()
        self._reporter = self._a_reporter()
        self.runs = True

    def power_off(self) -> None:
        """Disks and what is defined stay; no process does."""
        self.runs = False
        before = self.host.hypervisor
        self.host.hypervisor = MemoryHypervisor(before.disks)
        self.host.hypervisor.defined = before.defined
        self.host.hypervisor.domains = dict.fromkeys(before.domains, DomainState.OFF)
        self.boots += 1
        self.host.boot = f"boot {self.boots}"

    def _a_reporter(self) -> Reporter:
        return Reporter(self.host.agent, self.wire, self.clock, self._facts)  # type: ignore[arg-type]

    async def _facts(self) -> told.HostFacts:
        has = facts(self.name).capacity
        return told.HostFacts(
            host=self.name,
            capacity=told.Capacity(**dict(has.items())),
            address=f"10.201.0.1{self.name[1:]}",
            agent_address="",
            hypervisors=("qemu",),
            architecture="x86_64",
        )


class Switch:
    """The site's power switch, which at times does not answer, and at times has switched all the
    same."""

    def __init__(self, boxes: dict[str, Box], rng: random.Random) -> None:
        self._boxes = boxes
        self._rng = rng

    async def fence(self, facts: HostFacts, silent_for: timedelta) -> str:
        answer = self._rng.choice(("off", "off", "silent", "lost"))
        await turns(1)
        if answer != "silent":
            self._boxes[facts.host].power_off()
        if answer != "off":
            raise NotCertain("no answer")
        return "it is off"


class Site:
    def __init__(self, seed: int, method: str) -> None:
        self.rng = random.Random(seed)
        self.method = method
        self.clock = FakeClock(NOW)
        self.ledger = MemoryLedger(SITE)
        fences = method == "self"
        self.boxes = {name: Box(name, self.ledger, self.clock, fences) for name in HOSTS}
        self.ran_on: dict[str, set[str]] = {}
        """Hosts that a workspace was seen to run on."""
        self.states: set[HostState] = set()
        self.lead()

    def lead(self) -> None:
        """Another replica does, from now on."""
        self.ledger.term += 1
        fence: Fence = Switch(self.boxes, self.rng)
        if self.method == "self":
            fence = FenceByItself(margin=MARGIN)
        self.reconcile = Reconcile(self.ledger, SITE, self.clock)
        self.lost_hosts = LostHosts(self.ledger, SITE, fence, self.clock, lost_after=LOST_AFTER)

    async def create(self, name: str, count: int, on_host_loss: OnHostLoss) -> None:
        term = AvailabilityTerm(on_host_loss=on_host_loss)
        asked = spec(
            group(count=count, allocation=replace(ALLOCATION, availability=term)),
            lease=LeaseTerms(duration=timedelta(hours=1)),
        )
        view = await self.ledger.view()
        record, part = admitted(name, asked, view, now=self.clock.now(), policy=SITE)
        vni = 4096 + len(view.parts)
        part = replace(part, network_ids=(NetworkId(network="lan", vni=vni),))
        writes = (Write(record=record), Write(record=part))
        vnis = ((vni, part.uid),)
        await self.ledger.commit(Change(writes=writes, admitted_on=view.generation, vnis=vnis))

    async def step(self) -> None:
        for box in self.boxes.values():
            await box.turn()
            self.check()
        await self.reconcile.sweep()
        await self.lost_hosts.sweep()
        await self.clock.settle()
        self.check()
        view = await self.ledger.view()
        self.states |= {each.value.state for each in view.hosts.values()}
        await self.clock.advance(STEP_S)

    async def steps(self, count: int) -> None:
        for _ in range(count):
            await self.step()

    def mend(self) -> None:
        """Whoever was cut off or died is there again."""
        for box in self.boxes.values():
            box.wire.up = box.wire.writes = True
            if not box.runs:
                box.start_agent()

    def check(self) -> None:
        """The promise."""
        running: dict[str, str] = {}
        for box in self.boxes.values():
            for guest in box.guests:
                assert guest not in running, f"{guest} runs on {running[guest]} and {box.name}"
                running[guest] = box.name
                self.ran_on.setdefault(guest, set()).add(box.name)

    def trouble(self) -> None:
        """Something happens to a host, or to the broker."""
        box = self.boxes[self.rng.choice(HOSTS)]
        events = ("cut", "cut", "join", "join", "off", "on", "on", "again", "again", "full", "lead")
        match self.rng.choice(events):
            case "cut":
                box.wire.up = False
            case "join":
                box.wire.up = box.wire.writes = True
            case "full":
                box.wire.writes = False
            case "off":
                box.power_off()
            case "on" if not box.runs:
                box.start_agent()
            case "again" if box.runs:
                box.start_agent()
            case "lead" if self.rng.random() < 0.3:
                self.lead()


@pytest.mark.parametrize("method", ["command", "self"])
@pytest.mark.parametrize("seed", range(12))
async def test_no_workspace_ever_runs_twice(method: str, seed: int) -> None:
    site = Site(seed, method)
    await site.steps(3)
    await site.create("one", 3, OnHostLoss.RESTART)
    await site.create("two", 2, OnHostLoss.RESTART)
    await site.create("three", 1, OnHostLoss.END)
    for number in range(STEPS):
        if number > 5 and site.rng.random() < 0.08:
            site.trouble()
        await site.step()
    site.mend()
    await site.steps(40)
    assert_settled(site, await site.ledger.view())


def assert_settled(site: Site, view: Any) -> None:
    """All hosts are there again: what was not ended runs, each at one place, and nothing else."""
    assert {each.value.state for each in view.hosts.values()} <= {HostState.UP}
    wanted = {
        placed.workspace + part.value.name: placed.host
        for part in view.parts.values()
        if part.value.counted
        for placed in part.value.placed
    }
    assert sum(len(box.guests) for box in site.boxes.values()) == len(wanted)
    for cluster in view.clusters.values():
        if cluster.value.state is ClusterState.FAILED:
            assert cluster.value.failure.reason == HOST_LOST


@pytest.mark.parametrize("method", ["command", "self"])
async def test_a_lost_host_is_replaced_and_takes_away_what_it_had(method: str) -> None:
    """The simulation does come to what it is about."""
    site = Site(1, method)
    await site.steps(3)
    await site.create("one", 3, OnHostLoss.RESTART)
    await site.steps(5)
    lost = next(box for box in site.boxes.values() if box.guests)
    had = set(lost.guests)
    lost.wire.up = False
    await site.steps(60)
    elsewhere = {guest for box in site.boxes.values() if box is not lost for guest in box.guests}
    assert had <= elsewhere
    assert lost.guests == set()
    assert site.states == {HostState.SILENT, HostState.FENCING, HostState.FENCED}
    if method == "command":
        # It comes back with all its notes while it is still cut off.
        lost.start_agent()
        for _ in range(5):
            await site.step()
        assert lost.guests == set()
    lost.wire.up = True
    await site.steps(20)
    assert lost.host.storage.disks == {}
    assert lost.guests == set()
    assert (await site.ledger.view()).hosts[lost.name].value.state is HostState.UP
