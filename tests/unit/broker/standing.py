"""Clusters of one site that stand, for tests that change them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from intertie.broker.domain.cluster import ClusterRecord, ClusterState
from intertie.broker.domain.fleet import Fleet, Policy
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.planning import draft
from intertie.broker.domain.price import amount_of, asked_for
from intertie.common.names import ClusterName, PartName, uid_of
from intertie.common.spec import (
    Allocation,
    ClusterSpec,
    DiskTerm,
    Environment,
    Group,
    LeaseTerms,
    Network,
    normalise,
)
from tests.unit.broker.samples import DIGEST, HOUR, POLICY

ALLOCATION = Allocation(vcpus=1, memory_mib=128, disk_mib=128, disk=DiskTerm(cap_iops=100))


def group(name: str = "w", count: int = 1, **changes: Any) -> Group:
    values = {"environment": Environment(image=DIGEST), "allocation": ALLOCATION}
    return Group(**{"name": name, "count": count, **values, **changes})


def spec(*groups: Group, lease: LeaseTerms = LeaseTerms(duration=HOUR)) -> ClusterSpec:  # noqa: B008
    return ClusterSpec(
        groups=groups, networks=(Network(name="lan", subnet="10.1.0.0/24"),), lease=lease
    )


def view_of(fleet: Fleet, parts: Iterable[Part]) -> LedgerView:
    return LedgerView(
        parts={each.name: Versioned(value=each, revision=1) for each in parts}, fleet=fleet
    )


def admitted(
    cluster_id: str, asked: ClusterSpec, view: LedgerView, *, now: datetime, policy: Policy = POLICY
) -> tuple[ClusterRecord, Part]:
    """As Create admits it; NoCapacity where it does not fit."""
    name, uid = f"sites/north/tenants/demo/clusters/{cluster_id}", uid_of(cluster_id)
    wanted = normalise(asked, now=now)
    found = draft(ClusterName.parse(name), uid, wanted, view, policy, now=now)
    part = Part(
        name=str(PartName("north", "demo", f"c{uid}")),
        state=PartState.CONFIRMED,
        spec=found.allotment.spec,
        owner="alice",
        create_time=now,
        seed="seed",
        placed=found.allotment.placed,
        price=(asked_for(found.allotment.spec, view, policy, now=now),),
    )
    record = ClusterRecord(
        name=name,
        uid=uid,
        spec=wanted,
        owner="alice",
        state=ClusterState.SCHEDULED,
        part=part.name,
        window=part.window,
        counts=found.counts,
        cost=amount_of(part.price),
        reasons=found.reasons,
        shortfalls=found.shortfalls,
        create_time=now,
    )
    return record, part
