"""A part of two hosts, as the tests of the agent want it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from intertie.common.intervals import Window
from intertie.common.part_spec import HostEntry
from intertie.common.terms import Allocation, BandwidthTerm, DiskTerm, Environment
from intertie.nodeagent.domain.network_plan import Place
from intertie.nodeagent.domain.wanted import (
    Tunnel,
    WantedNetwork,
    WantedNic,
    WantedPair,
    WantedPart,
    WantedWorkspace,
    WideTunnel,
)

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
WINDOW = Window(NOW, NOW + timedelta(hours=1))
DIGEST = "b3:" + "ab" * 32
NETWORK = "0123456789ab"
A_UID, A_MAC, B_MAC, C_MAC = (
    "aaaaaaaaaaaa",
    "02:00:00:00:00:0a",
    "02:00:00:00:00:0b",
    "02:00:00:00:00:0c",
)
PLACE = Place(host="n1", interface="eth0", address="10.201.0.11")
GATEWAY = Place(
    host="n1",
    interface="eth0",
    address="10.201.0.11",
    wide_interface="wan0",
    wide_address="10.250.0.11",
    wide_port=4790,
)

WORKSPACE = WantedWorkspace(
    name="a-0",
    uid=A_UID,
    environment=Environment(image=DIGEST),
    allocation=Allocation(
        vcpus=2, memory_mib=512, disk_mib=1024, disk=DiskTerm(cap_iops=300, cap_mib_s=50)
    ),
    nics=(
        WantedNic(
            network_uid=NETWORK,
            mac=A_MAC,
            address="10.1.0.10/24",
            bandwidth=BandwidthTerm(guarantee_mbit_s=10, cap_mbit_s=40),
        ),
    ),
    nonce="secret",
)

LAN = WantedNetwork(
    uid=NETWORK,
    name="net",
    vni=77,
    mtu=1450,
    tunnels=(Tunnel(host="n2", address="10.201.0.12", macs=(B_MAC,)),),
    pairs=(
        WantedPair(
            local_mac=A_MAC,
            remote_mac=B_MAC,
            bandwidth=BandwidthTerm(guarantee_mbit_s=50, cap_mbit_s=80),
        ),
    ),
    uplink_guarantee_mbit_s=60,
)

WIDE = WideTunnel(
    site="south",
    address="10.250.0.12",
    port=4790,
    vni=99,
    macs=(C_MAC,),
    guarantee_mbit_s=20,
    cap_mbit_s=30,
)

PART = WantedPart(
    name="sites/north/tenants/demo/parts/p1",
    uid="bbbbbbbbbbbb",
    generation=3,
    window=WINDOW,
    workspaces=(WORKSPACE,),
    networks=(LAN,),
    host_entries=(
        HostEntry(address="10.1.0.10", names=("a-0.c", "a-0")),
        HostEntry(address="10.1.0.11", names=("b-0.c", "b-0")),
    ),
    cluster="sites/north/tenants/demo/clusters/c",
)
