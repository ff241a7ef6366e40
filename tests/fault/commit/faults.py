"""What is done to a process, to an etcd or to a link while a service stands at a point."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from testbed.bed import Testbed
from testbed.component import start_all
from tests.fault.commit.rig import Rig

STOPPED_S = 20.0
CUT_S = 8.0
AWAY_S = 3.0
"""How long what was killed stays away, while the others go on."""
HOW = ("killed", "stopped", "restarted")
SERVICES = {
    "metasched": "meta/metasched",
    "broker": "south/broker",
    "agent": "south/s1/nodeagent",
    "imagestore": "south/imagestore",
}
"""By the first word of their points."""
ETCDS = ("meta", "north", "south")


@dataclass(frozen=True, slots=True)
class Fault:
    """`what` is a service, `libvirtd`, `member` (one etcd of three, at the meta-scheduler and at a
    site, and the one that leads), `etcds` (all of them), or the link that is cut."""

    what: str
    how: str

    def __str__(self) -> str:
        return f"{self.what}-{self.how}"

    def strike(self, rig: Rig, standing: str) -> float:
        """Does it while `standing` stands at a point, which then goes on, and undoes it. Returns
        when the last of it was undone, as a moment of time.monotonic."""
        if self.how == "cut":
            return _cut(rig, standing, *self.what.split("/"))
        targets = [rig.testbed.component(name) for name in self._targets(rig)]
        own = any(each.name == standing for each in targets)
        goes_on = rig.testbed.component(standing)
        match self.how:
            case "killed":
                for each in targets:
                    each.kill9()
                if not own:
                    goes_on.cont()
                time.sleep(AWAY_S)
                start_all(targets)
            case "stopped":
                for each in targets:
                    each.stop()
                if not own:
                    goes_on.cont()
                time.sleep(STOPPED_S)
                for each in targets:
                    each.cont()
            case "restarted":
                _each_at_once(each.terminate for each in targets)
                start_all(targets)
                if not own:
                    goes_on.cont()
        return time.monotonic()

    def _targets(self, rig: Rig) -> list[str]:
        match self.what:
            case "libvirtd":
                return ["south/s1/libvirtd"]
            case "member":
                return [f"{at}/etcd-{rig.eye.leading_member(at)}" for at in ("meta", "south")]
            case "etcds":
                members = range(rig.testbed.topology.etcd_members)
                return [f"{at}/etcd-{number}" for at in ETCDS for number in members]
        return [SERVICES[self.what]]


def _cut(rig: Rig, standing: str, a: str, b: str) -> float:
    bed: Testbed = rig.testbed
    bed.cut_link(a, b)
    bed.component(standing).cont()
    time.sleep(CUT_S)
    bed.heal_link(a, b)
    return time.monotonic()


def _each_at_once(calls: Iterable[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(max_workers=9) as pool:
        for done in [pool.submit(call) for call in calls]:
            done.result()


ALL = [
    *(Fault(what, how) for what in (*SERVICES, "libvirtd", "member", "etcds") for how in HOW),
    Fault("meta/south", "cut"),
    Fault("north/south", "cut"),
]
