"""Specifications that are well-formed, to be spoilt one field at a time."""

from datetime import UTC, datetime

from intertie.common.spec import (
    Allocation,
    BandwidthTerm,
    ClusterSpec,
    Environment,
    Group,
    Network,
    PairTerm,
)
from intertie.common.values import replace

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f alice"


def allocation() -> Allocation:
    return Allocation(vcpus=1, memory_mib=128, disk_mib=64)


def group(name: str, count: int = 2) -> Group:
    return Group(
        name=name,
        count=count,
        environment=Environment(image="intertie-guest"),
        allocation=allocation(),
    )


def two_groups() -> ClusterSpec:
    """A head and three workers on one network, 20 Mbit/s promised between head and each worker."""
    head = group("head", 1)
    pair = PairTerm(group="worker", bandwidth=BandwidthTerm(guarantee_mbit_s=20))
    head = replace(head, allocation=replace(head.allocation, pairs=(pair,)))
    return ClusterSpec(
        groups=(head, group("worker", 3)),
        networks=(Network(name="net", subnet="10.1.0.0/24"),),
    )
