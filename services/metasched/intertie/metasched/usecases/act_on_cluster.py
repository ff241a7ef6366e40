"""Switches workspaces of a cluster on or off, each at its own site."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from intertie.common.actions import Action, Switched, allowed, in_vain
from intertie.common.clock import Clock
from intertie.common.errors import (
    ActionIllegal,
    ClusterOver,
    EtagStale,
    FieldInvalid,
    NotFound,
    PartOver,
    SiteUnreachable,
)
from intertie.common.names import PartName, uid_of
from intertie.metasched.domain.cluster import LIVE, WAITING, ClusterRecord, ClusterView, PartSeen
from intertie.metasched.domain.lost_sites import given_up
from intertie.metasched.domain.ports import Clusters, Sites
from intertie.metasched.usecases.get_cluster import GetCluster
from intertie.metasched.usecases.part_cache import PartCache

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActOrder:
    name: str
    action: Action
    workspaces: tuple[str, ...]
    """Labels; empty: all."""
    etag: str
    caller: str
    request_id: str
    image: str = ""
    """Of a SNAPSHOT: what to call it."""


class ActOnCluster:
    """What sites know of a request by its id is all that there is of it: nothing is written
    here. So a site that did not answer is asked by the same request again."""

    def __init__(
        self,
        clusters: Clusters,
        get_cluster: GetCluster,
        sites: Sites,
        parts: PartCache,
        clock: Clock,
    ) -> None:
        self._clusters = clusters
        self._get_cluster = get_cluster
        self._sites = sites
        self._parts = parts
        self._clock = clock

    async def __call__(self, order: ActOrder) -> ClusterView:
        await self._clusters.check_leading()
        view = await self._get_cluster(order.name)
        record = view.record
        if record.state in WAITING and record.end_requested_time is None:
            raise ActionIllegal(order.action.name, record.name, record.state.name, "")
        over = record.over or record.end_requested_time is not None
        if over or record.state not in LIVE or self._clock.now() >= record.window.end:
            raise ClusterOver(record.name)
        if order.etag and order.etag != view.etag:
            raise EtagStale(record.name)
        by_site = _by_site(view, order)
        _check(view, order)
        answers = await asyncio.gather(
            *(self._at(record, site, labels, order) for site, labels in by_site.items()),
            return_exceptions=True,
        )
        problems = [each for each in answers if isinstance(each, BaseException)]
        for problem in sorted(problems, key=lambda each: isinstance(each, SiteUnreachable)):
            raise problem
        log.info("act.asked_for", cluster=record.name, action=order.action.name)
        return await self._get_cluster.view(record)

    async def _at(
        self, record: ClusterRecord, site: str, labels: Sequence[str], order: ActOrder
    ) -> None:
        part = record.parts[site]
        try:
            seen = await self._sites.act(
                PartName.parse(part),
                order.action,
                labels,
                image=order.image,
                request_id=f"act-{uid_of(order.caller, order.request_id, part)}",
            )
        except (NotFound, PartOver):
            gone = {site: PartSeen(over=True)}
            if given_up(record, gone, now=self._clock.now()):
                why = "it has given up what it had, which is to begin anew elsewhere"
                raise SiteUnreachable(site, why) from None
            raise ClusterOver(record.name) from None
        self._parts.heard(part, seen)


def _by_site(view: ClusterView, order: ActOrder) -> dict[str, list[str]]:
    site_of = {each.label: each.site for each in view.workspaces}
    found: dict[str, list[str]] = {}
    for position, label in enumerate(order.workspaces or site_of):
        if label not in site_of:
            known = ", ".join(sorted(site_of))
            raise FieldInvalid(f"workspaces[{position}]", f"there is no {label}; known: {known}")
        found.setdefault(site_of[label], []).append(label)
    return found


def _check(view: ClusterView, order: ActOrder) -> None:
    """As far as it can be told here, before any site is asked: what sites have been told and
    their hosts have not come to yet only they know."""
    for each in view.workspaces:
        if order.workspaces and each.label not in order.workspaces:
            continue
        state, how = each.seen.state.name, Switched()
        legal = allowed(state, how)
        if not legal and not in_vain(order.action, state, how):
            raise ActionIllegal(order.action.name, each.label, state, "")
