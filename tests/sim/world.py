"""One run: everything that a seed leads to, from the first message to the last."""

from __future__ import annotations

import asyncio
import random
import warnings
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from typing import Any

from tests.sim.etcd_model import EtcdModel
from tests.sim.hosts import SimHost, run_agent
from tests.sim.network import Network
from tests.sim.power import PowerSwitch
from tests.sim.record import Paused, Profile, Record
from tests.sim.services import HOSTS, SITES, run_broker, run_metasched, seams
from tests.sim.surroundings import Logs, NoCollection
from tests.sim.trouble import BadStore, BadWires, make_trouble
from tests.sim.undone import undone
from tests.sim.users import User
from tests.sim.virtual_loop import Killed, Process, VirtualLoop, unwind

USERS_PER_DOOR = 2


class World:
    def __init__(self, profile: Profile, *, logs: bool = False) -> None:
        self.profile = profile
        self.logs = logs
        self.loop = VirtualLoop()
        self.loop.set_exception_handler(lambda *_: None)
        self.random = random.Random(f"world/{profile.seed}")
        self.record = Record(profile)
        self.network = Network(self.loop)
        self.stores = {
            name: EtcdModel(self.loop, name, self.record.writes) for name in (*SITES, "meta")
        }
        self.quiet = False
        self.armed: dict[str, bool] = {}
        """Points at which the next process is killed (true) or paused."""
        self.cut: set[tuple[str, str]] = set()
        """Who does not hear whom, by name of process and service."""
        self.network.wires = BadWires(self)
        faults = BadStore(self)
        for store in self.stores.values():
            store.faults = faults
        self.hosts = {
            f"{site}/{name}": SimHost(self.loop, self.record, site, name)
            for site in SITES
            for name in HOSTS
        }
        self.power = PowerSwitch(self.loop, self.power_off, profile.seed)
        self.services: dict[str, Callable[[Process], Coroutine[Any, Any, None]]] = {}
        for site in SITES:
            for number in (1, 2):
                self.services[f"{site}-{number}"] = self._broker(site, number)
            for name in HOSTS:
                self.services[f"agent-{site}-{name}"] = self._agent(site, name)
        for number in (1, 2):
            self.services[f"meta-{number}"] = self._metasched(number)
        self.processes: dict[str, Process] = {}
        self.dead: list[Process] = []
        self.incarnations: dict[str, int] = {}
        self.offsets = {name: self._offset() for name in self.services}
        self.record.offsets.update(self.offsets)
        self.users: list[User] = []

    def _offset(self) -> float:
        return self.random.uniform(-1, 1) * self.profile.offset_s

    def _broker(self, site: str, number: int) -> Callable[[Process], Coroutine[Any, Any, None]]:
        return lambda process: run_broker(process, self.stores[site], site, number)

    def _metasched(self, number: int) -> Callable[[Process], Coroutine[Any, Any, None]]:
        return lambda process: run_metasched(process, self.stores["meta"], number)

    def _agent(self, site: str, name: str) -> Callable[[Process], Coroutine[Any, Any, None]]:
        host = self.hosts[f"{site}/{name}"]
        return lambda process: run_agent(process, self.stores[site], host)

    # Processes

    def start(self, service: str) -> None:
        number = self.incarnations[service] = self.incarnations.get(service, 0) + 1
        process = Process(
            self.loop, f"{service}#{number}", offset_s=self.offsets[service], seed=self.profile.seed
        )
        self.processes[service] = process
        self.record.began[service] = self.loop.time()
        process.spawn(self._life(service, process))

    async def _life(self, service: str, process: Process) -> None:
        """A service ends only when it is killed, or when something in it is broken: then whoever
        keeps it, systemd for one, starts it again."""
        try:
            await self.services[service](process)
        except Killed:
            return
        except Exception as error:
            if process.closing:
                return
            self.record.fell.append(f"{process.name} ended by itself: {error!r}")
        if not process.dead and not process.closing:
            self.loop.later(0.0, self.kill, service)

    def kill(self, service: str, away_s: float = 0.0) -> None:
        """It comes back by itself, after so long at least."""
        process = self.processes[service]
        if process.dead:
            return
        self._count("killed")
        process.kill()
        self.record.began.pop(service, None)
        self.dead.append(process)
        self.loop.later(away_s + self.random.uniform(0.3, 8.0), self.start, service)

    def power_off(self, site: str, host: str, away_s: float = 0.0) -> None:
        """The machine: its agent with all its guests. It boots by itself."""
        self._count("powered off")
        self.kill(f"agent-{site}-{host}", away_s)
        self.hosts[f"{site}/{host}"].power_off()

    def pause(self, service: str, seconds: float) -> None:
        process = self.processes[service]
        self._count("paused")
        process.pause()
        now = self.loop.time()
        self.record.paused.append(Paused(service, now, now + seconds))
        self.loop.later(seconds, process.resume)

    def at_point(self, process: Process, name: str) -> None:
        kills = self.armed.pop(name, None)
        if kills is None or self.quiet:
            return
        service = process.name.partition("#")[0]
        self.record.points[name] = self.record.points.get(name, 0) + 1
        if kills:
            self.kill(service)
            raise Killed(name)
        self.pause(service, self.random.uniform(1.0, 30.0))

    def _count(self, what: str) -> None:
        self.record.faults[what] = self.record.faults.get(what, 0) + 1

    # A run

    def run(self) -> Record:
        with ExitStack() as stack:
            stack.enter_context(Logs(self.loop, shown=self.logs))
            stack.enter_context(NoCollection())
            stack.enter_context(warnings.catch_warnings())
            # What the dead had not begun is not to be awaited.
            warnings.simplefilter("ignore", RuntimeWarning)
            stack.enter_context(seams(self.network, self.at_point, self.power))
            random.seed(f"global/{self.profile.seed}")
            asyncio.set_event_loop(self.loop)
            try:
                self.loop.run_until_complete(self._whole())
            finally:
                self.record.ended_at = self.loop.time()
                self._close()
                asyncio.set_event_loop(None)
        self.record.messages = self.network.messages
        self.record.transactions = sum(each.transactions for each in self.stores.values())
        self._look_at_hosts()
        return self.record

    async def _whole(self) -> None:
        for service in self.services:
            self.start(service)
        await self.loop.sleep(8.0)
        self.users = [
            User(self, f"{door}-{number}", door)
            for door in (*SITES, "meta")
            for number in range(USERS_PER_DOOR)
        ]
        trouble = self.loop.create_task(make_trouble(self))
        busy = [each.process.spawn(each.live()) for each in self.users]
        await asyncio.wait([*busy])
        for each in busy:
            each.result()
        trouble.cancel()
        with suppress(asyncio.CancelledError):
            await trouble
        self.make_quiet()
        until = self.loop.time() + self.profile.settle_s
        while self.loop.time() < until and not self._settled():
            await self.loop.sleep(2.0)

    def make_quiet(self) -> None:
        """From here on nothing fails any more, and all that is under way has to come to an end."""
        self.quiet = True
        self.record.busy_until = self.loop.time()
        self.armed.clear()
        self.cut.clear()
        for store in self.stores.values():
            store.down = False
        for process in self.processes.values():
            process.resume()
        for paused in self.record.paused:
            paused.end = min(paused.end, self.loop.time())

    def _settled(self) -> bool:
        """Only for an early end: what is judged is the history."""
        over = self.loop.time() > self.record.busy_until + 20
        self._look_at_hosts()
        return over and not undone(self.record, grace_s=0.0)

    def _look_at_hosts(self) -> None:
        for name, host in self.hosts.items():
            domains = host.hypervisor.domains
            self.record.running[name] = tuple(domains)
            self.record.states[name] = {each: state.name for each, state in domains.items()}

    def _close(self) -> None:
        everybody = [*self.dead, *self.processes.values(), *(each.process for each in self.users)]
        unwind(self.loop, everybody)
