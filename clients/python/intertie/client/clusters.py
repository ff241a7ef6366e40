"""Clusters, through whatever service the endpoint is."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from google.protobuf.field_mask_pb2 import FieldMask

from intertie.api.cluster.v1 import clusters_pb2_grpc
from intertie.api.cluster.v1.cluster_pb2 import Cluster, ClusterSpec
from intertie.api.cluster.v1.clusters_pb2 import (
    ActOnClusterRequest,
    CreateClusterRequest,
    DeleteClusterRequest,
    GetClusterRequest,
    ListClustersRequest,
    PlanClusterRequest,
    PlanClusterResponse,
    PlanOption,
    UpdateClusterRequest,
    WatchClusterRequest,
)
from intertie.api.types.v1.action_pb2 import Action
from intertie.client.attachment import Attachment
from intertie.client.changes import PATIENCE_S, ClusterEvent, watch_all
from intertie.client.connection import Connection
from intertie.common.names import ClusterName, check_label

CREATE_S = 120.0
OVER = frozenset({Cluster.ENDED, Cluster.REJECTED, Cluster.CANCELLED, Cluster.FAILED})
"""States that a cluster does not leave again."""


def draw_request_id() -> str:
    """A new one for every create or update that is meant; the same one for every try of it."""
    return str(uuid.uuid4())


class Clusters:
    """Names may be short (`demo`): then they are the tenant's own, at the service that is asked."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = connection.stub(clusters_pb2_grpc.ClustersStub)

    def full_name(self, name: str) -> str:
        if "/" in name:
            return str(ClusterName.parse(name))
        return f"{self._connection.endpoint.parent}/clusters/{check_label(name, 'name')}"

    async def create(
        self,
        cluster_id: str,
        spec: ClusterSpec,
        *,
        request_id: str = "",
        validate_only: bool = False,
        plan_token: str = "",
    ) -> Cluster:
        """The committed cluster. Give `request_id` to be able to ask again after this process.
        `plan_token`: of the option of `plan` that is accepted."""
        request = CreateClusterRequest(
            parent=self._connection.endpoint.parent,
            cluster_id=cluster_id,
            spec=spec,
            request_id=request_id or ("" if validate_only else draw_request_id()),
            validate_only=validate_only,
            plan_token=plan_token,
        )
        answer: Cluster = await self._connection.call(
            self._stub.Create, request, timeout_s=CREATE_S
        )
        return answer

    async def plan(self, cluster_id: str, spec: ClusterSpec) -> list[PlanOption]:
        """Plans to choose from, the earliest first. Nothing is held for them; `create` of the same
        id and specification with the `token` of one takes it, before its `accept_before`."""
        request = PlanClusterRequest(
            parent=self._connection.endpoint.parent, cluster_id=cluster_id, spec=spec
        )
        answer: PlanClusterResponse = await self._connection.call(
            self._stub.Plan, request, timeout_s=CREATE_S
        )
        return list(answer.options)

    async def get(self, name: str) -> Cluster:
        request = GetClusterRequest(name=self.full_name(name))
        answer: Cluster = await self._connection.call(self._stub.Get, request)
        return answer

    async def list(self) -> list[Cluster]:
        found: list[Cluster] = []
        request = ListClustersRequest(parent=self._connection.endpoint.parent)
        while True:
            page = await self._connection.call(self._stub.List, request)
            found.extend(page.clusters)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def watch(self, name: str) -> AsyncGenerator[Cluster]:
        """The cluster as it is now and after every change, until it is over."""
        request = WatchClusterRequest(name=self.full_name(name))
        async with aclosing(self._connection.stream(self._stub.Watch, request)) as stream:
            async for cluster in stream:
                yield cluster

    async def update(
        self,
        name: str,
        spec: ClusterSpec,
        paths: Sequence[str],
        *,
        etag: str = "",
        request_id: str = "",
        validate_only: bool = False,
    ) -> Cluster:
        """The cluster with what `paths` name (`spec.groups`, `spec.lease.end_time`,
        `spec.lease.duration`) as in `spec`, and all else as it is; of a refusal nothing stays.
        Give `request_id` to be able to ask again after this process."""
        request = UpdateClusterRequest(
            cluster=Cluster(name=self.full_name(name), spec=spec),
            update_mask=FieldMask(paths=paths),
            etag=etag,
            request_id=request_id or ("" if validate_only else draw_request_id()),
            validate_only=validate_only,
        )
        answer: Cluster = await self._connection.call(self._stub.Update, request)
        return answer

    async def watch_all(
        self, *, resume_token: str = "", patience_s: float = PATIENCE_S, parent: str = ""
    ) -> AsyncGenerator[ClusterEvent]:
        """What clusters there are, then every change of each, for ever. With the token of an
        earlier event it goes on behind that.

        A stream that breaks is taken up again by itself, at any replica, where it was: nothing is
        missed, and nothing told twice. A Snapshot comes first without a token, and whenever changes
        are not remembered any more: it is all that there is. Raises what hinders it once no replica
        has answered for `patience_s`; the last event's token is good for later. `parent` is the
        endpoint's tenant, or for operators `sites/-/tenants/-` or `metascheds/-/tenants/-`.
        """
        events = watch_all(
            self._connection,
            self._stub,
            parent or self._connection.endpoint.parent,
            resume_token=resume_token,
            patience_s=patience_s,
        )
        async with aclosing(events):
            async for event in events:
                yield event

    async def act(
        self,
        name: str,
        action: str,
        workspaces: Sequence[str] = (),
        *,
        etag: str = "",
        request_id: str = "",
        host: str = "",
    ) -> Cluster:
        """START, STOP, REBOOT, PAUSE, RESUME, SUSPEND or MIGRATE, of these (`worker-0`) or of all.
        Give `request_id` to be able to ask again after this process. `host`: where to MIGRATE,
        by operators."""
        request = ActOnClusterRequest(
            name=self.full_name(name),
            action=Action.Value(action),
            workspaces=workspaces,
            etag=etag,
            request_id=request_id or draw_request_id(),
            host=host,
        )
        answer: Cluster = await self._connection.call(self._stub.Act, request)
        return answer

    async def snapshot(
        self,
        name: str,
        workspace: str,
        image: str,
        *,
        etag: str = "",
        request_id: str = "",
    ) -> Cluster:
        """Asks for an image of the disk of `worker-0`, in the image store of its site. How far it
        is, `workspaces[…].snapshot` says; Watch tells of it."""
        request = ActOnClusterRequest(
            name=self.full_name(name),
            action=Action.SNAPSHOT,
            workspaces=[check_label(workspace, "workspace")],
            image=check_label(image, "image"),
            etag=etag,
            request_id=request_id or draw_request_id(),
        )
        answer: Cluster = await self._connection.call(self._stub.Act, request)
        return answer

    async def delete(self, name: str, *, etag: str = "") -> Cluster:
        request = DeleteClusterRequest(name=self.full_name(name), etag=etag)
        answer: Cluster = await self._connection.call(self._stub.Delete, request)
        return answer

    async def attach(self, name: str, workspace: str, *, port: int | None = None) -> Attachment:
        """An open stream to the console of `worker-0`, or to one of its TCP ports."""
        check_label(workspace, "workspace")
        full_name = f"{self.full_name(name)}/workspaces/{workspace}"
        attachment = Attachment(self._connection, self._stub.Attach(), full_name)
        await attachment.open(port)
        return attachment
