"""What agents measure, as the owner is told: between workspaces, and by whom it is to be said."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from intertie.api.nodeagent.v1 import records_pb2
from intertie.broker.adapters.agent_records import measured_from_bytes
from intertie.broker.domain.guarantees import (
    MeasuredDirection,
    MeasuredPart,
    guarantees_of,
    measured_of,
)
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import Placed
from intertie.common.guarantees import GuaranteeKind, Measured
from intertie.common.spec import BandwidthTerm, DiskTerm
from intertie.common.values import replace
from tests.unit.broker.samples import NOW, mac, part, part_spec, workspace

FAR_MAC = "02:00:00:00:ff:00"
LATER = NOW + timedelta(seconds=4)
PAIR, NIC = GuaranteeKind.PAIR_BANDWIDTH, GuaranteeKind.NIC_BANDWIDTH
IOPS, LINK = GuaranteeKind.DISK_IOPS, GuaranteeKind.LINK_BANDWIDTH


def of_two_hosts(**changes: Any) -> Part:
    """w-0 on n1, which is the gateway, w-1 on n2; both have pairs, w-1 to another site too."""
    promised: dict[str, Any] = {
        "disk": DiskTerm(guarantee_iops=100, cap_iops=100, cap_mib_s=10),
        "nic": BandwidthTerm(guarantee_mbit_s=5, cap_mbit_s=50),
    }
    return part(
        spec=part_spec(
            workspace(index=0, **promised),
            workspace(index=1),
            pairs=(("w-0", "w-1", 10), ("w-1", "far-0", 20)),
            remote=("far-0",),
            link_mbit_s=20,
        ),
        placed=(Placed(workspace="w-0", host="n1"), Placed(workspace="w-1", host="n2")),
        gateway="n1",
        **changes,
    )


def said(*directions: MeasuredDirection, at: datetime = NOW) -> MeasuredPart:
    return MeasuredPart(at=at, directions=directions)


def pair(source: str, target: str, value: float, **more: Any) -> MeasuredDirection:
    return MeasuredDirection(
        kind=PAIR, network="lan", source=source, target=target, value=value, **more
    )


ONE, TWO = mac("w", 0), mac("w", 1)


def test_macs_of_agents_are_workspaces_to_the_owner_a_direction_each() -> None:
    told = {"n1": said(pair(ONE, TWO, 9)), "n2": said(pair(TWO, ONE, 0.4))}
    found = measured_of(of_two_hosts(), told)
    assert [(each.source, each.target, each.value) for each in found] == [
        ("w-0", "w-1", 9),
        ("w-1", "w-0", 0.4),
    ]


def test_of_two_hosts_on_the_way_the_narrower_one_counts() -> None:
    told = {
        "n2": said(pair(TWO, FAR_MAC, 30)),
        "n1": said(pair(TWO, FAR_MAC, 12, backlogged=True, below_since=NOW), at=LATER),
    }
    [found] = measured_of(of_two_hosts(), told)
    assert found == Measured(
        kind=PAIR,
        network="lan",
        source="w-1",
        target="far-0",
        value=12,
        at=LATER,
        backlogged=True,
        below_since=NOW,
    )


def test_below_since_is_when_the_first_host_on_the_way_saw_it() -> None:
    told = {
        "n1": said(pair(TWO, FAR_MAC, 12, backlogged=True, below_since=LATER)),
        "n2": said(pair(TWO, FAR_MAC, 11, backlogged=True, below_since=NOW)),
    }
    [found] = measured_of(of_two_hosts(), told)
    assert (found.value, found.below_since) == (11, NOW)


@pytest.mark.parametrize(
    ("host", "direction"),
    [
        ("n2", pair(ONE, TWO, 9)),  # begins on n1
        ("n2", MeasuredDirection(kind=NIC, network="lan", source=ONE, value=1)),
        ("n2", MeasuredDirection(kind=NIC, network="lan", target=ONE, value=1)),
        ("n2", MeasuredDirection(kind=IOPS, source="w-0", value=1)),
        ("n2", MeasuredDirection(kind=LINK, network="lan", target="south", value=1)),  # no gateway
        ("n1", pair(FAR_MAC, TWO, 9)),  # begins at another site
        ("n1", pair("02:00:00:00:00:00", TWO, 9)),  # nobody's
        ("n1", pair(ONE, TWO, math.nan)),
        ("n1", MeasuredDirection(kind=99, source="w-0", value=1)),  # of a newer agent
    ],
)
def test_a_host_is_not_heard_on_what_it_does_not_carry(
    host: str, direction: MeasuredDirection
) -> None:
    assert measured_of(of_two_hosts(), {host: said(direction)}) == ()


def test_a_part_that_is_over_is_measured_no_more() -> None:
    over = replace(of_two_hosts(), state=PartState.ENDED)
    assert measured_of(over, {"n1": said(pair(ONE, TWO, 9))}) == ()


def test_each_guarantee_has_its_own_measures() -> None:
    here = of_two_hosts()
    told = {
        "n1": said(
            pair(ONE, TWO, 9),
            MeasuredDirection(kind=NIC, network="lan", source=ONE, value=1),
            MeasuredDirection(kind=NIC, network="lan", target=ONE, value=2),
            MeasuredDirection(kind=IOPS, source="w-0", value=99),
            MeasuredDirection(kind=LINK, network="lan", target="south", value=3),
        ),
        "n2": said(pair(TWO, ONE, 0.4)),
    }
    measured = measured_of(here, told)
    found = {
        (each.kind, each.source, each.target): [one.value for one in each.measured]
        for each in guarantees_of(here.spec, measured)
    }
    assert found == {
        (PAIR, "w-0", "w-1"): [9, 0.4],
        (PAIR, "w-1", "far-0"): [],
        (NIC, "w-0", ""): [2, 1],
        (IOPS, "w-0", ""): [99],
    }
    [link] = [each for each in measured if each.kind is LINK]
    assert (link.source, link.target) == ("north", "south")


@pytest.mark.parametrize(
    "record",
    [
        b"\xff",
        records_pb2.HostMeasured(schema=2).SerializeToString(),
        records_pb2.HostMeasured(
            schema=1, measured_time=Timestamp(seconds=1 << 50)
        ).SerializeToString(),
    ],
)
def test_a_record_that_cannot_be_read_says_nothing(record: bytes) -> None:
    assert measured_from_bytes(record, "n1") == {}
