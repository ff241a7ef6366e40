"""The kernel holds what the agent's classes promise: packets between namespaces.

Underlay and bridges are real; processes in namespaces stand for guests.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from intertie.common.clock import SystemClock
from intertie.common.terms import BandwidthTerm
from intertie.common.values import replace
from intertie.nodeagent.domain.network_plan import Place
from intertie.nodeagent.domain.traffic_plan import DevicePlan, IncastShare, plan_uplink, plan_wide
from intertie.nodeagent.domain.wanted import Tunnel, WantedPair, WantedPart, WideTunnel
from testbed.places import NETNS
from testbed.sweep import unmount_if_empty
from tests.unit.nodeagent.parts import A_MAC, B_MAC, LAN, PART

pytestmark = pytest.mark.root

ONE, TWO = f"it-shape-{os.getpid()}-1", f"it-shape-{os.getpid()}-2"
UPLINK_MBIT_S = 100
PAIR_MBIT_S = 20
SHARE_MBIT_S = 10
"""Of the wire."""
FLOOD_MAC, SINK_MAC = "02:00:00:00:00:1a", "02:00:00:00:00:1b"


def ip(netns: str, text: str) -> None:
    """Lines for `ip -batch` in a namespace; empty: the caller's own."""
    words = ["ip", *(("-n", netns) if netns else ()), "-batch", "-"]
    subprocess.run(words, input=text, text=True, check=True, capture_output=True)


def make_host(name: str, address: str, peer: str, far: list[str], guests: dict[str, str]) -> None:
    """A bridge over VXLAN; `guests` are MACs and addresses of namespaces that stand for them."""
    ip(
        name,
        f"""
        addr add {address}/24 dev eth0
        link set eth0 up
        link add dev br0 mtu 1450 type bridge
        link add dev vx0 mtu 1450 type vxlan id 77 local {address} dev eth0 dstport 4789 nolearning
        link set vx0 master br0 up
        link set br0 up
        """,
    )
    for mac in ("00:00:00:00:00:00", *far):
        entry = ["bridge", "-n", name, "fdb", "append", mac, "dev", "vx0", "dst", peer, "self"]
        subprocess.run(entry, check=True, capture_output=True)
    for number, (mac, own) in enumerate(guests.items()):
        guest, port = f"{name}-g{number}", f"g{number}"
        ip("", f"netns add {guest}")
        ip(
            name,
            f"""
            link add dev {port} type veth peer name eth0 address {mac} mtu 1450 netns {guest}
            link set {port} mtu 1450 master br0 up
            """,
        )
        ip(guest, f"addr add {own}/24 dev eth0\nlink set eth0 up")


@pytest.fixture
def hosts() -> Iterator[None]:
    names = [ONE, TWO, *(f"{host}-g{n}" for host in (ONE, TWO) for n in (0, 1))]
    try:
        ip("", f"netns add {ONE}\nnetns add {TWO}")
        ip("", f"link add name eth0 netns {ONE} type veth peer name eth0 netns {TWO}")
        near = {A_MAC: "10.1.0.1", FLOOD_MAC: "10.1.0.3"}
        far = {B_MAC: "10.1.0.2", SINK_MAC: "10.1.0.4"}
        make_host(ONE, "10.9.0.1", "10.9.0.2", list(far), near)
        make_host(TWO, "10.9.0.2", "10.9.0.1", list(near), far)
        yield
    finally:
        for name in reversed(names):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        unmount_if_empty(NETNS)


APPLY = """
import asyncio, json, sys
from intertie.nodeagent.adapters.state_file import StateFile
from intertie.nodeagent.adapters.traffic import TcTraffic
from pathlib import Path
from tests.contract.test_traffic_classes import plan
state = StateFile(Path(sys.argv[1]))
traffic = TcTraffic(state.load_classes, state.save_classes)
async def main():
    for wanted in sys.argv[2].split(","):
        await traffic.apply_device(plan(wanted))
    print(json.dumps({k: c.bytes for k, c in (await traffic.device_counters("eth0")).items()}))
asyncio.run(main())
"""


PLACE = Place(host="n1", interface="eth0", address="10.9.0.1")
GATEWAY = replace(PLACE, wide_interface="eth0", wide_address="10.9.0.1")
RESERVED_MBIT_S = 60


def plan(wanted: str) -> DevicePlan:
    """The agent's own plan for an uplink of 100 Mbit/s: with a promised `pair` or `none`; `full`:
    with the pair, and the other host's downlink has room for little beside it. Or for a gateway's
    way to another site: `wide`, and `reserved` where stores send over it too; `flat` is of a
    release before, which had no class a site."""
    if wanted == "flat":
        return flat(plan("wide"))
    if wanted in ("wide", "reserved"):
        reserved = {"south": RESERVED_MBIT_S} if wanted == "reserved" else {}
        return plan_wide([gateway_part()], GATEWAY, UPLINK_MBIT_S, reserved)
    shares = {"n2": IncastShare(share_kbit=SHARE_MBIT_S * 1000)} if wanted == "full" else {}
    known = part(PAIR_MBIT_S, with_pair=wanted != "none")
    return plan_uplink([known], PLACE, UPLINK_MBIT_S, shares)


def part(promised_mbit_s: int, *, with_pair: bool = True) -> WantedPart:
    term = BandwidthTerm(guarantee_mbit_s=promised_mbit_s, cap_mbit_s=promised_mbit_s)
    pairs = (WantedPair(local_mac=A_MAC, remote_mac=B_MAC, bandwidth=term),)
    network = replace(
        LAN,
        tunnels=(Tunnel(host="n2", address="10.9.0.2", macs=(B_MAC, SINK_MAC)),),
        pairs=pairs if with_pair else (),
        uplink_guarantee_mbit_s=promised_mbit_s if with_pair else 0,
    )
    return replace(PART, networks=(network,))


def flat(plan: DevicePlan) -> DevicePlan:
    (site, *others) = plan.classes
    classes = [
        dataclasses.replace(
            each,
            key=f"old/{each.key}",
            parent="" if each.parent == site.key else f"old/{each.parent}",
        )
        for each in others
    ]
    return dataclasses.replace(plan, classes=tuple(classes))


def gateway_part() -> WantedPart:
    """The pair's other end and that of the flood are at another site."""
    known = part(PAIR_MBIT_S)
    way = WideTunnel(
        site="south",
        address="10.9.0.2",
        port=4789,
        vni=77,
        macs=(B_MAC, SINK_MAC),
        guarantee_mbit_s=PAIR_MBIT_S,
        cap_mbit_s=UPLINK_MBIT_S,
    )
    network = replace(known.networks[0], tunnels=(), wide_tunnels=(way,))
    return replace(known, networks=(network,))


def apply(folder: Path, wanted: str) -> dict[str, int]:
    """By the agent's adapter, in a process inside the host."""
    argv = ["ip", "netns", "exec", ONE, sys.executable, "-c", APPLY]
    done = subprocess.run(
        [*argv, str(folder), wanted],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
        check=True,
        capture_output=True,
        text=True,
    )
    counters: dict[str, int] = json.loads(done.stdout)
    return counters


RECEIVE = """
import socket, sys, time
with socket.create_server((sys.argv[1], 9000)) as server:
    print("listens", flush=True)
    stream, _ = server.accept()
    began, got = time.monotonic(), 0
    while data := stream.recv(1 << 16):
        got += len(data)
    print(got * 8 / (time.monotonic() - began) / 1e6)
"""

SEND = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 9000), 5) as stream:
    until = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < until:
        stream.sendall(bytes(1 << 15))
"""


async def inside(netns: str, program: str, *words: str) -> asyncio.subprocess.Process:
    argv = ["ip", "netns", "exec", netns, sys.executable, "-c", program, *words]
    return await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)


async def payload_mbit_s(guest: str, receiver: str, address: str, seconds: int) -> float:
    """What arrived over one TCP connection."""
    listening = await inside(receiver, RECEIVE, address)
    assert listening.stdout is not None
    assert await listening.stdout.readline() == b"listens\n"
    sending = await inside(guest, SEND, address, str(seconds))
    assert await sending.wait() == 0
    out, _ = await listening.communicate()
    return float(out)


async def test_a_promised_pair_gets_its_own_while_others_flood_the_uplink(
    hosts: None, tmp_path: Path
) -> None:
    before = apply(tmp_path, "pair")
    pair, flood = await asyncio.gather(
        payload_mbit_s(f"{ONE}-g0", f"{TWO}-g0", "10.1.0.2", 4),
        payload_mbit_s(f"{ONE}-g1", f"{TWO}-g1", "10.1.0.4", 4),
    )
    counters = apply(tmp_path, "pair")
    assert 0.9 * PAIR_MBIT_S <= pair <= 1.05 * PAIR_MBIT_S
    assert PAIR_MBIT_S < flood < UPLINK_MBIT_S - 0.8 * PAIR_MBIT_S
    key = next(key for key in counters if key.startswith("pair/"))
    assert counters[key] - before[key] > 0.8 * pair * 1e6 / 8 * 4


async def test_a_flood_towards_a_full_downlink_gets_its_share_and_a_promised_pair_its_promise(
    hosts: None, tmp_path: Path
) -> None:
    """While packets flow: classes change under them, and back."""
    apply(tmp_path, "pair,full")
    pair, flood = await asyncio.gather(
        payload_mbit_s(f"{ONE}-g0", f"{TWO}-g0", "10.1.0.2", 4),
        payload_mbit_s(f"{ONE}-g1", f"{TWO}-g1", "10.1.0.4", 4),
    )
    assert 0.9 * PAIR_MBIT_S <= pair <= 1.05 * PAIR_MBIT_S
    assert 0.7 * SHARE_MBIT_S <= flood <= 1.05 * SHARE_MBIT_S
    apply(tmp_path, "pair")
    assert await payload_mbit_s(f"{ONE}-g1", f"{TWO}-g1", "10.1.0.4", 2) > 5 * SHARE_MBIT_S


async def test_networks_leave_room_for_what_stores_send_and_keep_what_they_are_promised(
    hosts: None, tmp_path: Path
) -> None:
    apply(tmp_path, "wide,reserved")
    pair, flood = await asyncio.gather(
        payload_mbit_s(f"{ONE}-g0", f"{TWO}-g0", "10.1.0.2", 4),
        payload_mbit_s(f"{ONE}-g1", f"{TWO}-g1", "10.1.0.4", 4),
    )
    assert 0.9 * PAIR_MBIT_S <= pair <= 1.05 * PAIR_MBIT_S
    left = 0.98 * UPLINK_MBIT_S - 1.05 * RESERVED_MBIT_S - PAIR_MBIT_S
    assert 0.5 * left <= flood <= left
    apply(tmp_path, "wide")
    flood = await payload_mbit_s(f"{ONE}-g1", f"{TWO}-g1", "10.1.0.4", 2)
    assert flood > UPLINK_MBIT_S - RESERVED_MBIT_S


async def test_a_way_to_another_site_goes_with_all_that_it_holds(
    hosts: None, tmp_path: Path
) -> None:
    """A class that holds others that hold others: the innermost go first."""
    keys = apply(tmp_path, "flat,wide")
    assert not any(key.startswith("old/") for key in keys)
    apply(tmp_path, "wide,none")
    assert not any("site/" in key or "link" in key for key in apply(tmp_path, "none"))


async def test_classes_come_and_go_without_a_trace_and_twice_is_once(
    hosts: None, tmp_path: Path
) -> None:
    def shown() -> list[str]:
        words = ("class", "show", "dev", "eth0"), ("filter", "show", "dev", "eth0", "parent", "1:")
        texts = [
            subprocess.run(["tc", "-n", ONE, *each], check=True, capture_output=True, text=True)
            for each in words
        ]
        return sorted(line.split(" leaf ")[0] for t in texts for line in t.stdout.splitlines())

    apply(tmp_path, "none")
    without = shown()
    apply(tmp_path, "pair")
    with_pair = shown()
    apply(tmp_path, "pair")
    assert shown() == with_pair != without
    apply(tmp_path, "none,pair,none")
    assert [line.split(" rate ")[0] for line in shown()] == [
        line.split(" rate ")[0] for line in without
    ]


async def test_an_agent_that_lost_its_file_makes_the_tree_anew(hosts: None, tmp_path: Path) -> None:
    apply(tmp_path, "pair")
    (tmp_path / "classes.json").unlink()
    assert any(key.startswith("pair/") for key in apply(tmp_path, "pair"))


MEASURE = """
import asyncio, json, sys, time
from datetime import UTC, datetime
from pathlib import Path
from intertie.nodeagent.adapters.state_file import StateFile
from intertie.nodeagent.adapters.traffic import TcTraffic
from intertie.nodeagent.domain.measured import Reading, measure
from intertie.nodeagent.domain.meters import meters_of
from tests.contract.test_traffic_classes import PLACE, part
state = StateFile(Path(sys.argv[1]))
traffic = TcTraffic(state.load_classes, state.save_classes)
async def read():
    now = datetime.now(UTC)
    return Reading(at=now, seconds=time.monotonic(), queues=await traffic.queues())
async def main():
    before = await read()
    await asyncio.sleep(3)  # the kernel sends and counts in its own time
    found = measure(meters_of([part(int(sys.argv[2]))], PLACE), before, await read(), {})
    [pair] = found.values()
    print(json.dumps([pair.value, pair.backlogged, pair.below_since is not None]))
asyncio.run(main())
"""


async def measured(folder: Path, promised_mbit_s: int) -> tuple[float, bool, bool]:
    """What the agent's readings, 3 s apart, say of the pair: value, backlogged, below."""
    argv = ["ip", "netns", "exec", ONE, sys.executable, "-c", MEASURE]
    reading = await asyncio.create_subprocess_exec(
        *argv,
        str(folder),
        str(promised_mbit_s),
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
        stdout=subprocess.PIPE,
    )
    out, _ = await reading.communicate()
    value, backlogged, below = json.loads(out)
    return value, backlogged, below


async def test_backlogged_below_its_promise_is_seen_and_idle_or_kept_is_not(
    hosts: None, tmp_path: Path
) -> None:
    """The class lets through 20 Mbit/s; that 40 were promised stands for one that fails."""
    apply(tmp_path, "pair")
    value, backlogged, below = await measured(tmp_path, 2 * PAIR_MBIT_S)
    assert (value < 0.1, backlogged, below) == (True, False, False)
    sending = asyncio.create_task(payload_mbit_s(f"{ONE}-g0", f"{TWO}-g0", "10.1.0.2", 12))
    await SystemClock().sleep(1)
    lacking, kept = await asyncio.gather(
        measured(tmp_path, 2 * PAIR_MBIT_S), measured(tmp_path, PAIR_MBIT_S)
    )
    received = await sending
    assert kept[0] == pytest.approx(received, rel=0.1)
    assert lacking[1:] == (True, True)
    assert kept[1:] == (True, False)
