"""Links, forwarding and filters of a host."""

from __future__ import annotations

from intertie.common.values import replace
from intertie.nodeagent.domain.network_plan import (
    FLOOD,
    FdbEntry,
    bridge_mac,
    filter_leave,
    filter_rules,
    link_local,
    plan_networks,
    stale_devices,
)
from tests.unit.nodeagent.parts import B_MAC, C_MAC, GATEWAY, LAN, NETWORK, PART, PLACE, WIDE

WIDE_PART = replace(PART, networks=(replace(LAN, wide_tunnels=(WIDE,)),))


def test_a_network_is_a_bridge_a_tunnel_end_and_a_tap_a_nic() -> None:
    plan = plan_networks([PART], PLACE)
    [bridge], [vxlan], [tap] = plan.bridges, plan.vxlans, plan.taps
    assert plan.devices == {"ib0123456789", "iv0123456789", "itaaaaaaaa0"}
    assert (vxlan.vni, vxlan.address, vxlan.port) == (77, "10.201.0.11", 4789)
    assert vxlan.bridge == tap.bridge == bridge.name
    assert {bridge.mtu, vxlan.mtu, tap.mtu} == {1450}


def test_frames_go_only_where_somebody_is() -> None:
    assert plan_networks([PART], PLACE).fdb == {
        FdbEntry("iv0123456789", FLOOD, "10.201.0.12"),
        FdbEntry("iv0123456789", B_MAC, "10.201.0.12"),
    }


def test_another_site_is_sent_its_own_id_flooding_included() -> None:
    plan = plan_networks([WIDE_PART], GATEWAY)
    wide = next(vxlan for vxlan in plan.vxlans if vxlan.name == "iw0123456789")
    assert (wide.vni, wide.address, wide.port) == (77, "10.250.0.11", 4790)
    entries = {entry for entry in plan.fdb if entry.device == wide.name}
    assert entries == {
        FdbEntry(wide.name, FLOOD, "10.250.0.12", 99, 4790),
        FdbEntry(wide.name, C_MAC, "10.250.0.12", 99, 4790),
    }


def test_only_a_gateway_has_an_end_on_the_wan() -> None:
    devices = plan_networks([WIDE_PART], PLACE).devices
    assert not any(device.startswith("iw") for device in devices)


def test_names_of_devices_fit_the_kernel() -> None:
    for device in plan_networks([WIDE_PART], GATEWAY).devices:
        assert len(device) <= 15


def test_hosts_have_addresses_of_their_own_on_a_network() -> None:
    assert bridge_mac("n1", NETWORK) != bridge_mac("n2", NETWORK)
    assert bridge_mac("n1", NETWORK) == bridge_mac("n1", NETWORK)
    assert int(bridge_mac("n1", NETWORK)[:2], 16) & 3 == 2


def test_a_guest_s_own_address_follows_from_its_mac() -> None:
    assert link_local("12:38:dd:89:0c:b9") == "fe80::1038:ddff:fe89:cb9"
    assert link_local("02:00:00:00:00:0a") == "fe80::0:ff:fe00:a"


def test_a_guest_may_use_its_own_mac_only() -> None:
    rules = filter_rules(plan_networks([PART], PLACE).taps)
    assert '"itaaaaaaaa0" . 02:00:00:00:00:0a' in rules
    assert "elements" not in filter_rules(())


def test_of_devices_that_are_not_planned_only_those_go_that_may() -> None:
    plan = plan_networks([PART], PLACE)
    found = {*plan.devices, "ib0000000000", "ib1111111111"}
    assert stale_devices(found, plan) == {"ib0000000000", "ib1111111111"}
    careful = replace(plan, removable=plan.devices | {"ib1111111111"})
    assert stale_devices(found, careful) == {"ib1111111111"}
    assert '"itaaaaaaaa0" . 02:00:00:00:00:0a' in filter_leave(plan.taps)
