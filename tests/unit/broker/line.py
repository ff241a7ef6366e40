"""Clusters of a site that run when there is room, for tests that have them wait."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from intertie.broker.domain.cluster import ClusterRecord, ClusterState, Waits
from intertie.broker.domain.deadlines import draft_in_time
from intertie.broker.domain.fewest import GivesWay
from intertie.broker.domain.fleet import Fleet, Policy, SeenPart, SeenWorkspace, WorkspaceState
from intertie.broker.domain.giving_way import Admissible, draft_before_others, writes_of
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.planning import Allotment, Image, pinned
from intertie.broker.domain.price import asked_for
from intertie.broker.domain.queueing import digests, queued, started
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.tariff import DEADLINE
from intertie.common.names import ClusterName, uid_of
from intertie.common.spec import ClusterSpec, Kind, LeaseTerms, normalise
from intertie.common.values import replace
from tests.unit.broker.samples import DIGEST, HOUR, NOW, POLICY, facts
from tests.unit.broker.standing import ALLOCATION, group, spec

IMAGES: Mapping[str, Image] = {DIGEST: Image(digest=DIGEST, size_bytes=1, virtual_size_bytes=1)}


class ImagesHere:
    """See domain.ports.Images."""

    def __init__(self) -> None:
        self.here = dict(IMAGES)

    async def find(self, tenant: str, image: str) -> Image | None:
        return self.here.get(image)


def best_effort(count: int = 1, lasts: timedelta = HOUR, **lease: Any) -> ClusterSpec:
    terms = LeaseTerms(**{"duration": lasts, "kind": Kind.BEST_EFFORT, **lease})
    return spec(group(count=count), lease=terms)


def name_of(cluster_id: str, tenant: str = "demo") -> str:
    return f"sites/north/tenants/{tenant}/clusters/{cluster_id}"


def waits(
    cluster_id: str,
    asked: ClusterSpec,
    *,
    now: datetime = NOW,
    policy: Policy = POLICY,
    tenant: str = "demo",
) -> ClusterRecord:
    return queued(
        ClusterName.parse(name_of(cluster_id, tenant)),
        uid_of(cluster_id),
        normalise(asked, now=now),
        IMAGES,
        LedgerView(fleet=fleet(now)),
        policy,
        owner="alice",
        now=now,
    )


def by_deadline(
    count: int = 1, lasts: timedelta = HOUR, *, deadline: datetime, **lease: Any
) -> ClusterSpec:
    terms = LeaseTerms(**{"kind": Kind.DEADLINE, "deadline": deadline, "duration": lasts, **lease})
    return spec(group(count=count), lease=terms)


def in_time(
    cluster_id: str,
    asked: ClusterSpec,
    before: LedgerView,
    policy: Policy = POLICY,
    *,
    now: datetime = NOW,
) -> tuple[LedgerView, tuple[GivesWay, ...]]:
    """The ledger with a cluster that is admitted to be done in time, and who gives way for it."""
    name = ClusterName.parse(name_of(cluster_id))
    uid = uid_of(cluster_id)
    asked = normalise(asked, now=now)
    found, keeping = draft_in_time(
        name, uid, pinned(asked, IMAGES, policy), before, policy, now=now
    )
    allotment = found.draft.allotment
    price = asked_for(allotment.spec, before, policy, now=now, kind=DEADLINE)
    part = confirmed(f"c{uid}", allotment, now=now, price=(price,), keeping=keeping)
    record = ClusterRecord(
        name=str(name),
        uid=uid,
        spec=asked,
        owner="alice",
        state=ClusterState.SCHEDULED,
        part=part.name,
        window=part.window,
        counts=found.draft.counts,
        cost=0.0,
        reasons=found.draft.reasons,
        shortfalls=(),
        create_time=now,
        waits=Waits(since=now, images=digests(IMAGES)),
    )
    written_ = (Write(record=part), Write(record=record), *writes_of(found.aside, now=now))
    return written(before, Change(writes=written_)), found.aside


def asks(
    here: LedgerView,
    count: int = 1,
    *,
    now: datetime,
    policy: Policy = POLICY,
    vcpus: int = ALLOCATION.vcpus,
    **lease: Any,
) -> Admissible:
    """A lease that does not wait, for guests of so many vCPUs, and who gives way for it."""
    allocation = replace(ALLOCATION, vcpus=vcpus)
    terms = LeaseTerms(**{"duration": HOUR, **lease})
    asked = normalise(spec(group(count=count, allocation=allocation), lease=terms), now=now)
    name = ClusterName.parse(name_of("urgent"))
    return draft_before_others(name, "urgent", asked, here, policy, now=now)


def confirmed(part_id: str, allotment: Allotment, *, now: datetime, **more: Any) -> Part:
    """The part of one that is admitted."""
    return Part(
        name=f"sites/north/tenants/demo/parts/{part_id}",
        state=PartState.CONFIRMED,
        spec=allotment.spec,
        owner="alice",
        create_time=now,
        seed="",
        placed=allotment.placed,
        **more,
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


def with_records(before: LedgerView, *records: Part | ClusterRecord) -> LedgerView:
    return written(before, Change(writes=tuple(Write(record=each) for each in records)))


def start(
    before: LedgerView, cluster_id: str, *, now: datetime = NOW, policy: Policy = POLICY
) -> LedgerView:
    """It begins a stretch."""
    return written(before, started(before, name_of(cluster_id), policy, "seed", now=now))


def part_of(here: LedgerView, cluster_id: str) -> Part:
    return here.parts[here.clusters[name_of(cluster_id)].value.part].value


def reports_of(
    part: Part, state: WorkspaceState = WorkspaceState.SUSPENDED, **move: Any
) -> dict[str, SeenPart]:
    """Its hosts have obeyed; they say that its memory is in their pools, or another state."""
    return {
        host: SeenPart(
            host=host,
            part_uid=part.uid,
            generation=part.generation,
            obeyed_generation=part.generation,
            workspaces=tuple(
                SeenWorkspace(name=each.workspace, state=state, **move)
                for each in part.placed
                if each.host == host
            ),
        )
        for host in part.hosts()
    }


def saved_part(here: LedgerView, part: Part, **move: Any) -> LedgerView:
    return replace(here, seen={**here.seen, part.uid: reports_of(part, **move)})


def saved(here: LedgerView, cluster_id: str, **move: Any) -> LedgerView:
    return saved_part(here, part_of(here, cluster_id), **move)
