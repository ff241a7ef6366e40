"""A request that nobody can tell from one that fits without trying, and what solves it."""

from __future__ import annotations

from pathlib import Path
from random import Random

from intertie.api.cluster.v1 import cluster_pb2
from intertie.api.types.v1 import resources_pb2
from tests.integration.broker_site import HOST

HOSTS, EACH = 4, 4
"""Of two sites; workspaces that fill one."""


def hard_request(seed: int = 1) -> cluster_pb2.ClusterSpec:
    """As much memory as all hosts have, in pieces of which no four fill each of them."""
    draw, memory_mib = Random(seed), HOST["memory_mib"]
    sizes: list[int] = []
    for _ in range(HOSTS):
        pieces = [draw.randrange(memory_mib // 5, 3 * memory_mib // 10) for _ in range(EACH - 1)]
        sizes += [*pieces, memory_mib - sum(pieces)]
    sizes[0], sizes[EACH + 1] = sizes[0] + 1, sizes[EACH + 1] - 1
    groups = [
        cluster_pb2.Group(
            name=f"g{number}",
            count=1,
            environment=resources_pb2.Environment(image="guest"),
            allocation=resources_pb2.Allocation(vcpus=1, memory_mib=size, disk_mib=128),
        )
        for number, size in enumerate(sizes)
    ]
    lan = cluster_pb2.Network(name="lan", subnet="10.1.0.0/24")
    return cluster_pb2.ClusterSpec(groups=groups, networks=[lan])


def solvers_of(service: int) -> set[int]:
    """Of a meta-scheduler's process: those that its server of solvers has forked."""
    return {solver for server in _children(service) for solver in _children(server)}


def servers_of(service: int) -> set[int]:
    return _children(service)


def _children(pid: int) -> set[int]:
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found |= set(map(int, task.read_text().split()))
    return found


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def is_there(pid: int) -> bool:
    """Unless it is dead, buried or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "XZ"
    except FileNotFoundError:
        return False
