"""Changes of clusters on the wire."""

from intertie.api.cluster.v1.clusters_pb2 import WatchClustersResponse
from intertie.common.changes.watching import (
    Alive,
    Changed,
    Gone,
    SnapshotBegin,
    SnapshotClusters,
    SnapshotEnd,
    Told,
)

KEPT = 256


class Responses:
    """Of one service. A change is told to many: those of late are kept."""

    def __init__(self) -> None:
        self._changed: dict[str, tuple[bytes, WatchClustersResponse]] = {}
        """By token: there is one of each change for each tenant's readers. With the octets that it
        was made of: a store that was put back gives the same numbers to other changes."""

    def of(self, told: Told) -> WatchClustersResponse:
        if isinstance(told, Changed):
            return self._of_change(told)
        response = WatchClustersResponse()
        match told:
            case SnapshotBegin():
                reason = WatchClustersResponse.SnapshotBegin.Reason.Value(told.reason.value)
                response.snapshot_begin.reason = reason
            case SnapshotClusters():
                for octets in told.messages:
                    response.snapshot_clusters.clusters.add().ParseFromString(octets)
            case SnapshotEnd():
                response.resume_token = told.token
                response.snapshot_end.SetInParent()
            case Gone():
                response.resume_token = told.token
                response.gone.name, response.gone.uid = told.name, told.uid
            case Alive():
                response.resume_token = told.token
                response.alive.SetInParent()
        return response

    def _of_change(self, told: Changed) -> WatchClustersResponse:
        known = self._changed.get(told.token)
        if known is not None and known[0] is told.message:
            return known[1]
        response = WatchClustersResponse(resume_token=told.token)
        response.changed.ParseFromString(told.message)
        if len(self._changed) >= KEPT:
            self._changed.clear()
        self._changed[told.token] = told.message, response
        return response
