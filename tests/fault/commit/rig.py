"""A testbed whose services stop at named points, and what is asked of it meanwhile."""

from __future__ import annotations

import threading
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.client.document import read_document
from testbed.bed import Testbed
from testbed.topology import HostSpec, SiteSpec, Topology, WanLink
from tests.e2e.driver import User
from tests.fault.commit.rules import COUNTED, OVER, broken, lost, unsettled
from tests.fault.commit.world import Eye, Unreadable, World

INSTANCE = "fault"
VCPUS = 3
"""Of every host: one for the guest that is kept, one for a cluster that ends, one for one of two
that are asked for meanwhile."""
CONVERGED_S = 15.0
"""After the last restart."""
QUIET_S = 30.0
"""Where nothing has failed: what is asked for is done by then on a busy machine too."""
BLANK = "blank"
"""An image without anything on it: what matters of its guests is that they are there."""
ASK_S = 60.0
_AGAIN_S = 0.3
_PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)


def topology() -> Topology:
    """Two sites of one host, three members in every etcd."""

    def site(name: str) -> SiteSpec:
        host = HostSpec(name=f"{name[0]}1", vcpus=1, gateway=True)
        return SiteSpec(name=name, hosts=(host,))

    return Topology(
        sites=(site("north"), site("south")),
        links=(WanLink(a="north", b="south", mbps=200, latency_ms=5.0),),
        etcd_members=3,
        cpu_overcommit=float(VCPUS),
        fault_points=True,
    )


@dataclass(slots=True)
class Asked:
    """A call that goes on in the background."""

    name: str
    call: Callable[[float], Any]
    """To be made any number of times: the same request."""
    error: grpc.RpcError | None = None
    thread: threading.Thread | None = None

    def start(self) -> Asked:
        self.thread = threading.Thread(target=self._once, daemon=True)
        self.thread.start()
        return self

    def _once(self) -> None:
        try:
            self.call(ASK_S)
        except grpc.RpcError as error:
            self.error = error

    def insist(self, within_s: float) -> None:
        """Asks again until it is done. What comes right by itself is waited for."""
        until = time.monotonic() + within_s
        while True:
            try:
                self.call(max(1.0, until - time.monotonic()))
                return
            except grpc.RpcError as error:
                if error.code() not in _PASSING or time.monotonic() > until:
                    raise AssertionError(f"{self.name}: {error.details()}") from error
            time.sleep(_AGAIN_S)


@dataclass(slots=True)
class Rig:
    testbed: Testbed
    user: User
    kept: frozenset[str] = frozenset()
    """Workspaces, by uid, that run from the beginning to the end."""
    baseline: World = field(default_factory=World)
    listings: dict[str, list[str]] = field(default_factory=dict)
    old: str = ""
    """A cluster that runs, for the next case to end."""
    _number: int = 0

    @property
    def eye(self) -> Eye:
        return Eye(self.testbed)

    # What a user asks for

    def create(self, *, image: str = BLANK, lasts: str = "1h", label: str = "c") -> Asked:
        """A cluster with a guest at each site, on one network."""
        self._number += 1
        name = f"{label}{self._number}"
        request = clusters_pb2.CreateClusterRequest(
            parent="metascheds/meta/tenants/demo",
            cluster_id=name,
            spec=_spec(name, image=image, lasts=lasts),
            request_id=str(uuid.uuid4()),
        )
        return Asked(name, lambda timeout_s: self._call("Create", request, timeout_s))

    def delete(self, name: str) -> Asked:
        full = f"metascheds/meta/tenants/demo/clusters/{name}"
        request = clusters_pb2.DeleteClusterRequest(name=full)
        return Asked(name, lambda timeout_s: self._call("Delete", request, timeout_s))

    def _call(self, method: str, request: Any, timeout_s: float) -> Any:
        """On a connection of its own: nothing is remembered of a service that was away."""
        table = tomllib.loads(self.user.config.read_text())["endpoints"]["meta"]
        credentials = grpc.ssl_channel_credentials(
            root_certificates=Path(table["roots"]).read_bytes(),
            private_key=Path(table["key"]).read_bytes(),
            certificate_chain=Path(table["certificate"]).read_bytes(),
        )
        options = [("grpc.ssl_target_name_override", table["server_name"])]
        with grpc.secure_channel(table["address"], credentials, options=options) as channel:
            stub = clusters_pb2_grpc.ClustersStub(channel)
            return getattr(stub, method)(request, timeout=timeout_s)

    # What became of it

    def look(self) -> World:
        """The world as it is, which keeps every promise."""
        world = self.eye.look()
        capacity = dict.fromkeys(self.eye.hosts, VCPUS)
        wrong = broken(world, capacity) + lost(self.baseline, world, self.kept)
        assert not wrong, "\n".join(wrong)
        return world

    def settles(self, since: float, *, within_s: float = CONVERGED_S) -> float:
        """How long after `since`, a moment of time.monotonic, all has come to rest."""
        left = ["nothing was read"]
        while True:
            try:
                left = unsettled(self.look())
            except Unreadable as error:
                left = [str(error)]
            took = time.monotonic() - since
            if not left:
                return took
            assert took < within_s, f"after {within_s} s:\n" + "\n".join(left)
            time.sleep(0.3)

    def guests_of(self, name: str) -> frozenset[str]:
        """Uids of a cluster's workspaces, as agents are told."""
        return self.eye.workspaces_of(f"metascheds/meta/tenants/demo/clusters/{name}")

    def listing(self, host: str) -> list[str]:
        """What is on a host, but for images that its agent keeps."""
        lines = self.testbed.inventory(host)
        return [line for line in lines if not line.startswith("file agent/cache/")]

    def nothing_is_left(self) -> None:
        """Of all that was made beside what is kept."""
        world = self.look()
        live = [part for part in world.parts if part.state in COUNTED]
        assert len(live) == 2, live
        for host, before in self.listings.items():
            now = self.listing(host)
            extra = sorted(set(now) - set(before)), sorted(set(before) - set(now))
            assert now == before, f"{host}: more, fewer: {extra}"

    # Beginning anew

    def mend(self) -> None:
        """Everything runs, no point is armed, no link is cut."""
        for pair in (("meta", "south"), ("north", "south")):
            self.testbed.heal_link(*pair)
        fallen = []
        for name, component in self.testbed.components().items():
            if self.testbed.places.points(name).is_dir():
                self.testbed.disarm(name)
            if component.running:
                component.cont()
            else:
                component.start(wait=False)
                fallen.append(component)
        for component in fallen:
            component.wait_ready()

    def clear(self) -> None:
        """Ends every cluster but the one that is kept, and waits until all is quiet."""
        for name, state in self.eye.look().clusters.items():
            if name != "kept" and state not in OVER:
                self.delete(name).insist(60)
        self.settles(time.monotonic(), within_s=3 * QUIET_S)

    @contextmanager
    def load(self, *, image: str = BLANK) -> Iterator[list[Asked]]:
        """Clusters being deleted and created: `old` ends, and two others want what there is."""
        asked = [
            self.delete(self.old),
            self.create(image=image, label="new"),
            self.create(image=image, label="rival"),
        ]
        for each in asked:
            each.start()
        yield asked
        for each in asked:
            if each.thread is not None:
                each.thread.join(ASK_S)

    def ready_for_a_case(self) -> None:
        if self.old:
            return
        asked = self.create(label="old")
        asked.insist(QUIET_S)
        self.settles(time.monotonic(), within_s=QUIET_S)
        self.old = asked.name


def _spec(name: str, *, image: str, lasts: str) -> cluster_pb2.ClusterSpec:
    text = f"""
name: {name}
groups:
"""
    for site in ("north", "south"):
        text += f"""
- name: {site[0]}
  count: 1
  environment: {{image: {image}, readiness: RUNNING}}
  allocation: {{vcpus: 1, memory_mib: 16, disk_mib: 4}}
  placement: {{allow_sites: [{site}]}}
"""
    text += f"""
networks: [{{name: lan, subnet: 10.1.0.0/24}}]
lease: {{duration: {lasts}}}
"""
    return read_document(text).spec
