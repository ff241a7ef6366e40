"""Meta-schedulers: requests that are handed on, and their registers of decisions."""

from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, TypeVar

import grpc
from google.protobuf import field_mask_pb2

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.api.metasched.v1 import decisions_pb2, decisions_pb2_grpc
from intertie.api.types.v1 import attach_pb2
from intertie.broker.domain.decision import Decision
from intertie.broker.domain.ports import Caller, Foreign, ForeignPlans, RefusedSoFar
from intertie.broker.receipts_proto import decision_from_proto
from intertie.common.actions import Action
from intertie.common.clock import Clock
from intertie.common.errors import DomainError, NotLeading, SiteUnreachable
from intertie.common.names import ANY, ClusterName, Parent
from intertie.common.rpc import attach, request_id
from intertie.common.rpc.action_proto import action_to_proto
from intertie.common.rpc.client import to_domain_error
from intertie.common.rpc.delegation import vouch
from intertie.common.rpc.identity import parse_spiffe
from intertie.common.rpc.replicas import watched_copies
from intertie.common.rpc.signing import Signer
from intertie.common.rpc.spec_proto import cluster_spec_to_proto
from intertie.common.spec import ClusterSpec

T = TypeVar("T")

CREATE_TIMEOUT_S = 55.0
"""Planning and two rounds to every site; less than a handler may take."""
TIMEOUT_S = 10.0

_OVER = frozenset(
    {
        cluster_pb2.Cluster.ENDED,
        cluster_pb2.Cluster.REJECTED,
        cluster_pb2.Cluster.CANCELLED,
        cluster_pb2.Cluster.FAILED,
    }
)


class GrpcMetasched:
    """See domain.ports.Metasched. Every call carries a signed word on whose behalf it is."""

    def __init__(
        self, name: str, audience: str, channel: grpc.aio.Channel, signer: Signer, clock: Clock
    ) -> None:
        self.name = name
        self._audience = audience
        self._stub = clusters_pb2_grpc.ClustersStub(channel)
        self._signer = signer
        self._clock = clock

    async def create(
        self,
        caller: Caller,
        tenant: str,
        cluster_id: str,
        spec: ClusterSpec,
        *,
        request_id: str,
        validate_only: bool,
        plan_token: str,
    ) -> Foreign:
        request = clusters_pb2.CreateClusterRequest(
            parent=str(self._parent(tenant)),
            cluster_id=cluster_id,
            spec=cluster_spec_to_proto(spec),
            request_id=request_id,
            validate_only=validate_only,
            plan_token=plan_token,
        )
        metadata = self._behalf(caller, request)
        with watched_copies() as copies:
            try:
                call = self._stub.Create(request, metadata=metadata, timeout=CREATE_TIMEOUT_S)
                return _foreign(await self._reach(call))
            except DomainError as error:
                if copies.under_way and not validate_only:
                    raise RefusedSoFar(error) from None
                raise

    async def plan(
        self, caller: Caller, tenant: str, cluster_id: str, spec: ClusterSpec
    ) -> ForeignPlans:
        request = clusters_pb2.PlanClusterRequest(
            parent=str(self._parent(tenant)),
            cluster_id=cluster_id,
            spec=cluster_spec_to_proto(spec),
        )
        metadata = self._behalf(caller, request)
        call = self._stub.Plan(request, metadata=metadata, timeout=CREATE_TIMEOUT_S)
        return ForeignPlans(message=(await self._reach(call)).SerializeToString())

    async def get(self, caller: Caller, tenant: str, cluster_id: str) -> Foreign:
        request = clusters_pb2.GetClusterRequest(name=self._named(tenant, cluster_id))
        metadata = self._behalf(caller, request)
        call = self._stub.Get(request, metadata=metadata, timeout=TIMEOUT_S)
        return _foreign(await self._reach(call))

    async def delete(self, caller: Caller, tenant: str, cluster_id: str, etag: str) -> Foreign:
        request = clusters_pb2.DeleteClusterRequest(name=self._named(tenant, cluster_id), etag=etag)
        metadata = self._behalf(caller, request)
        call = self._stub.Delete(request, metadata=metadata, timeout=TIMEOUT_S)
        return _foreign(await self._reach(call))

    async def act(
        self,
        caller: Caller,
        tenant: str,
        cluster_id: str,
        action: Action,
        workspaces: tuple[str, ...],
        *,
        image: str,
        etag: str,
        request_id: str,
    ) -> Foreign:
        request = clusters_pb2.ActOnClusterRequest(
            name=self._named(tenant, cluster_id),
            action=action_to_proto(action),
            workspaces=workspaces,
            image=image,
            etag=etag,
            request_id=request_id,
        )
        call = self._stub.Act(request, metadata=self._behalf(caller, request), timeout=TIMEOUT_S)
        return _foreign(await self._reach(call))

    async def update(
        self,
        caller: Caller,
        tenant: str,
        cluster_id: str,
        spec: ClusterSpec,
        paths: tuple[str, ...],
        *,
        etag: str,
        request_id: str,
        validate_only: bool,
    ) -> Foreign:
        cluster = cluster_pb2.Cluster(
            name=self._named(tenant, cluster_id), spec=cluster_spec_to_proto(spec)
        )
        request = clusters_pb2.UpdateClusterRequest(
            cluster=cluster,
            update_mask=field_mask_pb2.FieldMask(paths=paths),
            etag=etag,
            request_id=request_id,
            validate_only=validate_only,
        )
        metadata = self._behalf(caller, request)
        call = self._stub.Update(request, metadata=metadata, timeout=CREATE_TIMEOUT_S)
        return _foreign(await self._reach(call))

    async def watch(self, caller: Caller, tenant: str, cluster_id: str) -> AsyncIterator[Foreign]:
        request = clusters_pb2.WatchClusterRequest(name=self._named(tenant, cluster_id))
        metadata = (*request_id.outgoing(), *self._behalf(caller, request))
        call = self._stub.Watch(request, metadata=metadata)
        try:
            async for each in call:
                yield _foreign(each)
        except grpc.aio.AioRpcError as error:
            raise self._meant(error) from None
        finally:
            call.cancel()

    async def attach(
        self,
        caller: Caller,
        tenant: str,
        cluster_id: str,
        opened: attach_pb2.AttachRequest.Open,
        requests: AsyncIterator[attach_pb2.AttachRequest],
    ) -> AsyncIterator[attach_pb2.AttachResponse]:
        """Relays a stream to a workspace of a cluster that was handed on."""
        label = opened.workspace.rpartition("/")[2]
        onward = attach_pb2.AttachRequest.Open()
        onward.CopyFrom(opened)
        onward.workspace = f"{self._named(tenant, cluster_id)}/workspaces/{label}"
        metadata = self._behalf(caller, attach_pb2.AttachRequest(open=onward))
        async for each in attach.relay(onward, requests, self._stub.Attach, metadata=metadata):
            yield each

    def _parent(self, tenant: str) -> Parent:
        return Parent(ANY, tenant)

    def _named(self, tenant: str, cluster_id: str) -> str:
        return str(ClusterName(self._parent(tenant), cluster_id))

    def _behalf(self, caller: Caller, request: Any) -> tuple[tuple[str, str], ...]:
        return vouch(
            self._signer,
            parse_spiffe(caller.spiffe),
            request,
            audience=self._audience,
            now=self._clock.now(),
        )

    async def _reach(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            meant = self._meant(error)
        if isinstance(meant, NotLeading):
            # Said as it came, it would be of this broker, whose other replicas can do no more.
            raise SiteUnreachable(self.name, f"meta-scheduler: {meant}")
        raise meant

    def _meant(self, error: grpc.aio.AioRpcError) -> Exception:
        problem = f"meta-scheduler: {error.details() or error.code().name}"
        return to_domain_error(error) or SiteUnreachable(self.name, problem)


def _foreign(message: cluster_pb2.Cluster) -> Foreign:
    return Foreign(
        name=message.name,
        message=message.SerializeToString(),
        over=message.state in _OVER,
        etag=message.etag,
    )


class GrpcRegisters:
    """See domain.ports.Registers: the register is asked of whom settings name for the
    coordinator's trust domain, and of nobody that a request names."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel]) -> None:
        self._stubs = {
            domain: decisions_pb2_grpc.DecisionsStub(channel)
            for domain, channel in channels.items()
        }

    async def resolve(self, coordinator: str, tx: str, reason: str) -> Decision:
        domain = coordinator.removeprefix("spiffe://").partition("/")[0]
        stub = self._stubs.get(domain)
        if stub is None:
            raise SiteUnreachable(domain, "no [[metascheds]] names it")
        request = decisions_pb2.ResolveDecisionRequest(tx=tx, reason=reason)
        try:
            return decision_from_proto(await stub.Resolve(request, timeout=TIMEOUT_S))
        except grpc.aio.AioRpcError as error:
            problem = error.details() or error.code().name
            raise to_domain_error(error) or SiteUnreachable(domain, problem) from None
