"""The testbed: brings an instance up, takes it down, and lets tests break parts of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed import capabilities
from testbed.component import (
    Component,
    ComponentFailed,
    Inside,
    environment_of,
    start_all,
)
from testbed.domains import create_certificates
from testbed.etcd_roles import provision_roles
from testbed.etcds import etcd_components
from testbed.fabric import Fabric
from testbed.hosts import host_components, inside_host, prepare_host
from testbed.interrupts import undisturbed
from testbed.inventory import guest_pids, inventory
from testbed.places import Places
from testbed.preflight import check_machine
from testbed.services import prepare_services, service_components, write_client
from testbed.sweep import leftovers, sweep
from testbed.topology import META, InvalidTopology, Topology

DEFAULT_USER = "alice"
DEFAULT_TENANT = "demo"


class InstanceExists(RuntimeError):
    """The instance is up, or something of it was left; `down` removes it."""


class InstanceAbsent(RuntimeError):
    """There is no such instance, or it was never brought up to the end."""


class InstanceBusy(RuntimeError):
    """Another process is bringing the instance up or taking it down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step of `up` is done."""

    step: str
    done: int
    total: int


def _silent(progress: Progress) -> None:
    del progress


class Testbed:
    """One instance. All state is in the machine: several objects and processes may hold one."""

    __test__ = False  # pytest takes classes named Test* for tests

    def __init__(self, topology: Topology, instance: str) -> None:
        self.topology = topology
        self.places = Places(instance)
        self._fabric = Fabric(self.places, topology)
        self._components: dict[str, Component] = {}

    @classmethod
    def create(cls, topology: Topology, instance: str = "demo") -> Testbed:
        """Nothing is made until `up`."""
        return cls(topology, instance)

    @classmethod
    def find(cls, instance: str = "demo") -> Testbed:
        """The instance that another process brought up."""
        try:
            text = Places(instance).topology_file.read_text()
        except FileNotFoundError:
            raise InstanceAbsent(f"no instance {instance!r}: bring it up first") from None
        return cls(Topology.from_json(text), instance)

    # The whole

    def up(
        self,
        progress: Callable[[Progress], None] = _silent,
        *,
        services: bool = True,
        keep_failed: bool = False,
    ) -> None:
        """All of it ready, or nothing left of it: any failure, a signal included, takes it down.

        Without `services` there are hosts with libvirt, the network, certificates and etcd. With
        `keep_failed`, what there is stays when a component fails, for a look at its log.
        """
        check_machine()
        self._refuse_existing(leftovers(self.places))
        with self._locked():
            self._refuse_existing([str(path) for path in self.places.run.iterdir()])
            try:
                self._up(progress, services=services)
            except BaseException as failure:
                if not (keep_failed and isinstance(failure, ComponentFailed)):
                    with undisturbed():
                        sweep(self.places)
                raise

    def down(self) -> None:
        """Removes everything of the instance, also what a killed testbed left. Idempotent."""
        if not leftovers(self.places):
            return
        with self._locked(), undisturbed():
            self._components.clear()
            sweep(self.places)

    def leftovers(self) -> list[str]:
        return leftovers(self.places)

    def _refuse_existing(self, found: list[str]) -> None:
        if found:
            raise InstanceExists(f"instance {self.places.instance!r} exists: {found[0]}")

    def _up(self, progress: Callable[[Progress], None], *, services: bool) -> None:
        places, topology = self.places, self.topology
        for folder in (places.pids, places.logs, places.configs, places.pki, places.disk):
            folder.mkdir(parents=True, exist_ok=True)
        places.topology_file.write_text(topology.to_json())
        self._fabric.create()
        for site, host in topology.hosts():
            prepare_host(places, site.name, host.name, vcpus=host.vcpus)
        hosts = host_components(places, topology)
        own = service_components(places, topology) if services else []
        etcds = etcd_components(places, topology)
        total = 3 + services + len(hosts) + len(etcds) + len(own)
        done = 0

        def tell(step: str) -> None:
            nonlocal done
            done += 1
            progress(Progress(step=step, done=done, total=total))

        tell("network")
        create_certificates(places, topology)
        prepare_services(places, topology)
        self.client()
        tell("certificates")
        start_all([*etcds, *hosts], tell)
        self._share_capabilities()
        tell("capabilities")
        if services:
            provision_roles(places, topology)
            tell("etcd roles")
            start_all(own, tell)

    def _share_capabilities(self) -> None:
        """One probe a machine; its answer is then kept for the next instance too."""
        everyone = [(site.name, host.name) for site, host in self.topology.hosts()]
        if capabilities.kept() is None:
            capabilities.probe(self.places, *everyone[0])
        for site, host in everyone:
            capabilities.give(self.places, site, host)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time. The lock dies with its holder."""
        run = self.places.run
        run.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                name = self.places.instance
                raise InstanceBusy(f"another process works on instance {name!r}") from None
            yield
        finally:
            os.close(handle)

    # Its parts

    def components(self) -> dict[str, Component]:
        """By name, in the order in which they are started."""
        if not self._components:
            all_of_them = (
                *etcd_components(self.places, self.topology),
                *host_components(self.places, self.topology),
                *service_components(self.places, self.topology),
            )
            self._components = {each.name: each for each in all_of_them}
        return self._components

    def component(self, name: str) -> Component:
        """`north/etcd-0`, `north/broker`, `north/n1/libvirtd`, `meta/metasched` and so on."""
        found = self.components().get(name)
        if found is None:
            raise InvalidTopology(f"no component {name!r}; there are {list(self.components())}")
        return found

    def inventory(self, host: str) -> list[str]:
        """What is on `SITE/HOST` now: equal before and after when nothing was left."""
        site, spec = self.topology.host(host)
        return inventory(self.places, site.name, spec.name)

    def guest_pids(self, host: str) -> list[int]:
        """The emulators on `SITE/HOST`, whether its libvirt runs or not."""
        site, spec = self.topology.host(host)
        return guest_pids(self.places, site.name, spec.name)

    def libvirt_uri(self, host: str) -> str:
        """For a client outside of the host."""
        site, spec = self.topology.host(host)
        return self.places.libvirt_uri(site.name, spec.name)

    def client(
        self, user: str = DEFAULT_USER, tenant: str = DEFAULT_TENANT, *, operator: bool = False
    ) -> Path:
        """The path of a client configuration; certificates are made anew."""
        path = self.places.run / "client.toml"
        if operator:
            path = self.places.clients / f"operator-{user}.toml"
        elif (user, tenant) != (DEFAULT_USER, DEFAULT_TENANT):
            path = self.places.clients / f"{tenant}-{user}.toml"
        return write_client(
            self.places,
            self.topology,
            user=user,
            tenant=tenant,
            path=path,
            operator=operator,
        )

    # Running inside

    def command(self, place: str, argv: Sequence[str]) -> tuple[str, ...]:
        """The command line that runs `argv` in `SITE/HOST`, `SITE/ctl`, `meta` or `fabric`."""
        return self._inside(place).wrap(tuple(argv))

    def run(
        self, place: str, argv: Sequence[str], *, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command inside and returns what it said."""
        return subprocess.run(
            self.command(place, argv),
            env=environment_of(self.places),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def popen(self, place: str, argv: Sequence[str]) -> subprocess.Popen[str]:
        """Starts a command inside; the caller ends it, and `down` does if not."""
        return subprocess.Popen(
            self.command(place, argv),
            env=environment_of(self.places),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _inside(self, place: str) -> Inside:
        if place in (META, "fabric"):
            return Inside(netns=f"{self.places.netns_prefix}{place}")
        site, _, rest = place.partition("/")
        if rest == "ctl":
            return Inside(netns=self.places.ctl_netns(self.topology.site(site).name))
        site_spec, host = self.topology.host(place)
        return inside_host(self.places, site_spec.name, host.name)

    # Stopping a service at a point of its code

    def arm(self, component: str, point: str) -> None:
        """The service stops itself when it comes to the point, once; in a topology with
        `fault_points` alone. See intertie.common.points."""
        self.component(component)
        (self.places.points(component) / point).touch()

    def disarm(self, component: str) -> None:
        """No point of the service is armed any more. One that stands at a point stays there."""
        for path in self.places.points(component).iterdir():
            path.unlink()

    def stands(self, component: str, point: str) -> bool:
        """It has come to the point and was not told to go on: SIGCONT is `cont`."""
        standing = self.places.points(component) / f"{point}.standing"
        return standing.exists() and self.component(component).stopped

    # Breaking the network

    def cut_link(self, a: str, b: str) -> None:
        """Drops all between two sites, or a site and `meta`, both ways."""
        self._fabric.cut_link(a, b)

    def heal_link(self, a: str, b: str) -> None:
        """Back to the declared capacity."""
        self._fabric.heal_link(a, b)

    def slow_link(self, a: str, b: str, mbps: int) -> None:
        self._fabric.slow_link(a, b, mbps)

    def cut_host_uplink(self, host: str) -> None:
        """Pulls the cable of `SITE/HOST`."""
        self._fabric.cut_host_uplink(*self._names(host))

    def heal_host_uplink(self, host: str) -> None:
        """Back to the declared capacity."""
        self._fabric.heal_host_uplink(*self._names(host))

    def slow_host_uplink(self, host: str, mbps: int) -> None:
        self._fabric.slow_host_uplink(*self._names(host), mbps)

    def _names(self, host: str) -> tuple[str, str]:
        site, spec = self.topology.host(host)
        return site.name, spec.name
