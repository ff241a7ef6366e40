"""Gives a cluster of this site other terms: all of them in one transaction, or none. One that was
handed on is its meta-scheduler's to change."""

from datetime import datetime
from functools import partial

import structlog

from intertie.broker.domain.amending import amend_before_others, check_open
from intertie.broker.domain.cluster import ClusterRecord, ClusterView, view_of
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.giving_way import writes_of
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.ports import Caller, Foreign, Images, Ledger
from intertie.broker.domain.records import Change, RequestKey, Write
from intertie.broker.usecases.admission import Admission, Admitted
from intertie.broker.usecases.copies import AtWork
from intertie.broker.usecases.forwarding import Forwarding
from intertie.broker.usecases.get_cluster import GetCluster
from intertie.common.amend_rules import GROUPS, check_may_change
from intertie.common.clock import Clock
from intertie.common.errors import (
    ClusterOver,
    EtagStale,
    ImageNotReady,
    NotFound,
)
from intertie.common.names import ClusterName
from intertie.common.spec import ClusterSpec, image_field
from intertie.common.values import Struct

log = structlog.get_logger(__name__)


class UpdateOrder(Struct, frozen=True, kw_only=True):
    name: ClusterName
    spec: ClusterSpec
    """As it was sent; what `paths` do not name is passed over."""
    paths: tuple[str, ...]
    etag: str
    request: RequestKey
    validate_only: bool


class UpdateCluster:
    def __init__(
        self,
        ledger: Ledger,
        images: Images,
        admission: Admission,
        get: GetCluster,
        forwarding: Forwarding,
        policy: Policy,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._images = images
        self._admission = admission
        self._get = get
        self._forwarding = forwarding
        self._policy = policy
        self._clock = clock
        self._at_work = AtWork()

    async def __call__(self, order: UpdateOrder, caller: Caller) -> ClusterView | Foreign:
        """The old terms stand until this returns, and after every refusal."""
        if not order.validate_only:
            before = await self._admission.answered(order.request)
            if before is not None:
                return await self._as_it_is(order.name, before.uid)
        view = await self._get.here(order.name)
        if view is None:
            if await self._forwarding.reaches(order.name):
                return await self._forwarding.update(
                    caller,
                    order.name,
                    order.spec,
                    order.paths,
                    order.etag,
                    order.request,
                    validate_only=order.validate_only,
                )
            raise NotFound(str(order.name))
        check_open(view.record, now=self._clock.now())
        check_may_change(view.record.spec)
        await self._check_images(order, view)
        if order.validate_only:
            return self._planned(order, await self._ledger.view())
        # What is decided and stands in line is not in the view, so of one cluster one at a time.
        with self._at_work.on(str(order.name)) as updates:
            async with updates.lock:
                admitted = await self._admission.admit_before_others(
                    order.request, partial(self._decide, order)
                )
        log.info("update.amended", cluster=admitted.answer, paths=list(order.paths))
        return await self._as_it_is(order.name, admitted.uid)

    def _decide(
        self, order: UpdateOrder, view: LedgerView, now: datetime, *, alone: bool = False
    ) -> Admitted:
        cluster, part = self._there(order, view, now)
        record = cluster.value
        after, aside = amend_before_others(
            record,
            part.value,
            order.spec,
            order.paths,
            view,
            self._policy,
            now=now,
            alone=alone,
        )
        if after is None:
            return Admitted(change=Change(), answer=record.name, uid=record.uid)
        change = Change(
            writes=(
                Write(record=after.part, read_at=part.revision),
                Write(record=after.record, read_at=cluster.revision),
                *writes_of(aside, now=now),
            ),
            admitted_on=view.generation if after.takes_more else None,
        )
        return Admitted(change=change, answer=record.name, uid=record.uid)

    def _planned(self, order: UpdateOrder, view: LedgerView) -> ClusterView:
        now = self._clock.now()
        cluster, part = self._there(order, view, now)
        after, _ = amend_before_others(
            cluster.value, part.value, order.spec, order.paths, view, self._policy, now=now
        )
        record, amended = (after.record, after.part) if after else (cluster.value, part.value)
        seen = view.seen.get(part.value.uid, {})
        return view_of(record, amended, seen, {}, site=self._policy.site)

    def _there(
        self, order: UpdateOrder, view: LedgerView, now: datetime
    ) -> tuple[Versioned[ClusterRecord], Versioned[Part]]:
        """What is to be changed, if it is still what the caller has seen."""
        name = str(order.name)
        cluster = view.clusters.get(name)
        if cluster is None:
            raise NotFound(name)
        check_open(cluster.value, now=now)
        part = view.parts.get(cluster.value.part)
        if part is None or not _stands(part.value):
            raise ClusterOver(name)
        seen = view.seen.get(part.value.uid, {})
        shown = view_of(cluster.value, part.value, seen, {}, site=self._policy.site)
        if order.etag and order.etag != shown.etag:
            raise EtagStale(name)
        return cluster, part

    async def _check_images(self, order: UpdateOrder, view: ClusterView) -> None:
        """New workspaces get the image that those of their group have, and the data sets, if they
        are still here."""
        if GROUPS not in order.paths:
            return
        counts = dict(view.record.counts)
        digests = {each.group: each.image_digest for each in view.workspaces}
        part = (await self._ledger.view()).parts.get(view.record.part)
        data = {each.group: each.disks for each in (part.value.spec.workspaces if part else ())}
        for position, group in enumerate(order.spec.groups):
            digest = digests.get(group.name)
            if digest is None or group.most <= counts[group.name]:
                continue
            if await self._images.find(order.name.tenant, digest) is None:
                image, site = group.environment.image, self._policy.site
                raise ImageNotReady(image, site, image_field(position))
            for disk in data.get(group.name, ()):
                if disk.image and await self._images.find(order.name.tenant, disk.image) is None:
                    raise ImageNotReady(disk.image, self._policy.site, "spec.datasets")

    async def _as_it_is(self, name: ClusterName, uid: str) -> ClusterView:
        view = await self._get.here(name)
        if view is None or view.record.uid != uid:
            raise NotFound(str(name))
        return view


def _stands(part: Part) -> bool:
    return part.state is PartState.CONFIRMED and part.end_requested_time is None
