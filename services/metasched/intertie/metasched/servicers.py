"""The meta-scheduler's services: messages in, use cases, messages out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol

from intertie.api.broker.v1 import part_pb2, site_pb2
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.api.metasched.v1 import (
    decisions_pb2,
    decisions_pb2_grpc,
    sites_pb2,
    sites_pb2_grpc,
)
from intertie.api.types.v1 import attach_pb2
from intertie.common.changes.watching import WatchAll
from intertie.common.errors import DomainError, FieldInvalid
from intertie.common.names import ANY
from intertie.common.rpc import pages
from intertie.common.rpc.action_proto import check_may_act
from intertie.common.rpc.attach import opening
from intertie.common.rpc.changes_proto import Responses
from intertie.common.rpc.identity import Role, current_identity
from intertie.metasched.convert import (
    act_order_of,
    cluster_to_proto,
    name_of,
    option_to_proto,
    order_of,
    parent_of,
    plan_order_of,
    update_order_of,
)
from intertie.metasched.convert_parts import decision_to_proto
from intertie.metasched.usecases.act_on_cluster import ActOnCluster
from intertie.metasched.usecases.attach import FindWorkspace
from intertie.metasched.usecases.create_cluster import CreateCluster
from intertie.metasched.usecases.decisions import Decisions
from intertie.metasched.usecases.delete_cluster import DeleteCluster
from intertie.metasched.usecases.get_cluster import GetCluster
from intertie.metasched.usecases.list_clusters import ListClusters
from intertie.metasched.usecases.plan_cluster import PlanCluster
from intertie.metasched.usecases.update_cluster import UpdateCluster
from intertie.metasched.usecases.watch_cluster import WatchCluster

Context = Any


class Brokers(Protocol):
    """What is asked of a site and handed on as it comes."""

    @property
    def names(self) -> tuple[str, ...]: ...

    async def describe(self, site: str) -> site_pb2.Site: ...

    async def hosts(self, request: site_pb2.ListHostsRequest) -> site_pb2.ListHostsResponse: ...

    def attach(
        self,
        site: str,
        opened: Any,
        requests: AsyncIterator[attach_pb2.AttachRequest],
    ) -> AsyncIterator[attach_pb2.AttachResponse]:
        """A byte stream to a workspace that `opened` names as the site names it."""
        ...


class ClustersServicer(clusters_pb2_grpc.ClustersServicer):
    def __init__(
        self,
        *,
        authority: str,
        create: CreateCluster,
        plan: PlanCluster,
        get: GetCluster,
        listing: ListClusters,
        watch: WatchCluster,
        watch_all: WatchAll,
        update: UpdateCluster,
        act: ActOnCluster,
        delete: DeleteCluster,
        find: FindWorkspace,
        sites: Brokers,
    ) -> None:
        self._authority = authority
        self._create = create
        self._plan = plan
        self._get = get
        self._list = listing
        self._watch = watch
        self._watch_all = watch_all
        self._responses = Responses()
        self._update = update
        self._act = act
        self._delete = delete
        self._find = find
        self._sites = sites

    async def Create(
        self, request: clusters_pb2.CreateClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        order = order_of(request, current_identity(), self._authority)
        if request.validate_only:
            return cluster_to_proto(await self._create.plan_only(order))
        return cluster_to_proto(await self._create(order))

    async def Plan(
        self, request: clusters_pb2.PlanClusterRequest, context: Context
    ) -> clusters_pb2.PlanClusterResponse:
        options = await self._plan(plan_order_of(request, current_identity(), self._authority))
        return clusters_pb2.PlanClusterResponse(options=map(option_to_proto, options))

    async def Get(
        self, request: clusters_pb2.GetClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        return cluster_to_proto(await self._get(name_of(request.name, self._authority)))

    async def List(
        self, request: clusters_pb2.ListClustersRequest, context: Context
    ) -> clusters_pb2.ListClustersResponse:
        parent = parent_of(request.parent, self._authority)
        scope = f"clusters {parent}"
        records, token = pages.page_of(
            await self._list(parent.tenant),
            lambda record: record.name,
            size=request.page_size,
            token=request.page_token,
            scope=scope,
        )
        views = await asyncio.gather(*(self._get.view(record) for record in records))
        clusters, token = pages.fitting(
            [(view.record.name, cluster_to_proto(view)) for view in views], token, scope=scope
        )
        return clusters_pb2.ListClustersResponse(clusters=clusters, next_page_token=token)

    async def Watch(
        self, request: clusters_pb2.WatchClusterRequest, context: Context
    ) -> AsyncIterator[cluster_pb2.Cluster]:
        async for view in self._watch(name_of(request.name, self._authority)):
            yield cluster_to_proto(view)

    async def Update(
        self, request: clusters_pb2.UpdateClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        order = update_order_of(request, current_identity(), self._authority)
        if request.validate_only:
            return cluster_to_proto(await self._update.plan_only(order))
        return cluster_to_proto(await self._update(order))

    async def WatchAll(
        self, request: clusters_pb2.WatchClustersRequest, context: Context
    ) -> AsyncIterator[clusters_pb2.WatchClustersResponse]:
        tenant = parent_of(request.parent, self._authority).tenant
        changes = self._watch_all("" if tenant == ANY else tenant, request.resume_token)
        async with aclosing(changes):
            async for told in changes:
                yield self._responses.of(told)

    async def Act(
        self, request: clusters_pb2.ActOnClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        check_may_act(current_identity(), request.action, "")
        if request.host:
            raise FieldInvalid("host", "is for clusters of one site, asked for there")
        order = act_order_of(request, current_identity(), self._authority)
        return cluster_to_proto(await self._act(order))

    async def Delete(
        self, request: clusters_pb2.DeleteClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        name = name_of(request.name, self._authority)
        return cluster_to_proto(await self._delete(name, request.etag))

    async def Attach(
        self, requests: AsyncIterator[attach_pb2.AttachRequest], context: Context
    ) -> AsyncIterator[attach_pb2.AttachResponse]:
        opened = await opening(requests)
        cluster, separator, label = opened.workspace.partition("/workspaces/")
        cluster = name_of(cluster, self._authority, "open.workspace")
        site, opened.workspace = await self._find(f"{cluster}{separator}{label}")
        async for response in self._sites.attach(site, opened, requests):
            yield response


class DecisionsServicer(decisions_pb2_grpc.DecisionsServicer):
    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions

    async def Get(
        self, request: decisions_pb2.GetDecisionRequest, context: Context
    ) -> part_pb2.Decision:
        decision = await self._decisions.get(request.tx)
        return decision_to_proto(decision) if decision else part_pb2.Decision(tx=request.tx)

    async def Resolve(
        self, request: decisions_pb2.ResolveDecisionRequest, context: Context
    ) -> part_pb2.Decision:
        identity = current_identity()
        stands = await self._decisions.resolve(
            request.tx,
            caller=identity.spiffe,
            site=identity.site if identity.role is Role.BROKER else "",
            reason=request.reason,
        )
        return decision_to_proto(stands)


class KnownSitesServicer(sites_pb2_grpc.KnownSitesServicer):
    def __init__(self, sites: Brokers) -> None:
        self._sites = sites

    async def List(
        self, request: sites_pb2.ListKnownSitesRequest, context: Context
    ) -> sites_pb2.ListKnownSitesResponse:
        found = await asyncio.gather(*(self._known(name) for name in self._sites.names))
        return sites_pb2.ListKnownSitesResponse(sites=found)

    async def ListHosts(
        self, request: site_pb2.ListHostsRequest, context: Context
    ) -> site_pb2.ListHostsResponse:
        return await self._sites.hosts(request)

    async def _known(self, name: str) -> sites_pb2.KnownSite:
        try:
            site = await self._sites.describe(name)
        except DomainError as error:
            return sites_pb2.KnownSite(
                site=site_pb2.Site(name=f"sites/{name}"), reachable=False, message=str(error)
            )
        return sites_pb2.KnownSite(site=site, reachable=True)
