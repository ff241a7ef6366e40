"""What goes wrong: processes, stores, the wires between two, and single messages."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from intertie.common.points import POINTS
from tests.sim.etcd_model import EtcdModel, Fate, Faults, StreamFate
from tests.sim.network import Delivery, Wires
from tests.sim.virtual_loop import Process

if TYPE_CHECKING:
    from tests.sim.world import World

STOPS = tuple(sorted(each for each in POINTS if not each.startswith("imagestore.")))
"""The named points of the processes that are simulated; there is no image store among them."""
TWICE_BY_ITS_SENDER_ALONE = "Clusters/Create"
"""Users say it twice at once, and again whenever they do not know what came of it. That a copy of
its own comes after its refusal is not among what is simulated: gRPC doubles nothing, and a refusal
leaves no record that such a copy would find. Whatever else is sent is doubled on its way too."""
_OUTAGE_S = (0.5, 9.0)
_PAUSE_S = (0.5, 30.0)
_AWAY_S = (15.0, 50.0)
"""Of a host; after 20 s it is fenced."""
_CUT_S = (1.0, 12.0)


async def make_trouble(world: World) -> None:
    """For as long as users are at work."""
    loop, draw = world.loop, world.random
    services = sorted(world.services)
    leading = [each for each in services if not each.startswith("agent")]
    while True:
        await loop.sleep(draw.expovariate(1 / world.profile.trouble_s))
        kind = draw.random()
        if draw.random() < world.profile.hosts_lost:
            _lose_a_host(world)
            continue
        among = leading if draw.random() < 0.8 else services
        service = draw.choice(among)
        if kind < 0.45:
            world.armed[draw.choice(STOPS)] = draw.random() < 0.65
        elif kind < 0.6:
            world.kill(service)
        elif kind < 0.75:
            world.pause(service, draw.uniform(*_PAUSE_S))
        elif kind < 0.85:
            store = world.stores[draw.choice(sorted(world.stores))]
            store.down = True
            loop.later(draw.uniform(*_OUTAGE_S), setattr, store, "down", False)
        elif kind < 0.95:
            other = draw.choice([*leading, *sorted(world.stores)])
            wires = (service, other)
            world.cut.add(wires)
            loop.later(draw.uniform(*_CUT_S), world.cut.discard, wires)
        else:
            store = world.stores[draw.choice(sorted(world.stores))]
            store.compact(store.revision)
            for process in world.processes.values():
                store.break_streams(process)


def _lose_a_host(world: World) -> None:
    """For long enough to be taken for lost: its power is gone, its agent, or its way to etcd."""
    draw = world.random
    site, _, host = draw.choice(sorted(world.hosts)).partition("/")
    agent, away_s = f"agent-{site}-{host}", draw.uniform(*_AWAY_S)
    match draw.choice(("power", "agent", "cut")):
        case "power":
            world.power_off(site, host, away_s)
        case "agent":
            world.kill(agent, away_s)
        case "cut":
            world.cut.add((agent, site))
            world.loop.later(away_s, world.cut.discard, (agent, site))


class BadWires(Wires):
    def __init__(self, world: World) -> None:
        self._world = world
        self._random = random.Random(f"wires/{world.profile.seed}")

    def of_request(self, sender: Process, address: str, method: str) -> Delivery:
        to = address.partition(":")[0]
        again = not method.endswith(TWICE_BY_ITS_SENDER_ALONE)
        return self._fate(sender.name.partition("#")[0], to, again=again)

    def of_reply(self, sender: Process, receiver: Process) -> Delivery:
        a, b = sender.name.partition("#")[0], receiver.name.partition("#")[0]
        return self._fate(a, b, again=False)

    def _fate(self, a: str, b: str, *, again: bool) -> Delivery:
        world, draw = self._world, self._random.random
        delay = 0.001 + draw() * 0.01
        if world.quiet:
            return Delivery(delay)
        if (a, b) in world.cut or (b, a) in world.cut:
            return Delivery(None)
        chance = draw()
        of = world.profile
        if chance < of.lost:
            return Delivery(None)
        if chance < of.lost + of.slow:
            delay += draw() * 8.0
        twice = delay + draw() * (60.0 if draw() < 0.3 else 1.0)
        return Delivery(delay, twice if again and draw() < of.doubled else None)


class BadStore(Faults):
    def __init__(self, world: World) -> None:
        self._world = world
        self._random = random.Random(f"stores/{world.profile.seed}")

    def of_call(self, store: EtcdModel, process: Process | None, *, writes: bool) -> Fate:
        draw, of = self._random.random, self._world.profile
        request, answer = 0.0005 + draw() * 0.003, 0.0005 + draw() * 0.003
        if self._world.quiet:
            return Fate(request, answer)
        service = process.name.partition("#")[0] if process else ""
        if (service, store.name) in self._world.cut:
            return Fate(None, None)
        chance = draw()
        if chance < of.lost / 2:
            return Fate(None, None)
        if chance < of.lost:
            return Fate(request, None)
        if chance < of.lost + (of.late if writes else of.slow):
            # Up to beyond the time that its caller waits: it is done all the same.
            return Fate(draw() * 9.0, answer)
        return Fate(request, answer)

    def of_event(self, store: EtcdModel, process: Process | None) -> StreamFate:
        draw, of = self._random.random, self._world.profile
        delay = 0.001 + draw() * 0.005
        if self._world.quiet:
            return StreamFate(delay)
        service = process.name.partition("#")[0] if process else ""
        if (service, store.name) in self._world.cut:
            return StreamFate(delay, lost=True)
        chance = draw()
        return StreamFate(
            delay + (draw() * 3.0 if draw() < of.slow else 0.0),
            lost=chance < of.event_lost,
            broken=of.event_lost <= chance < of.event_lost + of.event_broken,
            twice=draw() < of.doubled,
        )
