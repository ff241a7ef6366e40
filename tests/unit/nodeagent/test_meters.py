"""Which counters are read for a promise: those that the agent's own plan makes."""

from __future__ import annotations

from intertie.common.guarantees import GuaranteeKind
from intertie.common.names import DeviceNames
from intertie.common.terms import BandwidthTerm, DiskTerm
from intertie.common.values import replace
from intertie.nodeagent.domain.meters import (
    WHOLE,
    FlowMeter,
    Queue,
    meters_of,
)
from intertie.nodeagent.domain.traffic_plan import (
    DevicePlan,
    on_tap,
    on_uplink,
    plan_nics,
    plan_uplink,
    plan_wide,
)
from intertie.nodeagent.domain.wanted import WantedPair, WantedPart
from tests.unit.nodeagent.parts import (
    A_MAC,
    A_UID,
    B_MAC,
    C_MAC,
    GATEWAY,
    LAN,
    PART,
    PLACE,
    WIDE,
    WORKSPACE,
)

IFB, TAP = DeviceNames.ifb(A_UID, 0), DeviceNames.tap(A_UID, 0)
TERM = BandwidthTerm(guarantee_mbit_s=15)
FAR = WantedPair(local_mac=A_MAC, remote_mac=C_MAC, bandwidth=TERM)
PASSING = WantedPair(local_mac=B_MAC, remote_mac=C_MAC, bandwidth=TERM)
AT_GATEWAY = replace(
    PART,
    networks=(replace(LAN, pairs=(*LAN.pairs, FAR, PASSING), wide_tunnels=(WIDE,)),),
)


def planned(part: WantedPart) -> set[Queue]:
    """Every class that the agent makes at the gateway, with the queue of every device."""
    devices: list[DevicePlan] = [
        plan_uplink([part], GATEWAY, 400),
        plan_wide([part], GATEWAY, 400),
        *(nic.sent for nic in plan_nics([part], 400)),
    ]
    taps = {Queue(nic.tap, WHOLE) for nic in plan_nics([part], 400)}
    classes = {Queue(device.device, each.key) for device in devices for each in device.classes}
    return classes | taps | {Queue(device.device, WHOLE) for device in devices}


def flow(part: WantedPart, kind: GuaranteeKind, source: str, target: str) -> FlowMeter:
    [found] = [
        each
        for each in meters_of([part], GATEWAY).flows
        if (each.promise.kind, each.promise.source, each.promise.target) == (kind, source, target)
    ]
    return found


def test_every_queue_that_is_read_is_one_that_the_agent_makes() -> None:
    made = planned(AT_GATEWAY)
    read = set()
    for each in meters_of([AT_GATEWAY], GATEWAY).flows:
        read |= {*each.counted, *each.waits, *([each.shared.queue] if each.shared else [])}
    assert read <= made
    assert len(read) == 9


def test_a_pair_is_counted_at_the_last_class_that_it_passes_on_this_host() -> None:
    near = flow(AT_GATEWAY, GuaranteeKind.PAIR_BANDWIDTH, A_MAC, B_MAC)
    assert [each.device for each in near.counted] == ["eth0"]
    assert [each.device for each in near.waits] == [IFB, "eth0"]
    assert (near.mbit_s, near.kbit_per_gbit) == (50, on_uplink(1000, 1450))
    far = flow(AT_GATEWAY, GuaranteeKind.PAIR_BANDWIDTH, A_MAC, C_MAC)
    assert [each.device for each in far.waits] == [IFB, "wan0"]
    assert [each.device for each in far.counted] == ["wan0"]
    passing = flow(AT_GATEWAY, GuaranteeKind.PAIR_BANDWIDTH, B_MAC, C_MAC)
    assert [each.device for each in passing.waits] == ["wan0"]


def test_a_pair_within_the_host_is_counted_on_the_sender_s_own_device() -> None:
    alone = replace(PART, networks=(replace(LAN, tunnels=()),))
    within = flow(alone, GuaranteeKind.PAIR_BANDWIDTH, A_MAC, B_MAC)
    assert [each.device for each in within.counted] == [IFB]
    assert within.kbit_per_gbit == on_tap(1000, 1450)


def test_a_link_is_all_that_goes_to_that_site() -> None:
    link = flow(AT_GATEWAY, GuaranteeKind.LINK_BANDWIDTH, "", "south")
    assert link.mbit_s == 20
    assert sorted(each.key.split("/")[0] for each in link.counted) == [
        "linkpair",
        "linkpair",
        "linkrest",
    ]


def test_a_nic_is_measured_both_ways_and_can_be_held_back_on_its_way_out() -> None:
    out, back = (
        flow(PART, GuaranteeKind.NIC_BANDWIDTH, A_MAC, ""),
        flow(PART, GuaranteeKind.NIC_BANDWIDTH, "", A_MAC),
    )
    assert (out.counted, back.counted) == ((Queue(IFB, WHOLE),), (Queue(TAP, WHOLE),))
    assert out.shared is not None
    assert (out.shared.queue.device, out.shared.mbit_s) == ("eth0", 10)
    assert back.shared is None


def test_what_nothing_was_promised_to_is_not_measured() -> None:
    nothing = BandwidthTerm(cap_mbit_s=40)
    network = replace(LAN, pairs=(replace(LAN.pairs[0], bandwidth=nothing),))
    nics = (replace(WORKSPACE.nics[0], bandwidth=nothing),)
    part = replace(PART, networks=(network,), workspaces=(replace(WORKSPACE, nics=nics),))
    meters = meters_of([part], PLACE)
    assert (meters.flows, meters.disks) == ((), ())


def test_a_disk_is_measured_where_operations_or_throughput_are_promised() -> None:
    promised = DiskTerm(guarantee_iops=150, cap_iops=300)
    allocation = replace(WORKSPACE.allocation, disk=promised)
    part = replace(PART, workspaces=(replace(WORKSPACE, allocation=allocation),))
    [disk] = meters_of([part], PLACE).disks
    assert (disk.workspace, disk.domain, disk.term) == ("a-0", f"it-{A_UID}", promised)
