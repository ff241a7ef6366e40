"""Clusters of a site that run when there is room, for tests that have them wait."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.fleet import Fleet, Policy, SeenPart, SeenWorkspace, WorkspaceState
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part
from intertie.broker.domain.planning import Image
from intertie.broker.domain.queueing import queued, started
from intertie.broker.domain.records import Change
from intertie.common.names import ClusterName, uid_of
from intertie.common.spec import ClusterSpec, Kind, LeaseTerms, normalise
from intertie.common.values import replace
from tests.unit.broker.samples import DIGEST, HOUR, NOW, POLICY, facts
from tests.unit.broker.standing import group, spec

IMAGES: Mapping[str, Image] = {DIGEST: Image(digest=DIGEST, size_bytes=1, virtual_size_bytes=1)}


def best_effort(count: int = 1, lasts: timedelta = HOUR, **lease: Any) -> ClusterSpec:
    terms = LeaseTerms(**{"duration": lasts, "kind": Kind.BEST_EFFORT, **lease})
    return spec(group(count=count), lease=terms)


def name_of(cluster_id: str) -> str:
    return f"sites/north/tenants/demo/clusters/{cluster_id}"


def waits(
    cluster_id: str, asked: ClusterSpec, *, now: datetime = NOW, policy: Policy = POLICY
) -> ClusterRecord:
    return queued(
        ClusterName.parse(name_of(cluster_id)),
        uid_of(cluster_id),
        normalise(asked, now=now),
        IMAGES,
        LedgerView(fleet=fleet(now)),
        policy,
        owner="alice",
        now=now,
    )


def fleet(now: datetime = NOW, *hosts: str) -> Fleet:
    """Of hosts that are alive on the day after too."""
    names = hosts or ("n1", "n2")
    return Fleet.of([facts(each, report_time=now + 24 * HOUR) for each in names], POLICY)


def view(records: Iterable[ClusterRecord], now: datetime = NOW) -> LedgerView:
    return LedgerView(
        clusters={each.name: Versioned(value=each, revision=1) for each in records},
        fleet=fleet(now),
    )


def written(before: LedgerView, change: Change) -> LedgerView:
    """The ledger once a change is written."""
    parts, clusters = dict(before.parts), dict(before.clusters)
    for each in change.writes:
        record: Any = each.record
        into: Any = clusters if isinstance(record, ClusterRecord) else parts
        into[record.name] = Versioned(value=record, revision=1)
    vnis = {**before.vnis, **dict(change.vnis)}
    return replace(before, parts=parts, clusters=clusters, vnis=vnis)


def start(
    before: LedgerView, cluster_id: str, *, now: datetime = NOW, policy: Policy = POLICY
) -> LedgerView:
    """It begins a stretch."""
    return written(before, started(before, name_of(cluster_id), policy, "seed", now=now))


def part_of(here: LedgerView, cluster_id: str) -> Part:
    return here.parts[here.clusters[name_of(cluster_id)].value.part].value


def saved(here: LedgerView, cluster_id: str, **move: Any) -> LedgerView:
    """Its hosts say that its memory is in their pools."""
    part = part_of(here, cluster_id)
    seen = {
        host: SeenPart(
            host=host,
            part_uid=part.uid,
            generation=part.generation,
            obeyed_generation=part.generation,
            workspaces=tuple(
                SeenWorkspace(name=each.workspace, state=WorkspaceState.SUSPENDED, **move)
                for each in part.placed
                if each.host == host
            ),
        )
        for host in part.hosts()
    }
    return replace(here, seen={**here.seen, part.uid: seen})
