"""A meta-scheduler as brokers see it: a register of decisions, and clusters that are handed on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intertie.api.broker.v1 import part_pb2
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.api.metasched.v1 import decisions_pb2, decisions_pb2_grpc
from intertie.common.errors import DomainError, NotFound
from intertie.common.rpc.identity import current_identity
from intertie.common.rpc.server import Registration
from intertie.common.rpc.signing import Signer
from intertie.common.settings import NamedPeerSettings
from tests.integration.broker_site import serve
from tests.integration.pki import TestDomain

COORDINATOR = "spiffe://meta.meta.intertie/metasched"


@dataclass
class Register(decisions_pb2_grpc.DecisionsServicer):
    """Undecided transactions are aborted by whoever asks; `standing` are decided."""

    standing: dict[str, part_pb2.Decision] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def Resolve(
        self, request: decisions_pb2.ResolveDecisionRequest, context: Any
    ) -> part_pb2.Decision:
        self.asked.append(current_identity().spiffe)
        aborted = part_pb2.Decision(
            tx=request.tx,
            outcome=part_pb2.Decision.ABORT,
            decided_by=current_identity().spiffe,
            reason=request.reason,
        )
        return self.standing.setdefault(request.tx, aborted)


@dataclass
class Elsewhere(clusters_pb2_grpc.ClustersServicer):
    """Takes every cluster, once a request id; or refuses with `refusal`."""

    refusal: DomainError | None = None
    clusters: dict[str, cluster_pb2.Cluster] = field(default_factory=dict)
    request_ids: dict[str, str] = field(default_factory=dict)
    callers: list[str] = field(default_factory=list)
    planned: list[clusters_pb2.PlanClusterRequest] = field(default_factory=list)
    options: list[clusters_pb2.PlanOption] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    """Of plans that Creates accept."""
    updates: list[clusters_pb2.UpdateClusterRequest] = field(default_factory=list)

    async def Update(
        self, request: clusters_pb2.UpdateClusterRequest, context: Any
    ) -> cluster_pb2.Cluster:
        self.callers.append(current_identity().caller)
        self.updates.append(request)
        if self.refusal is not None:
            raise self.refusal
        return self._find(request.cluster.name)

    async def Create(
        self, request: clusters_pb2.CreateClusterRequest, context: Any
    ) -> cluster_pb2.Cluster:
        self.callers.append(current_identity().caller)
        if self.refusal is not None:
            raise self.refusal
        self.tokens.append(request.plan_token)
        name = f"metascheds/meta/tenants/demo/clusters/{request.cluster_id}"
        cluster = cluster_pb2.Cluster(
            name=name, uid="0123", spec=request.spec, state=cluster_pb2.Cluster.SCHEDULED
        )
        if request.validate_only:
            cluster.state = cluster_pb2.Cluster.PLANNED
            return cluster
        self.request_ids.setdefault(request.request_id, name)
        return self.clusters.setdefault(name, cluster)

    async def Plan(
        self, request: clusters_pb2.PlanClusterRequest, context: Any
    ) -> clusters_pb2.PlanClusterResponse:
        self.callers.append(current_identity().caller)
        if self.refusal is not None:
            raise self.refusal
        self.planned.append(request)
        return clusters_pb2.PlanClusterResponse(options=self.options)

    async def Get(
        self, request: clusters_pb2.GetClusterRequest, context: Any
    ) -> cluster_pb2.Cluster:
        return self._find(request.name)

    async def Delete(
        self, request: clusters_pb2.DeleteClusterRequest, context: Any
    ) -> cluster_pb2.Cluster:
        found = self._find(request.name)
        found.state = cluster_pb2.Cluster.CANCELLED
        return found

    async def Watch(
        self, request: clusters_pb2.WatchClusterRequest, context: Any
    ) -> AsyncIterator[cluster_pb2.Cluster]:
        yield self._find(request.name)

    def _find(self, name: str) -> cluster_pb2.Cluster:
        found = self.clusters.get(name.replace("-/tenants", "metascheds/meta/tenants", 1))
        if found is None:
            raise NotFound(name)
        return found


@dataclass
class Meta:
    register: Register
    elsewhere: Elsewhere
    peer: NamedPeerSettings


@contextlib.asynccontextmanager
async def metasched(
    folder: Path, meta: TestDomain, sites: Sequence[TestDomain]
) -> AsyncIterator[Meta]:
    register = Register()  # type: ignore[abstract]  # only what brokers ask
    elsewhere = Elsewhere()  # type: ignore[abstract]
    servicers: list[Registration] = [
        (
            decisions_pb2_grpc.add_DecisionsServicer_to_server,
            register,
            decisions_pb2.DESCRIPTOR.services_by_name["Decisions"],
        ),
        (
            clusters_pb2_grpc.add_ClustersServicer_to_server,
            elsewhere,
            clusters_pb2.DESCRIPTOR.services_by_name["Clusters"],
        ),
    ]
    server, address = await serve(
        folder, "meta", meta.service("metasched"), (meta, *sites), servicers
    )
    peer = NamedPeerSettings(
        name="meta",
        addresses=(address,),
        server_name=meta.server_name("metasched"),
        trust_domain=meta.name,
    )
    try:
        yield Meta(register, elsewhere, peer)
    finally:
        await server.stop(0)


def signed(
    body: part_pb2.ReceiptBody, domain: TestDomain, path: str = "broker"
) -> part_pb2.Receipt:
    """A receipt signed by a service of that domain."""
    signer = Signer.load(domain.service(path))
    octets = body.SerializeToString()
    made = signer.sign(octets)
    return part_pb2.Receipt(body=octets, signature=made.signature, certificate=made.certificate)


def commit(
    tx: str, digest: str, receipts: Sequence[part_pb2.Receipt], by: str = COORDINATOR
) -> part_pb2.Decision:
    return part_pb2.Decision(
        tx=tx,
        outcome=part_pb2.Decision.COMMIT,
        digest=digest,
        receipts=receipts,
        decided_by=by,
    )


def abort(tx: str) -> part_pb2.Decision:
    return part_pb2.Decision(
        tx=tx, outcome=part_pb2.Decision.ABORT, decided_by=COORDINATOR, reason="changed its mind"
    )
