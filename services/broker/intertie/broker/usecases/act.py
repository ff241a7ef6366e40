"""Switches workspaces of a cluster, or of a part, on or off."""

from collections.abc import Mapping
from datetime import datetime

import structlog

from intertie.broker.domain import migrating
from intertie.broker.domain.acting import acted, open_for_actions
from intertie.broker.domain.amending import check_open
from intertie.broker.domain.cluster import ClusterState, ClusterView, view_of, workspaces_of
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import Caller, Foreign, Grants, Ledger
from intertie.broker.domain.records import Change, RequestKey, Write
from intertie.broker.domain.snapshots import begun, grant_of
from intertie.broker.usecases.admission import Admission, Admitted, known_part, there
from intertie.broker.usecases.forwarding import Forwarding
from intertie.broker.usecases.get_cluster import GetCluster
from intertie.broker.usecases.prepare_part import check_coordinator
from intertie.common.actions import Action
from intertie.common.clock import Clock
from intertie.common.errors import (
    ActionIllegal,
    ClusterOver,
    EtagStale,
    FieldInvalid,
    NotFound,
    PartOver,
)
from intertie.common.names import ClusterName, PartName, uid_of
from intertie.common.values import Struct

log = structlog.get_logger(__name__)


_LEGAL_OF_ALL: Mapping[ClusterState, tuple[Action, ...]] = {
    ClusterState.QUEUED: (),
    ClusterState.SUSPENDED: (Action.MIGRATE,),
}
"""Of clusters that do not run. What others may do is said of their workspaces."""


class ActOrder(Struct, frozen=True, kw_only=True):
    action: Action
    workspaces: tuple[str, ...]
    """Labels; empty: all."""
    host: str = ""
    """Where MIGRATE is to go to; empty: where there is room."""
    request: RequestKey
    image: str = ""
    """Of a SNAPSHOT: what to call it."""


class ActOnCluster:
    def __init__(
        self,
        ledger: Ledger,
        admission: Admission,
        get: GetCluster,
        forwarding: Forwarding,
        grants: Grants,
        policy: Policy,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._admission = admission
        self._get = get
        self._forwarding = forwarding
        self._grants = grants
        self._policy = policy
        self._clock = clock

    async def __call__(
        self, name: ClusterName, order: ActOrder, etag: str, caller: Caller
    ) -> ClusterView | Foreign:
        before = await self._get.here(name)
        if before is None:
            if await self._forwarding.reaches(name):
                if order.host:
                    raise FieldInvalid("host", "is for clusters of this site alone")
                return await self._forwarding.act(
                    caller,
                    name,
                    order.action,
                    order.workspaces,
                    etag,
                    order.request,
                    image=order.image,
                )
            raise NotFound(str(name))

        def decide(view: LedgerView, now: datetime) -> Admitted:
            cluster = view.clusters.get(str(name))
            if cluster is None:
                raise ClusterOver(str(name)) if before.record.over else NotFound(str(name))
            record = cluster.value
            check_open(record, now=now)
            legal = _LEGAL_OF_ALL.get(record.state)
            if legal is not None and order.action not in legal:
                names = ", ".join(each.name for each in legal)
                raise ActionIllegal(order.action.name, record.name, record.state.name, names)
            part = view.parts.get(record.part)
            if part is None or not open_for_actions(part.value, order.action, now=now):
                raise ClusterOver(record.name)
            seen = view.seen.get(part.value.uid, {})
            shown = view_of(record, part.value, seen, {}, site=self._policy.site)
            if etag and etag != shown.etag:
                raise EtagStale(record.name)
            after = _after(
                order, part.value, view, self._grants, self._policy, caller.spiffe, now=now
            )
            return _admitted(order, part, after, view, answer=record.name, uid=record.uid)

        admitted = await self._admission.admit(order.request, decide)
        log.info("act.asked_for", cluster=admitted.answer, action=order.action.name)
        after = await self._get.here(name)
        if after is None or after.record.uid != admitted.uid:
            raise NotFound(str(name))
        return after


class ActOnPart:
    def __init__(
        self, ledger: Ledger, admission: Admission, grants: Grants, policy: Policy
    ) -> None:
        self._ledger = ledger
        self._admission = admission
        self._grants = grants
        self._policy = policy

    async def __call__(self, name: PartName, order: ActOrder, caller: Caller) -> Part:
        def decide(view: LedgerView, now: datetime) -> Admitted:
            found = there(view, str(name))
            part = found.value
            check_coordinator(part, caller, "Act")
            if not open_for_actions(part, order.action, now=now):
                raise PartOver(part.name, part.state.name)
            after = _after(order, part, view, self._grants, self._policy, part.owner, now=now)
            return _admitted(order, found, after, view, answer=part.name, uid=part.uid)

        admitted = await self._admission.admit(order.request, decide)
        log.info("act.asked_for", part=admitted.answer, action=order.action.name)
        found = await known_part(self._ledger, PartName.parse(admitted.answer))
        if found is None:
            raise NotFound(admitted.answer)
        return found.value


def _after(
    order: ActOrder,
    part: Part,
    view: LedgerView,
    grants: Grants,
    policy: Policy,
    owner: str,
    *,
    now: datetime,
) -> Part | None:
    """None where nothing is changed."""
    seen = view.seen.get(part.uid, {})
    if order.action is Action.MIGRATE:
        there = workspaces_of(part, seen)
        states = {each.label: each.state.name for each in there}
        copied = {each.label for each in there if each.snapshot and not each.snapshot.over}
        return migrating.begun(
            part, states, order.workspaces, order.host, view, policy, copied=copied, now=now
        )
    after = acted(part, seen, order.action, order.workspaces)
    if order.action is not Action.SNAPSHOT:
        return after
    [label] = order.workspaces
    grant = grant_of(part, label, order.image, owner, now=now)
    key = order.request
    snapshot_id = uid_of("snapshot", part.name, key.caller, key.request_id, now.isoformat())
    return begun(part, grant, snapshot_id, grants.sign(grant))


def _admitted(
    order: ActOrder,
    part: Versioned[Part],
    after: Part | None,
    view: LedgerView,
    *,
    answer: str,
    uid: str,
) -> Admitted:
    """A migration takes capacity."""
    if after is None:
        return Admitted(change=Change(), answer=answer, uid=uid)
    takes = view.generation if order.action is Action.MIGRATE else None
    write = Write(record=after, read_at=part.revision)
    return Admitted(change=Change(writes=(write,), admitted_on=takes), answer=answer, uid=uid)
