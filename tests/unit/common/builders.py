"""Specifications that are well-formed, to be spoilt one field at a time."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from intertie.common.errors import FieldInvalid
from intertie.common.spec import (
    Allocation,
    BandwidthTerm,
    ClusterSpec,
    Environment,
    Group,
    Network,
    PairTerm,
    normalise,
    validate,
)
from intertie.common.values import replace

Change = Callable[[ClusterSpec], ClusterSpec]

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


def in_group(at: int, **fields: Any) -> Change:
    def change(spec: ClusterSpec) -> ClusterSpec:
        groups = list(spec.groups)
        groups[at] = replace(groups[at], **fields)
        return replace(spec, groups=tuple(groups))

    return change


def in_allocation(**fields: Any) -> Change:
    return lambda spec: in_group(1, allocation=replace(spec.groups[1].allocation, **fields))(spec)


def in_environment(**fields: Any) -> Change:
    return lambda spec: in_group(1, environment=replace(spec.groups[1].environment, **fields))(spec)


def named(cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Parameters of a test: what stands first of each is its name."""
    return [pytest.param(*case[1:], id=case[0]) for case in cases]


def check_refused(change: Change, field: str, remedy: str) -> None:
    """That the two groups are, with that change."""
    with pytest.raises(FieldInvalid) as caught:
        validate(change(two_groups()), now=NOW)
    assert caught.value.field == field
    assert remedy in caught.value.problem


def check_taken(change: Change) -> None:
    """That the two groups are right with that change, and still are when they are normalised."""
    spec = change(two_groups())
    validate(spec, now=NOW)
    validate(normalise(spec, now=NOW), now=NOW)
