"""The Clusters API of a site."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.api.types.v1 import attach_pb2
from intertie.broker import convert
from intertie.broker.domain.cluster import ClusterView
from intertie.broker.domain.ports import AtMetasched, Caller, Foreign
from intertie.broker.servicers.streams import Agents, Beyond
from intertie.broker.usecases.act import ActOnCluster
from intertie.broker.usecases.create_cluster import CreateCluster
from intertie.broker.usecases.delete_cluster import DeleteCluster
from intertie.broker.usecases.find_workspace import FindWorkspace
from intertie.broker.usecases.get_cluster import VIEWS_KEPT, GetCluster
from intertie.broker.usecases.list_clusters import ListClusters
from intertie.broker.usecases.plan_cluster import PlanCluster
from intertie.broker.usecases.update_cluster import UpdateCluster
from intertie.broker.usecases.watch_cluster import WatchCluster
from intertie.common.changes.watching import WatchAll
from intertie.common.errors import NotFound
from intertie.common.names import split_workspace
from intertie.common.rpc import attach
from intertie.common.rpc.action_proto import check_may_act
from intertie.common.rpc.changes_proto import Responses
from intertie.common.rpc.identity import current_identity
from intertie.common.rpc.pages import fitting, page_of

Context = Any


def caller() -> Caller:
    identity = current_identity()
    return Caller(spiffe=identity.caller, tenant=identity.own_tenant or "")


class ClustersServicer(clusters_pb2_grpc.ClustersServicer):
    def __init__(
        self,
        site: str,
        create: CreateCluster,
        plan: PlanCluster,
        get: GetCluster,
        list_clusters: ListClusters,
        watch: WatchCluster,
        update: UpdateCluster,
        watch_all: WatchAll,
        act: ActOnCluster,
        delete: DeleteCluster,
        find: FindWorkspace,
        agents: Agents,
        metasched: Beyond | None,
    ) -> None:
        self._site = site
        self._create = create
        self._plan = plan
        self._get = get
        self._list = list_clusters
        self._watch = watch
        self._update = update
        self._watch_all = watch_all
        self._responses = Responses()
        self._act = act
        self._delete = delete
        self._find = find
        self._agents = agents
        self._metasched = metasched
        self._told: dict[str, tuple[ClusterView, cluster_pb2.Cluster]] = {}

    async def Create(
        self, request: clusters_pb2.CreateClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        who = caller()
        order = convert.order_from_proto(request, site=self._site, caller=who.spiffe)
        return convert.cluster_to_proto(await self._create(order, who))

    async def Plan(
        self, request: clusters_pb2.PlanClusterRequest, context: Context
    ) -> clusters_pb2.PlanClusterResponse:
        who = caller()
        order = convert.plan_order_from_proto(request, site=self._site, caller=who.spiffe)
        return convert.plans_to_proto(await self._plan(order, who))

    async def Get(
        self, request: clusters_pb2.GetClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        name = convert.cluster_here(request.name, self._site)
        return self._message(await self._get(name, caller()))

    def _message(self, view: ClusterView | Foreign) -> cluster_pb2.Cluster:
        """Of a view that was told before, the same message: most of a Get is making it."""
        if isinstance(view, Foreign):
            return convert.cluster_to_proto(view)
        before = self._told.get(view.record.name)
        if before is not None and before[0] is view:
            return before[1]
        if len(self._told) >= VIEWS_KEPT:
            self._told.clear()
        message = convert.cluster_to_proto(view)
        self._told[view.record.name] = view, message
        return message

    async def List(
        self, request: clusters_pb2.ListClustersRequest, context: Context
    ) -> clusters_pb2.ListClustersResponse:
        parent = convert.parent_here(request.parent, self._site)
        found = await self._list(convert.tenant_of(parent), caller())
        scope = f"{parent}/clusters"
        page, following = page_of(
            found,
            lambda each: each[0],
            size=request.page_size,
            token=request.page_token,
            scope=scope,
        )
        clusters, following = fitting(
            [(name, convert.cluster_to_proto(view)) for name, view in page],
            following,
            scope=scope,
        )
        return clusters_pb2.ListClustersResponse(clusters=clusters, next_page_token=following)

    async def Watch(
        self, request: clusters_pb2.WatchClusterRequest, context: Context
    ) -> AsyncIterator[cluster_pb2.Cluster]:
        name = convert.cluster_here(request.name, self._site)
        async for view in self._watch(name, caller()):
            yield convert.cluster_to_proto(view)

    async def Update(
        self, request: clusters_pb2.UpdateClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        who = caller()
        order = convert.update_from_proto(request, site=self._site, caller=who.spiffe)
        return convert.cluster_to_proto(await self._update(order, who))

    async def WatchAll(
        self, request: clusters_pb2.WatchClustersRequest, context: Context
    ) -> AsyncIterator[clusters_pb2.WatchClustersResponse]:
        parent = convert.parent_here(request.parent, self._site)
        changes = self._watch_all(convert.tenant_of(parent), request.resume_token)
        async with aclosing(changes):
            async for told in changes:
                yield self._responses.of(told)

    async def Act(
        self, request: clusters_pb2.ActOnClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        who = caller()
        name = convert.cluster_here(request.name, self._site)
        check_may_act(current_identity(), request.action, request.host)
        order = convert.act_from_proto(request, caller=who.spiffe)
        return convert.cluster_to_proto(await self._act(name, order, request.etag, who))

    async def Delete(
        self, request: clusters_pb2.DeleteClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        name = convert.cluster_here(request.name, self._site)
        return convert.cluster_to_proto(await self._delete(name, request.etag, caller()))

    async def Attach(
        self, request_iterator: AsyncIterator[attach_pb2.AttachRequest], context: Context
    ) -> AsyncIterator[attach_pb2.AttachResponse]:
        opened = await attach.opening(request_iterator)
        owner, workspace = split_workspace(opened.workspace, "open.workspace")
        name = convert.cluster_here(owner, self._site)
        at = await self._find.of_cluster(name, workspace)
        if isinstance(at, AtMetasched):
            if self._metasched is None:
                raise NotFound(opened.workspace)
            stream = self._metasched.attach(
                caller(), at.tenant, at.cluster_id, opened, request_iterator
            )
        else:
            stream = self._agents.attach(at, opened, request_iterator)
        async for each in stream:
            yield each
