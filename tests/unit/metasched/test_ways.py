"""What users see of the ways between a cluster's sites."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from intertie.api.cluster.v1 import cluster_pb2
from intertie.common.etcd.client import Entry, Revision
from intertie.common.etcd.records import encode
from intertie.common.values import replace
from intertie.common.ways import Way
from intertie.metasched.adapters.cluster_changes import ClusterChanges
from intertie.metasched.adapters.etcd_clusters import CLUSTERS, SEEN
from intertie.metasched.convert import cluster_octets, cluster_to_proto
from intertie.metasched.domain.cluster import (
    ClusterRecord,
    ClusterState,
    PartSeen,
    SeenRecord,
    view_of,
)
from tests.fakes.clock import START as NOW
from tests.unit.metasched.world import NAME, World, committed, order, spec

SOON, LATER = timedelta(milliseconds=20), timedelta(milliseconds=21)
LOST = NOW - timedelta(seconds=7)
TO_SOUTH = Way(site="south", round_trip=SOON)
TO_NORTH = Way(site="north", round_trip=LATER)


async def a_record() -> ClusterRecord:
    stored = await (await committed(World())).clusters.get(str(NAME))
    assert stored is not None
    return stored.record


def seen(north: Way, south: Way) -> dict[str, PartSeen]:
    return {
        "north": PartSeen(over=False, ways=(north,)),
        "south": PartSeen(over=False, ways=(south,)),
    }


Links = dict[tuple[str, str], cluster_pb2.PlannedLink]


def links(record: ClusterRecord, parts: Mapping[str, PartSeen]) -> Links:
    message = cluster_to_proto(view_of(record, parts))
    return {(each.from_site, each.to_site): each for each in message.plan.links}


async def test_a_link_says_what_was_declared_and_what_is_measured() -> None:
    record = await a_record()
    found = links(record, seen(TO_SOUTH, TO_NORTH))
    assert found["north", "south"].round_trip.ToTimedelta() == SOON
    assert found["south", "north"].round_trip.ToTimedelta() == LATER
    assert all(each.HasField("latency") and each.mbit_s for each in found.values())
    assert not any(each.HasField("lost_since") for each in found.values())
    unknown = links(record, {})
    assert unknown.keys() == found.keys()
    assert not any(each.HasField("round_trip") for each in unknown.values())


async def test_it_is_lost_both_ways_by_either_site_s_word() -> None:
    record = await a_record()
    found = links(record, seen(TO_SOUTH, replace(TO_NORTH, round_trip=None, lost_since=LOST)))
    assert {each.lost_since.ToDatetime(LOST.tzinfo) for each in found.values()} == {LOST}


async def test_what_a_site_that_does_not_answer_said_last_does_not_count() -> None:
    record = await a_record()
    parts = seen(TO_SOUTH, Way(site="north", lost_since=LOST))
    parts["south"] = replace(parts["south"], current=False)
    found = links(record, parts)
    assert not any(each.HasField("lost_since") for each in found.values())
    assert {each.round_trip.ToTimedelta() for each in found.values()} == {SOON}


async def test_a_cluster_that_is_over_goes_no_way() -> None:
    record = (await a_record()).move(ClusterState.ENDED, now=NOW)
    found = links(record, seen(Way(site="south", lost_since=LOST), TO_NORTH))
    assert not any(each.HasField("lost_since") for each in found.values())


async def test_a_link_that_nothing_is_reserved_on_is_shown_once_it_is_known() -> None:
    world = World()
    process = await world.process()
    record = (await process.create(order(what=spec(5)))).record
    assert links(record, {}) == links(record, seen(Way(site="south"), Way(site="north"))) == {}
    found = links(record, seen(Way(site="south", lost_since=LOST), Way(site="north")))
    assert found.keys() == {("north", "south"), ("south", "north")}
    for each in found.values():
        assert each.lost_since.ToDatetime(LOST.tzinfo) == LOST
        assert not each.mbit_s
        assert not each.HasField("latency")


async def test_who_follows_changes_hears_of_a_loss_and_of_no_round_trip() -> None:
    record = await a_record()
    etags = set()
    changes = ClusterChanges(cluster_octets)

    def entry(prefix: str, value: object, revision: int) -> Entry:
        key = f"{prefix}demo/two-sites"
        return Entry(key=key, value=encode(value), create_revision=1, mod_revision=revision)

    def events(revision: int, parts: dict[str, PartSeen]) -> int:
        etags.add(view_of(record, parts).etag)
        put = entry(SEEN, SeenRecord(uid=record.uid, parts=parts), revision)
        return len(changes.take(Revision(number=revision, puts=(put,), deleted=())))

    changes.begin([entry(CLUSTERS, record, 1)])
    assert events(2, seen(TO_SOUTH, TO_NORTH)) == 0
    assert events(3, seen(replace(TO_SOUTH, round_trip=LATER), Way(site="north"))) == 0
    lost = replace(TO_SOUTH, lost_since=LOST)
    assert events(4, seen(lost, TO_NORTH)) == 1
    [shown] = changes.standing()
    told = cluster_pb2.Cluster.FromString(shown.octets())
    assert all(each.HasField("lost_since") for each in told.plan.links)
    assert events(5, seen(replace(lost, round_trip=None), TO_NORTH)) == 0
    assert events(6, seen(TO_SOUTH, TO_NORTH)) == 1
    assert len(etags) == 1
