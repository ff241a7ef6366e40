"""Admits a cluster at this site, or hands it on."""

from collections.abc import Callable
from datetime import datetime

import structlog

from intertie.broker.domain.cluster import (
    ClusterRecord,
    ClusterState,
    ClusterView,
    Waits,
    view_of,
)
from intertie.broker.domain.deadlines import draft_in_time
from intertie.broker.domain.fewest import GivesWay
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.giving_way import asked_before_others, draft_within_budget, writes_of
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.networks import NetworkId
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.planning import Draft, Image, check_disks, elsewhere, pinned
from intertie.broker.domain.ports import Caller, Foreign, Images, Ledger, WholeCluster
from intertie.broker.domain.price import amount_of
from intertie.broker.domain.queueing import digests, outlooks, queued, told
from intertie.broker.domain.records import Change, RequestKey, Write, forward_uid
from intertie.broker.domain.tariff import DEADLINE
from intertie.broker.domain.vnis import free_vnis
from intertie.broker.usecases.admission import Admission, Admitted
from intertie.broker.usecases.find_images import find_images
from intertie.broker.usecases.forwarding import Forwarding, check_no_cluster, still_free
from intertie.broker.usecases.get_cluster import view_of_whole
from intertie.common.clock import Clock
from intertie.common.errors import (
    FieldInvalid,
    ImageNotReady,
    NameTaken,
    NoCapacity,
    NotFound,
    Shortfall,
)
from intertie.common.names import ClusterName, PartName, uid_of
from intertie.common.spec import ClusterSpec, Kind, normalise, validate
from intertie.common.values import Struct, replace

log = structlog.get_logger(__name__)


class Order(Struct, frozen=True, kw_only=True):
    name: ClusterName
    """Under this site."""
    spec: ClusterSpec
    """As it was sent."""
    request: RequestKey
    validate_only: bool
    plan_token: str = ""
    """Of a plan that the meta-scheduler has told; empty: of none."""


class CreateCluster:
    def __init__(
        self,
        ledger: Ledger,
        images: Images,
        admission: Admission,
        forwarding: Forwarding,
        policy: Policy,
        clock: Clock,
        draw_seed: Callable[[], str],
    ) -> None:
        self._ledger = ledger
        self._images = images
        self._admission = admission
        self._forwarding = forwarding
        self._policy = policy
        self._clock = clock
        self._draw_seed = draw_seed

    async def __call__(self, order: Order, caller: Caller) -> ClusterView | Foreign:
        """Locally where this site can serve the request alone; else at the meta-scheduler,
        whose refusal then is the answer. What accepts a plan is the meta-scheduler's."""
        if not order.validate_only:
            before = await self._admission.answered(order.request)
            if before is not None:
                return await self._as_before(order, caller, before.uid)
        now = self._clock.now()
        validate(order.spec, now=now)
        if order.plan_token:
            return await self._elsewhere(order, caller)
        try:
            return await self._here(order, normalise(order.spec, now=now), caller)
        except (NoCapacity, ImageNotReady) as refusal:
            if order.spec.lease.kind is not None or not self._forwarding.possible:
                raise
            log.info("create.hand_on", cluster=str(order.name), why=str(refusal))
        return await self._elsewhere(order, caller)

    async def _elsewhere(self, order: Order, caller: Caller) -> ClusterView | Foreign:
        if order.plan_token and (
            order.spec.lease.kind is not None or not self._forwarding.possible
        ):
            raise FieldInvalid(
                "plan_token",
                "is of no plan of this site, which tells none to choose from for such a lease; "
                "leave it out",
            )
        if order.validate_only:
            return await self._forwarding.plan(
                caller, order.name, order.spec, plan_token=order.plan_token
            )
        try:
            return await self._handed_on(order, caller)
        except NameTaken:
            # By another copy of this very request, it may be, that found room here meanwhile.
            before = await self._admission.answered(order.request)
            if before is None or before.uid == forward_uid(order.request):
                raise
            return await self._as_before(order, caller, before.uid)

    async def _here(self, order: Order, spec: ClusterSpec, caller: Caller) -> ClusterView | Foreign:
        if shortfall := elsewhere(spec, self._policy.site):
            if spec.lease.kind is not None:
                raise FieldInvalid("spec.lease.kind", _one_site(spec.lease.kind, shortfall))
            raise NoCapacity((shortfall,))
        images = await find_images(self._images, spec, order.name.tenant, site=self._policy.site)
        check_disks(spec, images)
        if order.validate_only:
            return await self._planned(order, spec, images, caller)

        await self._ledger.check_leading()
        free = await self._forwarding.check_free(caller, order.name)

        def decide(view: LedgerView, now: datetime, *, alone: bool = False) -> Admitted:
            old = check_no_cluster(view.clusters.get(str(order.name)), order.name)
            handed_on = still_free(view.forwards.get(str(order.name)), order.name, free)
            written_over = old.revision if old else 0
            if _is_queued(spec):
                record = self._queued(order, spec, images, caller, view, now)
                change = Change(
                    writes=(Write(record=record, read_at=written_over),), unchanged=(handed_on,)
                )
                return Admitted(change=change, answer=record.name, uid=record.uid, waits=True)
            record, part, aside = self._draft(order, spec, images, caller, view, now, alone=alone)
            change = Change(
                writes=(
                    Write(record=part),
                    Write(record=record, read_at=written_over),
                    *writes_of(aside, now=now),
                ),
                unchanged=(handed_on,),
                admitted_on=view.generation,
                vnis=tuple((each.vni, part.uid) for each in part.network_ids),
            )
            return Admitted(change=change, answer=record.name, uid=record.uid)

        admitted = await self._admission.admit_before_others(order.request, decide)
        log.info("create.admitted", cluster=admitted.answer, uid=admitted.uid)
        view = await self._ledger.view()
        record = view.clusters.get(admitted.answer)
        if record is None or record.value.uid != admitted.uid:
            return await self._as_before(order, caller, admitted.uid)
        part = view.parts.get(record.value.part)
        seen = view.seen.get(part.value.uid, {}) if part else {}
        found = WholeCluster(cluster=record, part=part, seen=seen)
        return view_of_whole(found, site=self._policy.site)

    async def _planned(
        self, order: Order, spec: ClusterSpec, images: dict[str, Image], caller: Caller
    ) -> ClusterView:
        view, now = await self._ledger.view(), self._clock.now()
        if _is_queued(spec):
            record = self._queued(order, spec, images, caller, view, now)
            asked = {**view.clusters, record.name: Versioned(value=record, revision=0)}
            in_line = replace(view, clusters=asked, line=None)
            outlook = outlooks(in_line, self._policy, now=now)[record.name]
            planned = replace(told(record, outlook), state=ClusterState.PLANNED)
            return view_of(planned, None, {}, {}, site=self._policy.site)
        record, part, _ = self._draft(order, spec, images, caller, view, now, alone=True)
        planned = replace(record, state=ClusterState.PLANNED)
        return view_of(planned, part, {}, {}, site=self._policy.site)

    def _queued(
        self,
        order: Order,
        spec: ClusterSpec,
        images: dict[str, Image],
        caller: Caller,
        view: LedgerView,
        now: datetime,
    ) -> ClusterRecord:
        return queued(
            order.name,
            _uid(order, now),
            spec,
            images,
            view,
            self._policy,
            owner=caller.spiffe,
            now=now,
        )

    def _draft(
        self,
        order: Order,
        spec: ClusterSpec,
        images: dict[str, Image],
        caller: Caller,
        view: LedgerView,
        now: datetime,
        *,
        alone: bool,
    ) -> tuple[ClusterRecord, Part, tuple[GivesWay, ...]]:
        site = self._policy.site
        uid = _uid(order, now)
        wanted = pinned(spec, images, self._policy)
        waits = keeping = None
        if spec.lease.kind is Kind.DEADLINE:
            admissible, keeping = draft_in_time(
                order.name, uid, wanted, view, self._policy, now=now, alone=alone
            )
            waits = Waits(since=now, images=digests(images))
            asked = asked_before_others(
                admissible.draft.allotment.spec,
                admissible.aside,
                view,
                self._policy,
                now=now,
                kind=DEADLINE,
            )
        else:
            admissible, asked = draft_within_budget(
                order.name, uid, wanted, view, self._policy, now=now, alone=alone
            )
        found = admissible.draft
        part = replace(
            self._part(order, caller, uid, found, view, now), keeping=keeping, price=(asked,)
        )
        record = ClusterRecord(
            name=str(order.name),
            uid=uid,
            spec=spec,
            owner=caller.spiffe,
            state=ClusterState.SCHEDULED,
            part=str(PartName(site, order.name.tenant, f"c{uid}")),
            window=part.window,
            counts=found.counts,
            cost=amount_of(part.price),
            reasons=found.reasons,
            shortfalls=found.shortfalls,
            create_time=now,
            waits=waits,
        )
        return record, part, admissible.aside

    def _part(
        self, order: Order, caller: Caller, uid: str, found: Draft, view: LedgerView, now: datetime
    ) -> Part:
        """Confirmed at once: the only participant is its own coordinator."""
        spec = found.allotment.spec
        vnis = free_vnis(view, len(spec.networks))
        return Part(
            name=str(PartName(self._policy.site, order.name.tenant, f"c{uid}")),
            state=PartState.CONFIRMED,
            spec=spec,
            owner=caller.spiffe,
            create_time=now,
            seed=self._draw_seed(),
            placed=found.allotment.placed,
            gateway=found.allotment.gateway,
            network_ids=tuple(
                NetworkId(network=network.name, vni=vni)
                for network, vni in zip(spec.networks, vnis, strict=True)
            ),
        )

    async def _as_before(self, order: Order, caller: Caller, uid: str) -> ClusterView | Foreign:
        """The first call's cluster as it is now."""
        name = order.name
        found = await self._ledger.whole_cluster(name.tenant, name.cluster_id)
        if found is not None and found.cluster.value.uid == uid:
            return view_of_whole(found, site=self._policy.site)
        if await self._forwarding.find(name) is not None:
            return await self._handed_on(order, caller)
        raise NotFound(str(name))

    async def _handed_on(self, order: Order, caller: Caller) -> Foreign:
        return await self._forwarding.create(
            caller, order.name, order.spec, order.request, plan_token=order.plan_token
        )


def _is_queued(spec: ClusterSpec) -> bool:
    """It is written down whatever there is room for now."""
    return spec.lease.kind is Kind.BEST_EFFORT


def _uid(order: Order, now: datetime) -> str:
    return uid_of(str(order.name), order.request.caller, order.request.request_id, f"{now}")


def _one_site(kind: Kind, why: Shortfall) -> str:
    return (
        f"is {kind.value}, which a broker serves at its own site alone, and {why.message}; ask a "
        "meta-scheduler or another site, or leave the kind out"
    )
