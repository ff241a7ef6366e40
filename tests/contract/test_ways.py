"""What a gateway's agent finds of its ways is what a meta-scheduler reads of the site's part."""

from __future__ import annotations

from datetime import timedelta

from intertie.broker.adapters.agent_records import facts_from_bytes
from intertie.broker.convert import part_to_proto
from intertie.broker.domain.cluster import part_view
from intertie.broker.domain.ways import ways_of
from intertie.common.values import replace
from intertie.common.ways import Way
from intertie.metasched.convert_parts import part_from_proto
from intertie.nodeagent.convert import facts_to_proto
from intertie.nodeagent.domain.report import SeenWay
from tests.unit.broker.samples import NOW, part
from tests.unit.broker.test_ways import EAST, SOUTH, remote
from tests.unit.nodeagent.test_fenced import FACTS

SOON = timedelta(milliseconds=20, microseconds=7)
WIDE = part(
    gateway="n1",
    remotes=(remote("south", SOUTH), remote("east", EAST), remote("west", "10.250.0.14")),
)


def test_ways_arrive_as_they_were_found() -> None:
    found = (SeenWay(address=SOUTH, round_trip=SOON), SeenWay(address=EAST, lost_since=NOW))
    record = facts_to_proto(replace(FACTS, ways=found), now=NOW).SerializeToString()
    facts = facts_from_bytes(record, "n1")
    assert facts is not None
    view = part_view(WIDE, {}, {}, ways_of(WIDE, {"n1": facts}, now=NOW))
    assert part_from_proto(part_to_proto(view)).ways == (
        Way(site="east", lost_since=NOW),
        Way(site="south", round_trip=SOON),
        Way(site="west"),
    )
