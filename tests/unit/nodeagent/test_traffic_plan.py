"""Classes: what is promised is what HTB is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intertie.common.terms import BandwidthTerm
from intertie.common.values import replace
from intertie.nodeagent.domain.class_keys import rest_key
from intertie.nodeagent.domain.traffic_plan import (
    IncastShare,
    Word,
    allot,
    on_tap,
    on_uplink,
    plan_nics,
    plan_uplink,
    plan_wide,
    promisable_mbit_s,
    shaped_kbit,
)
from intertie.nodeagent.domain.wanted import WantedNetwork, WantedPart
from tests.unit.nodeagent.parts import B_MAC, C_MAC, GATEWAY, LAN, PART, PLACE, WIDE, WORKSPACE


def part_with(network: WantedNetwork) -> WantedPart:
    return replace(PART, networks=(network,))


def test_a_network_s_class_holds_its_pairs_and_the_rest_of_its_promise() -> None:
    plan = plan_uplink([PART], PLACE, 400)
    holder, pair, rest = plan.classes
    assert holder.rate_kbit == on_uplink(60, 1450)
    assert (pair.rate_kbit, pair.ceil_kbit) == (on_uplink(50, 1450), on_uplink(80, 1450))
    assert pair.parent == rest.parent == holder.key
    assert rest.rate_kbit == holder.rate_kbit - pair.rate_kbit
    assert rest.ceil_kbit == plan.capacity_kbit


def test_a_pair_is_told_by_port_id_and_both_addresses_of_the_inner_frame() -> None:
    _, pair, rest = plan_uplink([PART], PLACE, 400).classes
    outer = (
        Word(0x00110000, 0x00FF0000, 8),
        Word(4789, 0xFFFF, 20),
        Word(77 << 8, 0xFFFFFF00, 32),
    )
    assert rest.match == outer
    assert pair.match == (
        *outer,
        Word(0x02000000, 0xFFFFFFFF, 36),
        Word(0x000B0200, 0xFFFFFFFF, 40),
        Word(0x0000000A, 0xFFFFFFFF, 44),
    )


def test_a_pair_on_one_host_needs_no_class() -> None:
    local = replace(LAN.pairs[0], remote_mac="02:00:00:00:00:0f")
    assert len(plan_uplink([part_with(replace(LAN, pairs=(local,)))], PLACE, 400).classes) == 2


def test_a_reservation_between_sites_has_a_class_of_its_own() -> None:
    wide = part_with(replace(LAN, wide_tunnels=(WIDE,)))
    site, link, rest = plan_wide([wide], GATEWAY, 200).classes
    assert (link.parent, site.parent, site.match) == (site.key, "", ())
    assert (site.rate_kbit, site.ceil_kbit) == (link.rate_kbit, link.ceil_kbit)
    assert link.rate_kbit == rest.rate_kbit == on_uplink(20, 1450)
    assert link.ceil_kbit == rest.ceil_kbit == on_uplink(30, 1450)
    assert rest.parent == link.key
    assert Word(99 << 8, 0xFFFFFF00, 32) in rest.match
    assert Word(0x0AFA000C, 0xFFFFFFFF, 16) in rest.match


def test_a_pair_between_sites_has_a_class_inside_its_reservation() -> None:
    """A bug: one class for all pairs of a reservation let one pair take what another was
    promised, and go beyond its own cap."""
    pair = replace(
        LAN.pairs[0],
        remote_mac=WIDE.macs[0],
        bandwidth=BandwidthTerm(guarantee_mbit_s=15, cap_mbit_s=25),
    )
    wide = part_with(replace(LAN, pairs=(pair,), wide_tunnels=(WIDE,)))
    _, link, own, rest = plan_wide([wide], GATEWAY, 200).classes
    assert own.parent == rest.parent == link.key
    assert (own.rate_kbit, own.ceil_kbit) == (on_uplink(15, 1450), on_uplink(25, 1450))
    assert rest.rate_kbit == link.rate_kbit - own.rate_kbit
    assert own.match[: len(rest.match)] == rest.match
    assert len(own.match) == len(rest.match) + 3


def test_networks_leave_alone_what_of_the_way_to_a_site_stores_have_reserved() -> None:
    """All of them together, and no further than what they are promised themselves."""
    west = replace(WIDE, site="west", address="10.250.0.13", cap_mbit_s=80)
    south = replace(WIDE, cap_mbit_s=80)
    other = replace(LAN, uid="b" * 12, vni=78)
    parts = [
        part_with(replace(LAN, wide_tunnels=(south, west))),
        part_with(replace(other, wide_tunnels=(replace(south, vni=98),))),
    ]

    def ways(reserved: dict[str, int]) -> dict[str, tuple[int, int]]:
        classes = plan_wide(parts, GATEWAY, 200, reserved).classes
        assert [each.key for each in classes if not each.parent] == ["site/south", "site/west"]
        held = [each.parent for each in classes if each.key.startswith("link/")]
        assert sorted(held) == ["site/south", "site/south", "site/west"]
        return {each.key: (each.rate_kbit, each.ceil_kbit) for each in classes if not each.parent}

    one, link = on_uplink(20, 1450), on_uplink(80, 1450)
    assert ways({}) == {"site/south": (2 * one, link), "site/west": (one, link)}
    less = link - on_tap(30, 1500)
    assert ways({"south": 30, "east": 9}) == {
        "site/south": (2 * one, less),
        "site/west": (one, link),
    }
    assert ways({"south": 70})["site/south"] == (2 * one, 2 * one)


def test_what_a_guest_sends_to_a_promised_peer_is_capped_wherever_the_peer_is() -> None:
    """A bug: within one host, and at a gateway, nothing held a pair's cap."""
    pair = replace(
        LAN.pairs[0],
        local_mac=WORKSPACE.nics[0].mac,
        remote_mac="02:00:00:00:00:0f",
        bandwidth=BandwidthTerm(guarantee_mbit_s=20, cap_mbit_s=40),
    )
    [plan] = plan_nics([part_with(replace(LAN, pairs=(pair,)))], 400)
    [sent] = plan.sent.classes
    assert plan.sent.device == plan.ifb
    assert (sent.rate_kbit, sent.ceil_kbit) == (on_tap(20, 1450), on_tap(40, 1450))
    assert sent.match == (Word(0x0200, 0xFFFF, -16), Word(0x0000000F, 0xFFFFFFFF, -12))
    assert plan.sent.default_kbit == plan.cap_kbit - sent.rate_kbit


@pytest.mark.parametrize(
    ("term", "cap_mbit_s"),
    [
        (BandwidthTerm(guarantee_mbit_s=10, cap_mbit_s=40), 40),
        (BandwidthTerm(guarantee_mbit_s=10), 10),
        (BandwidthTerm(cap_mbit_s=7), 7),
        (BandwidthTerm(), 400),
    ],
)
def test_a_nic_is_capped_and_one_without_terms_by_the_uplink(
    term: BandwidthTerm, cap_mbit_s: int
) -> None:
    nic = replace(WORKSPACE.nics[0], bandwidth=term)
    part = replace(PART, workspaces=(replace(WORKSPACE, nics=(nic,)),))
    [plan] = plan_nics([part], 400)
    assert (plan.tap, plan.ifb) == ("itaaaaaaaa0", "iiaaaaaaaa0")
    assert plan.cap_kbit == on_tap(cap_mbit_s, 1450)


@given(st.integers(min_value=10, max_value=100_000))
def test_all_that_is_promised_fits_the_wire(capacity_mbit_s: int) -> None:
    promised = promisable_mbit_s(capacity_mbit_s, 1500)
    default = plan_uplink([], PLACE, capacity_mbit_s).default_kbit
    assert 0 < promised < capacity_mbit_s
    assert on_uplink(promised, 1450) + default <= shaped_kbit(capacity_mbit_s)


def test_towards_a_full_downlink_what_nothing_was_promised_to_has_a_ceiling_of_its_own() -> None:
    before = {each.key: each for each in plan_uplink([PART], PLACE, 400).classes}
    shares = {"n2": IncastShare(share_kbit=9_000, floors={LAN.uid: 5_000})}
    holder, pair, to, rest = plan_uplink([PART], PLACE, 400, shares).classes
    assert (holder, rest) == (before[holder.key], before[rest.key])
    assert to.parent == holder.key
    assert to.ceil_kbit == 5_000 + 9_000
    assert to.match == (*rest.match, Word(0x0AC9000C, 0xFFFFFFFF, 16))
    assert pair == replace(before[pair.key], ceil_kbit=pair.rate_kbit + 9_000)


def test_what_others_ask_for_changes_nothing_here() -> None:
    shares = {"n3": IncastShare(share_kbit=64)}
    assert plan_uplink([PART], PLACE, 400, shares) == plan_uplink([PART], PLACE, 400)


@given(
    st.builds(
        IncastShare,
        share_kbit=st.integers(1, 10**9),
        floors=st.dictionaries(st.just(LAN.uid), st.integers(0, 10**9)),
    )
)
def test_no_share_takes_anything_from_what_is_promised(share: IncastShare) -> None:
    before = {each.key: each for each in plan_uplink([PART], PLACE, 400).classes}
    for each in plan_uplink([PART], PLACE, 400, {"n2": share}).classes:
        old = before.get(each.key)
        assert old is None or each.rate_kbit == old.rate_kbit
        assert old is None or each.ceil_kbit <= old.ceil_kbit
        assert each.rate_kbit <= each.ceil_kbit <= shaped_kbit(400)
        nics = before[rest_key(LAN)].rate_kbit
        assert old is not None or each.ceil_kbit >= min(share.floors.get(LAN.uid, 0), nics)


def test_at_a_gateway_a_pair_with_another_site_keeps_its_promise_on_its_last_way() -> None:
    """It has no class of its own from the gateway to the receiver's host."""
    passing = replace(
        LAN.pairs[0],
        local_mac=B_MAC,
        remote_mac=C_MAC,
        bandwidth=BandwidthTerm(guarantee_mbit_s=20, cap_mbit_s=20),
    )
    network = replace(LAN, pairs=(passing,), uplink_guarantee_mbit_s=30, wide_tunnels=(WIDE,))
    shares = {"n2": IncastShare(share_kbit=1_000)}
    _, to, _ = plan_uplink([part_with(network)], GATEWAY, 400, shares).classes
    assert to.ceil_kbit == on_uplink(20, 1450) + 1_000


KEYS = st.lists(st.text(max_size=3), unique=True, max_size=20)


@given(KEYS, KEYS)
def test_a_class_keeps_its_id_and_no_two_share_one(before: list[str], after: list[str]) -> None:
    known = allot(before, {})
    ids = allot(after, known)
    assert len(set(ids.values())) == len(after) == len(ids)
    assert all(ids[key] == known[key] for key in after if key in known)
    assert all(number >= 16 for number in ids.values())


def test_an_id_is_not_given_away_while_its_old_owner_is_still_known() -> None:
    assert allot(["a", "b"], {"b": 16}) == {"a": 17, "b": 16}


def test_an_id_does_not_change_hands_in_one_step() -> None:
    """A bug: a class that came as another went took its id, and with it its filters."""
    assert allot(["b"], {"a": 16}) == {"b": 17}
