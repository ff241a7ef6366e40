"""What the wire can say and a value cannot."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from intertie.api.broker.v1 import part_pb2
from intertie.api.cluster.v1 import cluster_pb2
from intertie.api.types.v1 import resources_pb2 as types_pb2
from intertie.common import spec
from intertie.common.errors import FieldInvalid, Shortfall
from intertie.common.intervals import Window
from intertie.common.rpc import spec_proto
from tests.unit.common.builders import NOW


def test_what_is_left_out_is_what_the_proto_says() -> None:
    message = cluster_pb2.ClusterSpec(groups=[cluster_pb2.Group(name="worker", count=1)])
    [group] = spec_proto.cluster_spec_from_proto(message).groups
    assert group.environment.readiness is spec.Readiness.CHANNEL
    assert group.allocation.availability.on_isolation is spec.OnIsolation.KEEP


def test_an_enum_number_that_nobody_knows_is_refused_with_its_path() -> None:
    message = cluster_pb2.ClusterSpec(groups=[cluster_pb2.Group(), cluster_pb2.Group()])
    message.groups[1].environment.readiness = 99  # type: ignore[assignment]
    with pytest.raises(FieldInvalid) as caught:
        spec_proto.cluster_spec_from_proto(message)
    assert caught.value.field == "spec.groups[1].environment.readiness"
    assert "GUEST_AGENT" in caught.value.problem


@pytest.mark.parametrize(
    "message",
    [Timestamp(seconds=2**62), Timestamp(seconds=-(2**62)), Timestamp(nanos=-1)],
)
def test_moments_that_are_none_are_refused(message: Timestamp) -> None:
    lease = cluster_pb2.LeaseTerms(start_time=message)
    with pytest.raises(FieldInvalid) as caught:
        spec_proto.cluster_spec_from_proto(cluster_pb2.ClusterSpec(lease=lease))
    assert caught.value.field == "spec.lease.start_time"


def test_spans_that_are_none_are_refused() -> None:
    with pytest.raises(FieldInvalid):
        spec_proto.duration_from_proto(Duration(seconds=2**62), "f")


@pytest.mark.parametrize("micros", [0, 1, 999_999])
def test_moments_survive_to_the_microsecond(micros: int) -> None:
    for year in (1, 1969, 1970, 2026, 9999):
        moment = datetime(year, 3, 1, 12, 0, 0, micros, tzinfo=UTC)
        assert spec_proto.timestamp_from_proto(spec_proto.timestamp_to_proto(moment), "f") == moment


@pytest.mark.parametrize("micros", [0, 1, -1, 1_500_000, -1_500_000])
def test_spans_survive_to_the_microsecond(micros: int) -> None:
    span = timedelta(microseconds=micros)
    assert spec_proto.duration_from_proto(spec_proto.duration_to_proto(span), "f") == span


def test_a_window_has_both_ends_in_order() -> None:
    window = Window(NOW, NOW + timedelta(hours=1))
    message = spec_proto.window_to_proto(window)
    assert spec_proto.window_from_proto(message, "w") == window
    with pytest.raises(FieldInvalid) as caught:
        spec_proto.window_from_proto(types_pb2.Window(start_time=message.start_time), "w")
    assert caught.value.field == "w.end_time"
    message.end_time.CopyFrom(message.start_time)
    with pytest.raises(FieldInvalid):
        spec_proto.window_from_proto(message, "w")


def test_a_part_without_a_window_is_refused() -> None:
    with pytest.raises(FieldInvalid) as caught:
        spec_proto.part_spec_from_proto(part_pb2.PartSpec())
    assert caught.value.field == "spec.window.start_time"


def test_a_shortfall_survives_and_always_has_a_sentence() -> None:
    short = Shortfall(
        site="north", resource="link_egress", wanted=9, available=4, unit="Mbit/s", peer="south"
    )
    message = spec_proto.shortfall_to_proto(short)
    assert message.message == "north towards south: link_egress 9 Mbit/s wanted, 4 available"
    assert spec_proto.shortfall_from_proto(message).wanted == 9
