"""Changes of clusters as messages."""

from __future__ import annotations

from intertie.api.cluster.v1.cluster_pb2 import Cluster
from intertie.api.cluster.v1.clusters_pb2 import WatchClustersResponse
from intertie.common.changes.watching import (
    Alive,
    Changed,
    Gone,
    Reason,
    SnapshotBegin,
    SnapshotClusters,
    SnapshotEnd,
)
from intertie.common.rpc.changes_proto import KEPT, Responses

ONE, OTHER = (Cluster(name=name).SerializeToString() for name in ("one", "other"))


def test_every_kind_has_its_message() -> None:
    responses = Responses()
    for reason in Reason:
        begun = responses.of(SnapshotBegin(reason))
        named = WatchClustersResponse.SnapshotBegin.Reason.Name(begun.snapshot_begin.reason)
        assert named == reason.value
    some = responses.of(SnapshotClusters((ONE, OTHER)))
    assert [each.name for each in some.snapshot_clusters.clusters] == ["one", "other"]
    assert some.resume_token == ""
    for told, kind in (
        (SnapshotEnd("t"), "snapshot_end"),
        (Changed(ONE, "t"), "changed"),
        (Gone("one", "u", "t"), "gone"),
        (Alive("t"), "alive"),
    ):
        response = responses.of(told)
        assert (response.WhichOneof("event"), response.resume_token) == (kind, "t")


def test_a_change_is_made_into_a_message_once_for_all_who_read_it() -> None:
    responses = Responses()
    assert responses.of(Changed(ONE, "t")) is responses.of(Changed(ONE, "t"))
    assert responses.of(Changed(ONE, "u")).resume_token == "u"
    for number in range(3 * KEPT):
        responses.of(Changed(ONE, f"{number}"))
    assert len(responses._changed) <= KEPT


def test_another_change_under_the_same_token_is_not_taken_for_it() -> None:
    """Of a store that was put back to an earlier state."""
    responses = Responses()
    responses.of(Changed(ONE, "t"))
    assert responses.of(Changed(OTHER, "t")).changed.name == "other"
