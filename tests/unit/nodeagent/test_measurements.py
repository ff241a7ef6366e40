"""Readings of counters: whose they are told as."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from intertie.api.nodeagent.v1 import nodeagent_pb2 as pb
from intertie.common.values import replace
from intertie.nodeagent.domain.ports import ClassCounters
from intertie.nodeagent.domain.traffic_plan import DevicePlan, plan_uplink, plan_wide
from intertie.nodeagent.measurements import Measurements
from tests.unit.nodeagent.parts import B_MAC, GATEWAY, LAN, PART, WIDE, WORKSPACE


class Counted:
    """Of each class of the plans another count, in their order."""

    def __init__(self, *plans: DevicePlan) -> None:
        self._plans = {plan.device: plan for plan in plans}

    async def device_counters(self, device: str) -> Mapping[str, ClassCounters]:
        classes = self._plans[device].classes
        return {each.key: ClassCounters(bytes=at) for at, each in enumerate(classes, start=1)}

    async def nic_counters(self, device: str) -> ClassCounters:
        return ClassCounters()


class NoGuests:
    async def counters(self) -> Mapping[str, object]:
        return {}


async def test_pairs_and_links_are_told_by_their_own_classes() -> None:
    """A bug: links were not told any more once their classes had other names."""
    west = replace(WIDE, site="west", address="10.250.0.13")
    known = replace(PART, networks=(replace(LAN, wide_tunnels=(WIDE, west)),))
    plans = plan_uplink([known], GATEWAY, 400), plan_wide([known], GATEWAY, 200)
    traffic: Any = Counted(*plans)
    guests: Any = NoGuests()
    found = await Measurements(guests, traffic, GATEWAY).read(
        [known], datetime(2026, 3, 1, tzinfo=UTC)
    )

    def bytes_of(plan: DevicePlan, prefix: str) -> list[int]:
        keys = [each.key for each in plan.classes]
        return [at for at, key in enumerate(keys, start=1) if key.startswith(prefix)]

    told = {(each.kind, each.workspace, each.subject): each.bytes for each in found}
    [pair] = bytes_of(plans[0], "pair/")
    assert told[pb.Measurement.PAIR_OUT, WORKSPACE.name, B_MAC] == pair
    links = [told[pb.Measurement.LINK_OUT, "", site] for site in ("south", "west")]
    assert links == bytes_of(plans[1], "link/")
