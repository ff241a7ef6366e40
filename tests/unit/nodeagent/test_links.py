"""What `ip` is told about the links of a plan."""

from __future__ import annotations

from intertie.common.values import replace
from intertie.nodeagent.adapters.iproute_network import link_lines
from intertie.nodeagent.domain.network_plan import plan_networks
from tests.unit.nodeagent.parts import LAN, PART, PLACE

FOUND = {
    "ib0123456789": {"mtu": 1450, "flags": ["UP"]},
    "iv0123456789": {"mtu": 1450, "flags": ["UP"], "master": "ib0123456789"},
    "itaaaaaaaa0": {"mtu": 1450, "flags": ["UP"], "master": "ib0123456789"},
}


def test_links_that_are_as_planned_are_not_touched() -> None:
    assert link_lines(plan_networks([PART], PLACE), FOUND) == ([], [])


def test_a_bridge_that_is_there_gets_the_mtu_of_a_changed_plan() -> None:
    """Only a new bridge once got one."""
    lower = replace(PART, networks=(replace(LAN, mtu=1300),))
    new, up = link_lines(plan_networks([lower], PLACE), FOUND)
    assert new == ["link set ib0123456789 mtu 1300", "link set itaaaaaaaa0 mtu 1300"]
    assert up == []
