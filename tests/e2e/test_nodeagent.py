"""Node agents on real hosts, without a broker: the test writes the records that one would."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import timedelta

import pytest

from intertie.api.nodeagent.v1 import records_pb2 as pb
from intertie.common.names import uid_of
from intertie.nodeagent.domain.network_plan import link_local
from tests.e2e.agent_records import Member, SiteRecords, eventually, wanted_part
from tests.e2e.agent_site import (
    HOSTS,
    MEMBERS,
    PROMISED_MBIT_S,
    READY_WITHIN_S,
    RUNNING,
    Site,
    two_hosts,
)

pytestmark = [pytest.mark.e2e, pytest.mark.root]

ENDED = 7


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with two_hosts("agent") as made:
        yield made


@pytest.fixture
def part(site: Site, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a part of which nothing is left after the test, nor of any other."""
    name = f"sites/north/tenants/demo/parts/{uid_of(request.node.name)}"
    eventually(lambda: not site.pids(), "no guest runs", within_s=30)
    before = site.inventory()
    yield name
    for host in HOSTS:
        if not site.testbed.component(site.agent_process(host)).running:
            site.testbed.component(site.agent_process(host)).start()
    site.forget(name)
    assert site.inventory() == before


def test_facts_are_what_was_found_within_what_is_allowed(site: Site) -> None:
    facts = site.records.facts("n1")
    assert facts is not None
    spec = site.testbed.topology.host("north/n1")[1]
    assert facts.address == "10.201.0.11"
    assert facts.wide_address == "10.250.0.11"
    assert facts.gateway
    assert "qemu" in facts.hypervisors
    # Of processors the machine may have fewer than are allowed.
    assert facts.capacity.vcpus == min(spec.vcpus, len(os.sched_getaffinity(0)))
    assert facts.capacity.memory_mib == spec.memory_mib
    assert 0 < facts.capacity.disk_mib <= spec.disk_gib * 1024
    assert (facts.capacity.iops, facts.capacity.throughput_mib_s) == (2000, 400)  # as declared
    assert 0.8 * spec.uplink_mbps < facts.capacity.uplink_mbit_s < spec.uplink_mbps


def told(facts: pb.HostFacts | None) -> pb.HostFacts:
    """But for when, and for what other processes leave of the disk."""
    assert facts is not None
    assert facts.capacity.disk_mib > 0
    facts.ClearField("report_time")
    facts.capacity.ClearField("disk_mib")
    return facts


@pytest.mark.more_guests
def test_guests_on_two_hosts_are_one_network_with_its_promises_until_they_are_gone(
    site: Site, part: str
) -> None:
    site.want(part)
    site.wait_ready(part)
    a, b = MEMBERS
    for member in MEMBERS:
        agent = site.agents[member.host]
        assert told(agent.facts()) == told(site.records.facts(member.host))
        [seen] = agent.parts()
        assert (seen.part, seen.generation, seen.gone) == (part, 1, False)
        running = [(each.name, each.state, each.ready) for each in seen.workspaces]
        assert running == [(member.name, RUNNING, True)]

    assert "1 packets received" in site.on(part, a, "ping -c 1 -W 5 b-0")
    assert "1 packets received" in site.on(part, b, "ping -c 1 -W 5 a-0")
    banner = site.agents["n1"].banner(f"{part}/workspaces/a-0", 22)
    assert banner.startswith(b"SSH-2.0")

    measured = re.search(r'"mbit_s":([0-9.]+)', site.on(part, a, "measure-bandwidth b-0 4"))
    assert measured is not None
    assert 0.85 * PROMISED_MBIT_S <= float(measured.group(1)) <= 1.05 * PROMISED_MBIT_S
    counted = {(m.workspace, m.kind): m for m in site.agents["n1"].measurements()}
    kinds = {m.Kind.Name(m.kind) for m in counted.values()}
    assert {"NIC_TO_GUEST", "NIC_FROM_GUEST", "PAIR_OUT", "DISK_READ", "CPU"} <= kinds

    site.want(part, generation=2, gone=True)
    site.wait_gone(part)
    assert site.pids() == []
    for member in MEMBERS:
        [seen] = site.agents[member.host].parts()
        assert (seen.part, seen.generation, seen.gone) == (part, 2, True)
        assert [(each.name, each.state) for each in seen.workspaces] == [(member.name, ENDED)]


def test_a_guest_reaches_other_guests_and_no_service_of_any_host(site: Site, part: str) -> None:
    site.want(part)
    site.wait_ready(part)
    a, b = MEMBERS
    bridge = re.search(r"ib[0-9a-f]{10}", "\n".join(site.inventory()[0]))
    assert bridge is not None
    shown = site.testbed.run("north/n1", ["ip", "-6", "-br", "addr", "show", bridge.group()])
    host = shown.stdout.split()[2].partition("/")[0]
    serve = "import socket; s = socket.create_server(('::', 9999), family=socket.AF_INET6)\n"
    serve += "while True: s.accept()[0].sendall(b'REACHED')"
    server = site.testbed.popen("north/n1", ["python3", "-c", serve])
    agent = site.testbed.component(site.agent_process("n1"))

    def reached(member: Member) -> bool:
        return "REACHED" in site.on(part, member, f"nc -w 5 {host}%eth0 9999 </dev/null")

    try:
        guest = site.on(part, a, f"nc -w 5 {link_local(b.mac)}%eth0 22 </dev/null | head -c 7")
        assert "SSH-2.0" in guest
        assert not reached(a)
        assert not reached(b)
        # It is the filter that keeps them out, and the agent that keeps the filter.
        agent.stop()
        site.testbed.run("north/n1", ["nft", "delete", "table", "bridge", "intertie"])
        assert reached(b)
        agent.cont()
        eventually(lambda: not reached(b), "the filter is back", within_s=60)
    finally:
        agent.cont()
        server.kill()
        server.communicate()
    # With another address than its own it reaches nobody.
    forged = "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:99"
    restore = f"ip link set eth0 down; ip link set eth0 address {a.mac}; ip link set eth0 up"
    said = site.on(part, a, f"{forged}; ip link set eth0 up; ping -c 1 -W 3 b-0; {restore}")
    assert "0 packets received" in said


def test_guests_outlive_agents_and_libvirtd_that_are_killed(site: Site, part: str) -> None:
    site.want(part)
    site.wait_ready(part)
    guests = site.pids()
    assert len(guests) == 2
    for process in ("north/n1/libvirtd", "north/n1/nodeagent", "north/n2/nodeagent"):
        site.testbed.component(process).kill9()
    for process in ("north/n1/nodeagent", "north/n2/nodeagent", "north/n1/libvirtd"):
        site.testbed.component(process).start(wait=process.endswith("libvirtd"))

    # A new generation is taken up: everything works again, on the same guests.
    site.want(part, generation=2)

    def settled() -> bool:
        seen = [site.records.seen(host, uid_of(part)) for host in HOSTS]
        return all(each and each.generation == 2 and not each.message for each in seen)

    assert eventually(settled, "agents and libvirtd are back", within_s=30) < 15
    site.wait_ready(part)
    assert site.pids() == guests
    assert "1 packets received" in site.on(part, MEMBERS[0], "ping -c 1 -W 5 b-0")

    # An older record is not obeyed.
    site.want(part, generation=1, gone=True)
    site.testbed.component("north/n1/nodeagent").restart()
    eventually(
        lambda: (
            (seen := site.records.seen("n1", uid_of(part))) is not None
            and seen.generation == 2
            and not seen.gone
        ),
        "the higher generation stands",
        within_s=20,
    )
    assert site.pids() == guests


@pytest.mark.more_guests
def test_at_the_end_of_the_window_guests_are_stopped_though_etcd_is_gone(
    site: Site, part: str
) -> None:
    site.want(part)
    site.wait_ready(part)
    site.want(part, generation=2, lasts=timedelta(seconds=15))
    eventually(
        lambda: all(
            (seen := site.records.seen(host, uid_of(part))) is not None and seen.generation == 2
            for host in HOSTS
        ),
        "the shorter window is known",
        within_s=12,
    )
    assert len(site.pids()) == 2
    etcd = site.testbed.component("north/etcd-0")
    etcd.stop()
    try:
        eventually(lambda: not site.pids(), "guests are stopped", within_s=60)
    finally:
        etcd.cont()
    site.wait_gone(part)


def test_networks_with_the_same_addresses_do_not_see_each_other(site: Site, part: str) -> None:
    other = f"{part}x"
    site.want(part)
    site.want(other, vni=4712)
    site.wait_ready(part)
    site.wait_ready(other)
    # Both have a guest at 10.1.0.11: each answers to its own cluster only.
    site.on(part, MEMBERS[1], "echo first >/tmp/who")
    site.on(other, MEMBERS[1], "echo second >/tmp/who; ip addr del 10.1.0.11/24 dev eth0")
    assert "1 packets received" in site.on(part, MEMBERS[0], "ping -c 1 -W 5 10.1.0.11")
    assert "0 packets received" in site.on(other, MEMBERS[0], "ping -c 1 -W 3 10.1.0.11")
    site.forget(other)


@pytest.mark.more_guests
def test_two_sites_are_one_network_through_their_gateways(site: Site, part: str) -> None:
    """The gateway of the first site has no guest of the part; each site has ids of its own."""
    a, b = MEMBERS[1], Member(name="c-0", host="s1", number=2)
    south = SiteRecords(site.testbed, "south")
    far = f"sites/south/tenants/demo/parts/{uid_of(part)}"
    topology = site.testbed.topology
    north_wan = topology.gateway_wan_address("north", "n1")
    south_wan = topology.gateway_wan_address("south", "s1")

    def wanted(host: str, name: str, vni: int) -> pb.WantedPart:
        places = {**site.underlay, "s1": south_wan}
        made = wanted_part(host, (a, b), places, part=name, image=site.image, vni=vni)
        made.networks[0].ClearField("tunnels")
        return made

    gateway = wanted("n1", part, 5001)
    gateway.networks[0].tunnels.add(address=site.underlay["n2"], macs=[a.mac])
    gateway.networks[0].wide_tunnels.add(
        site="south",
        address=south_wan,
        port=4790,
        vni=6001,
        macs=[b.mac],
        guarantee_mbit_s=PROMISED_MBIT_S,
        cap_mbit_s=PROMISED_MBIT_S,
    )
    inner = wanted("n2", part, 5001)
    inner.networks[0].tunnels.add(address=site.underlay["n1"], macs=[b.mac])
    other = wanted("s1", far, 6001)
    other.networks[0].wide_tunnels.add(
        site="north", address=north_wan, port=4790, vni=5001, macs=[a.mac]
    )
    site.records.want("n1", gateway)
    site.records.want("n2", inner)
    south.want("s1", other)
    try:

        def ready() -> bool:
            seen = (site.records.seen("n2", uid_of(part)), south.seen("s1", uid_of(far)))
            return all(each and all(w.ready for w in each.workspaces) for each in seen)

        eventually(ready, "guests are ready", within_s=READY_WITHIN_S)
        assert "1 packets received" in site.on(part, a, "ping -c 1 -W 5 c-0")
        measured = re.search(r'"mbit_s":([0-9.]+)', site.on(part, a, "measure-bandwidth c-0 4"))
        assert measured is not None
        assert 0.85 * PROMISED_MBIT_S <= float(measured.group(1)) <= 1.05 * PROMISED_MBIT_S
        kinds = {m.Kind.Name(m.kind) for m in site.agents["n1"].measurements() if m.bytes}
        assert "LINK_OUT" in kinds
    finally:
        south.unwant("s1", uid_of(far))
        eventually(lambda: south.seen("s1", uid_of(far)) is None, "the south is clear", within_s=30)
