"""What agents say, told by a watch and found by listing, in whatever order that comes."""

from __future__ import annotations

from intertie.api.nodeagent.v1 import records_pb2
from intertie.broker.adapters.agent_reports import AgentReports
from intertie.common.etcd.client import Change, Entry, Snapshot
from tests.unit.broker.samples import POLICY


def entry(uid: str, revision: int) -> Entry:
    message = records_pb2.SeenPart(schema=1, part_uid=uid, generation=revision)
    return Entry(
        key=f"seen/n1/parts/{uid}",
        value=message.SerializeToString(),
        mod_revision=revision,
        create_revision=revision,
    )


def put(uid: str, revision: int) -> Change:
    return Change(revision=revision, puts=(entry(uid, revision),))


def test_what_was_put_after_a_listing_outlives_it() -> None:
    """A bug: a host's word that the watch had told was forgotten by a listing from before it."""
    reports = AgentReports(POLICY)
    reports.changed(put("a", 3))
    reports.changed(put("b", 7))
    reports.relisted(Snapshot(entries=(), revision=5))
    assert set(reports.seen) == {"b"}


def test_what_is_there_again_is_not_taken_away_by_the_news_that_it_was_gone() -> None:
    reports = AgentReports(POLICY)
    reports.relisted(Snapshot(entries=(entry("a", 9),), revision=9))
    reports.changed(Change(revision=8, deleted=(("seen/n1/parts/a", 8),)))
    assert set(reports.seen) == {"a"}
    reports.changed(Change(revision=10, deleted=(("seen/n1/parts/a", 10),)))
    assert reports.seen == {}


def test_what_differs_is_what_is_older_or_not_there() -> None:
    reports = AgentReports(POLICY, [entry("a", 3), entry("b", 4)])
    differing = reports.differing({"seen/n1/parts/a": 3, "seen/n1/parts/c": 5})
    assert differing.older == ("seen/n1/parts/c",)
    assert differing.gone == ("seen/n1/parts/b",)
