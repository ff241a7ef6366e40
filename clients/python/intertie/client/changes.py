"""All clusters of a tenant as they change, over whichever replicas answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum

from intertie.api.cluster.v1 import clusters_pb2_grpc
from intertie.api.cluster.v1.cluster_pb2 import Cluster
from intertie.api.cluster.v1.clusters_pb2 import WatchClustersRequest, WatchClustersResponse
from intertie.client.connection import Connection

SILENCE_S = 30.0
"""A stream that says nothing for so long is dead: the service speaks every 10 seconds."""
PATIENCE_S = 60.0


class SnapshotReason(Enum):
    """Why there is a snapshot; see the API's SnapshotBegin.Reason."""

    UNKNOWN = "REASON_UNSPECIFIED"
    NO_TOKEN = "NO_TOKEN"
    TOO_OLD = "TOO_OLD"
    FELL_BEHIND = "FELL_BEHIND"
    STORE_REPLACED = "STORE_REPLACED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that there is. What is known from before and is not in it is gone."""

    clusters: tuple[Cluster, ...]
    reason: SnapshotReason
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A cluster is new, or as it was not before."""

    cluster: Cluster
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """A cluster's record was cleared away."""

    name: str
    uid: str
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """Nothing has happened; the token is newer."""

    token: str


ClusterEvent = Snapshot | Changed | Gone | Alive


async def watch_all(
    connection: Connection,
    stub: clusters_pb2_grpc.ClustersAsyncStub,
    parent: str,
    *,
    resume_token: str,
    patience_s: float,
) -> AsyncGenerator[ClusterEvent]:
    """See Clusters.watch_all."""
    token = resume_token

    def request() -> WatchClustersRequest:
        return WatchClustersRequest(parent=parent, resume_token=token)

    stream = connection.lasting_stream(
        stub.WatchAll, request, silence_s=SILENCE_S, patience_s=patience_s
    )
    clusters: list[Cluster] = []
    reason = SnapshotReason.UNKNOWN
    async with aclosing(stream):
        async for told in stream:
            match told.WhichOneof("event"):
                case "snapshot_begin":
                    clusters, reason = [], _reason(told)
                    continue
                case "snapshot_clusters":
                    clusters.extend(told.snapshot_clusters.clusters)
                    continue
            # Taken for told before it is: who stops while handling an event has its token.
            token = told.resume_token or token
            match told.WhichOneof("event"):
                case "snapshot_end":
                    found, clusters = tuple(clusters), []
                    yield Snapshot(clusters=found, reason=reason, token=token)
                case "changed":
                    yield Changed(cluster=told.changed, token=token)
                case "gone":
                    yield Gone(name=told.gone.name, uid=told.gone.uid, token=token)
                case _:  # and what a later service may say
                    yield Alive(token=token)


def _reason(told: WatchClustersResponse) -> SnapshotReason:
    number = told.snapshot_begin.reason
    names = WatchClustersResponse.SnapshotBegin.Reason
    known = number in names.values()
    return SnapshotReason(names.Name(number)) if known else SnapshotReason.UNKNOWN
