"""What an agent writes is not trusted to be readable."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from intertie.api.nodeagent.v1 import records_pb2
from intertie.broker.adapters.agent_records import facts_from_bytes, seen_from_bytes

YEAR_TEN_THOUSAND = Timestamp(seconds=253_402_300_800)


@pytest.mark.parametrize("octets", [b"\xff", b"\x08\x02", b""], ids=["rubbish", "newer", "empty"])
def test_a_record_that_cannot_be_read_is_as_none(octets: bytes) -> None:
    assert facts_from_bytes(octets, "n1") is None
    assert seen_from_bytes(octets, "n1") is None


def test_a_moment_that_cannot_be_is_as_no_record() -> None:
    """A bug: it raised in the loop that keeps up with agents, and the broker ended with it."""
    facts = records_pb2.HostFacts(schema=1, host="n1", report_time=YEAR_TEN_THOUSAND)
    assert facts_from_bytes(facts.SerializeToString(), "n1") is None
    workspace = records_pb2.SeenWorkspace(name="w-0", ready=True, ready_time=YEAR_TEN_THOUSAND)
    seen = records_pb2.SeenPart(schema=1, part_uid="u", workspaces=[workspace])
    assert seen_from_bytes(seen.SerializeToString(), "n1") is None
