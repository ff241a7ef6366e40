"""What the benches share: a testbed of their own, a user on it, and clusters that never start."""

from __future__ import annotations

import contextlib
import itertools
import sys
import tomllib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from testbed.bed import Testbed
from testbed.topology import Topology, default_topology

ECHO = Path(__file__).parent / "echo.py"
FLOOR = Path(__file__).parent / "etcd_floor.py"
INSTANCE = "bench"


@contextlib.contextmanager
def standing(topology: Topology | None = None) -> Iterator[Testbed]:
    """Two sites, or what is asked for, and a meta-scheduler; taken down whatever happens."""
    bed = Testbed.create(topology or default_topology(), INSTANCE)
    bed.down()
    bed.up()
    try:
        yield bed
    finally:
        bed.down()


def endpoint(bed: Testbed, name: str) -> dict[str, Any]:
    """The user's configuration for one service."""
    table: dict[str, Any] = tomllib.loads(bed.client().read_text())["endpoints"][name]
    return table


def channel(own: dict[str, Any], address: str = "", server_name: str = "") -> grpc.aio.Channel:
    """Mutual TLS, as any client has it."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=Path(own["roots"]).read_bytes(),
        private_key=Path(own["key"]).read_bytes(),
        certificate_chain=Path(own["certificate"]).read_bytes(),
    )
    name = server_name or own["server_name"]
    options = [("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(address or own["address"], credentials, options=options)


def bare(
    to: grpc.aio.Channel, protos: ModuleType, service: str, method: str
) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    """A method of a service that `protos` was made of, of octets and to octets."""
    name = protos.DESCRIPTOR.services_by_name[service].full_name
    return to.unary_unary(f"/{name}/{method}")


@contextlib.contextmanager
def echo_server(bed: Testbed, own: dict[str, Any], site: str) -> Iterator[str]:
    """A bare echo server in a site's control plane, with the broker's own certificate."""
    address = f"unix:{bed.places.run / f'echo-{site}.sock'}"
    folder = Path(own["roots"]).parent
    certificate = (str(folder / "broker.pem"), str(folder / "broker.key"), own["roots"])
    argv = [sys.executable, str(ECHO), address, *certificate]
    process = bed.popen(f"{site}/ctl", argv)
    try:
        yield address
    finally:
        process.kill()
        process.communicate()


@dataclass(slots=True, kw_only=True)
class FarRequests:
    """Requests for a minute each, one after another and days ahead: admitted, never started."""

    groups: tuple[tuple[str, str], ...]
    """Name of a group, and the site it must be at."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def next(self) -> clusters_pb2.CreateClusterRequest:
        number = next(self._numbers)
        start = datetime.now(UTC) + timedelta(days=2, minutes=2 * number)
        start_time, end_time = Timestamp(), Timestamp()
        start_time.FromDatetime(start)
        end_time.FromDatetime(start + timedelta(minutes=1))
        spec = cluster_pb2.ClusterSpec(
            networks=[cluster_pb2.Network(name="lan", subnet="10.1.0.0/24")],
            lease=cluster_pb2.LeaseTerms(start_time=start_time, end_time=end_time),
        )
        for name, at in self.groups:
            group = spec.groups.add(name=name, count=1)
            group.environment.image = "intertie-guest"
            group.allocation.vcpus = 1
            group.allocation.memory_mib = 128
            group.allocation.disk_mib = 256
            group.placement.allow_sites.append(at)
        return clusters_pb2.CreateClusterRequest(
            parent="-/tenants/demo",
            cluster_id=f"c{number}-{uuid.uuid4().hex[:8]}",
            spec=spec,
            request_id=uuid.uuid4().hex,
        )


def small_guests(count: int) -> clusters_pb2.CreateClusterRequest:
    """So many guests of the smallest useful size, at the north, on one network, for an hour from
    now on."""
    spec = cluster_pb2.ClusterSpec(
        networks=[cluster_pb2.Network(name="lan", subnet="10.1.0.0/24")],
    )
    spec.lease.duration.FromSeconds(3600)
    group = spec.groups.add(name="w", count=count)
    group.environment.image = "intertie-guest"
    group.allocation.vcpus = 1
    group.allocation.memory_mib = 112
    group.allocation.disk_mib = 256
    group.allocation.disk.cap_iops = 300
    group.placement.allow_sites.append("north")
    return clusters_pb2.CreateClusterRequest(
        parent="-/tenants/demo",
        cluster_id=f"g{uuid.uuid4().hex[:8]}",
        spec=spec,
        request_id=uuid.uuid4().hex,
    )
