"""The testbed on the real machine: what it makes, what it limits, and that it leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import (
    HostSpec,
    InstanceExists,
    SiteSpec,
    Testbed,
    Topology,
    default_topology,
)
from testbed.inventory import inventory
from testbed.sweep import unmount_if_empty

pytestmark = [pytest.mark.root, pytest.mark.e2e]

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = "tbt"
SECOND = "tbu"
KILLED = "tbk"

_RECEIVE = """
import socket, sys, time
server = socket.create_server((sys.argv[1], 5001))
print("ready", flush=True)
peer, _ = server.accept()
count, begin = len(peer.recv(65536)), time.monotonic()
while data := peer.recv(262144):
    count += len(data)
print(count * 8 / (time.monotonic() - begin) / 1e6, flush=True)
"""

_SEND = """
import socket, sys, time
peer = socket.create_connection((sys.argv[1], 5001))
until = time.monotonic() + float(sys.argv[2])
block = bytes(65536)
while time.monotonic() < until:
    peer.sendall(block)
"""


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    made = Testbed.create(default_topology(), SHARED)
    made.down()
    made.up(services=False)
    yield made
    made.down()


def pings(bed: Testbed, place: str, address: str) -> bool:
    done = bed.run(place, ["ping", "-c", "3", "-i", "0.2", "-w", "2", address])
    return done.returncode == 0


def measured_mbps(bed: Testbed, source: str, target: str, address: str) -> float:
    """TCP goodput for two seconds, both ends inside their namespaces."""
    receiver = bed.popen(target, [sys.executable, "-c", _RECEIVE, address])
    assert receiver.stdout is not None
    assert receiver.stdout.readline().strip() == "ready"
    sent = bed.run(source, [sys.executable, "-c", _SEND, address, "2"])
    assert sent.returncode == 0, sent.stderr
    said, _ = receiver.communicate(timeout=20)
    return float(said)


def test_hosts_reach_their_site_and_gateways_reach_each_other(bed: Testbed) -> None:
    topology = bed.topology
    assert pings(bed, "north/n1", topology.host_address("north", "n2"))
    assert pings(bed, "north/ctl", topology.host_address("north", "n2"))
    assert pings(bed, "north/n1", topology.gateway_wan_address("south", "s1"))
    assert pings(bed, "meta", topology.ctl_wan_address("south"))
    assert not pings(bed, "north/n2", topology.host_address("south", "s2"))


def test_the_root_namespace_gets_no_interface(bed: Testbed) -> None:
    listed = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True)
    inside = bed.run("fabric", ["ip", "-br", "link"]).stdout
    names = {line.split()[0].partition("@")[0] for line in inside.splitlines()} - {"lo"}
    assert names
    assert not names & {line.split()[0].partition("@")[0] for line in listed.stdout.splitlines()}


def test_an_uplink_carries_its_capacity_and_no_more(bed: Testbed) -> None:
    address = bed.topology.host_address("north", "n2")
    assert 300 < measured_mbps(bed, "north/n1", "north/n2", address) < 410


def test_an_uplink_is_limited_in_both_directions(bed: Testbed) -> None:
    bed.slow_host_uplink("south/s2", 60)
    try:
        to_it = bed.topology.host_address("south", "s2")
        from_it = bed.topology.host_address("south", "s1")
        assert 45 < measured_mbps(bed, "south/s1", "south/s2", to_it) < 63
        assert 45 < measured_mbps(bed, "south/s2", "south/s1", from_it) < 63
    finally:
        bed.heal_host_uplink("south/s2")
    assert measured_mbps(bed, "south/s2", "south/s1", from_it) > 300


def test_a_wan_link_is_limited_slowed_cut_and_healed(bed: Testbed) -> None:
    address = bed.topology.gateway_wan_address("south", "s1")
    assert 150 < measured_mbps(bed, "north/n1", "south/s1", address) < 207
    bed.slow_link("north", "south", 40)
    assert 30 < measured_mbps(bed, "north/n1", "south/s1", address) < 42
    bed.cut_link("north", "south")
    try:
        assert not pings(bed, "north/n1", address)
        assert not pings(bed, "south/ctl", bed.topology.ctl_wan_address("north"))
        assert pings(bed, "north/ctl", bed.topology.meta_address())
    finally:
        bed.heal_link("north", "south")
    assert pings(bed, "north/n1", address)
    assert measured_mbps(bed, "north/n1", "south/s1", address) > 150


def test_a_cut_uplink_takes_one_host_away_and_comes_back(bed: Testbed) -> None:
    n2 = bed.topology.host_address("north", "n2")
    bed.cut_host_uplink("north/n2")
    try:
        assert not pings(bed, "north/n1", n2)
        assert pings(bed, "north/n1", bed.topology.ctl_address("north"))
    finally:
        bed.heal_host_uplink("north/n2")
    assert pings(bed, "north/n1", n2)


_GUEST = """
<domain type='qemu'><name>it-lives</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<cputune><shares>512</shares><period>100000</period><quota>30000</quota></cputune>
<os><type arch='x86_64'>hvm</type></os></domain>
"""


def virsh(bed: Testbed, host: str, *words: str) -> str:
    done = bed.run(host, ["virsh", "-c", "qemu:///system", *words])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_guest_outlives_its_libvirt_and_is_seen_in_the_inventory(
    bed: Testbed, tmp_path: Path
) -> None:
    definition = tmp_path / "guest.xml"
    definition.write_text(_GUEST)
    before = bed.inventory("north/n1")
    virsh(bed, "north/n1", "create", str(definition))
    virsh(bed, "north/n2", "create", str(definition))
    guests = bed.guest_pids("north/n1")
    assert len(guests) == 1
    for name in ("north/n1/libvirtd", "north/n1/virtlogd"):
        component = bed.component(name)
        component.kill9()
        assert component.pid is None
        component.start()
        assert bed.guest_pids("north/n1") == guests
    assert "it-lives" in virsh(bed, "north/n1", "list", "--name")
    quota = virsh(bed, "north/n1", "schedinfo", "it-lives", "--set", "vcpu_quota=50000")
    assert "50000" in quota
    assert "30000" in virsh(bed, "north/n2", "schedinfo", "it-lives")
    assert "domain it-lives" in bed.inventory("north/n1")
    virsh(bed, "north/n1", "destroy", "it-lives")
    virsh(bed, "north/n2", "destroy", "it-lives")
    assert bed.inventory("north/n1") == before


def test_the_inventory_sees_what_an_agent_could_leave(bed: Testbed) -> None:
    places = bed.places
    before = inventory(places, "south", "s2")
    left_file = places.host_disk("south", "s2") / "agent" / "overlay.qcow2"
    left_file.touch()
    bed.run("south/s2", ["ip", "link", "add", "ib0", "type", "bridge"])
    bed.run("south/s2", ["ip", "link", "add", "iv0", "type", "vxlan", "id", "7", "dstport", "4789"])
    bed.run("south/s2", ["bridge", "fdb", "append", "0:0:0:0:0:0", "dev", "iv0", "dst", "10.0.0.1"])
    bed.run("south/s2", ["tc", "qdisc", "add", "dev", "eth0", "root", "handle", "1:", "htb"])
    found = sorted(set(inventory(places, "south", "s2")) - set(before))
    for undo in (["ip", "link", "del", "ib0"], ["ip", "link", "del", "iv0"]):
        bed.run("south/s2", undo)
    bed.run("south/s2", ["tc", "qdisc", "del", "dev", "eth0", "root"])
    left_file.unlink()
    assert found == [
        "file agent/overlay.qcow2",
        "forward iv0 00:00:00:00:00:00 to 10.0.0.1",
        "link bridge ib0",
        "link vxlan iv0",
        "qdisc eth0 htb root",
    ]
    assert inventory(places, "south", "s2") == before


def test_etcd_answers_its_own_and_refuses_a_users_certificate(bed: Testbed) -> None:
    pki = bed.places.pki / "north"
    endpoint = f"--endpoints=https://{bed.topology.ctl_address('north')}:2379"

    def put(name: str) -> int:
        argv = ["env", "ETCDCTL_API=3", "etcdctl", endpoint, "--dial-timeout=1s"]
        argv += ["--command-timeout=2s", f"--cacert={pki / 'etcd-ca.pem'}"]
        argv += [f"--cert={pki / name}.pem", f"--key={pki / name}.key", "put", "probe", "1"]
        return bed.run("north/ctl", argv).returncode

    assert put("etcd-broker") == 0
    assert put("user-demo-alice") != 0


def test_stop_and_restart_of_a_component(bed: Testbed) -> None:
    etcd = bed.component("south/etcd-0")
    first = etcd.pid
    etcd.stop()
    assert not etcd.ready()
    etcd.cont()
    etcd.wait_ready()
    etcd.restart()
    assert etcd.pid not in (None, first)
    assert Testbed.find(SHARED).component("south/etcd-0").pid == etcd.pid


def command(verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "testbed", verb, "--instance", SHARED, *words]
    return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_the_command_acts_on_what_another_process_brought_up(bed: Testbed) -> None:
    assert command("exec", "north/n2", "--", "echo", "--", "a b").stdout == "-- a b\n"
    assert command("cut", "north", "south").returncode == 0
    assert not pings(bed, "north/n1", bed.topology.gateway_wan_address("south", "s1"))
    assert command("heal", "south", "north").returncode == 0
    assert pings(bed, "north/n1", bed.topology.gateway_wan_address("south", "s1"))
    assert command("kill", "south/s2/virtlogd").returncode == 0
    assert "south/s2/virtlogd        down" in command("status").stdout
    assert command("restart", "south/s2/virtlogd").returncode == 0
    assert bed.component("south/s2/virtlogd").running
    refused = command("kill", "south/s9/virtlogd")
    assert refused.returncode == 1
    assert "south/s2/virtlogd" in refused.stderr


def test_the_command_cuts_slows_and_heals_links_and_uplinks(bed: Testbed) -> None:
    wan = bed.topology.gateway_wan_address("south", "s1")
    own = bed.topology.host_address("north", "n2")
    try:
        for words in (("slow", "south", "north", "40"), ("slow", "north/n2", "60")):
            assert command(*words).returncode == 0
        assert 30 < measured_mbps(bed, "north/n1", "south/s1", wan) < 42
        assert 45 < measured_mbps(bed, "north/n1", "north/n2", own) < 63
        assert command("cut", "north/n2").returncode == 0
        assert not pings(bed, "north/n1", own)
    finally:
        healed = [command("heal", "north", "south"), command("heal", "north/n2")]
    assert [each.returncode for each in healed] == [0, 0]
    assert measured_mbps(bed, "north/n1", "south/s1", wan) > 150
    assert measured_mbps(bed, "north/n1", "north/n2", own) > 300


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("slow", "north", "south", "0"), 2, "`cut` lets nothing through"),
        (("slow", "north", "south"), 2, "MBPS"),
        (("slow", "north/n9", "40"), 1, "north/n9"),
        (("cut", "north", "nowhere"), 1, "nowhere"),
        (("heal", "north", "south", "meta"), 1, "two ends, not 3"),
    ],
)
def test_a_link_that_is_not_there_or_a_wrong_capacity_is_said(
    bed: Testbed, words: tuple[str, ...], code: int, says: str
) -> None:
    refused = command(*words)
    assert refused.returncode == code
    assert says in refused.stderr
    assert "Traceback" not in refused.stderr


def test_instances_live_side_by_side(bed: Testbed) -> None:
    with pytest.raises(InstanceExists):
        Testbed.create(default_topology(), SHARED).up(services=False)
    pids = {name: each.pid for name, each in bed.components().items()}
    second = Testbed.create(default_topology(), SECOND)
    try:
        second.up(services=False)
        assert pings(second, "north/n1", second.topology.host_address("north", "n2"))
    finally:
        second.down()
    assert second.leftovers() == []
    second.down()
    assert {name: each.pid for name, each in bed.components().items()} == pids
    assert pings(bed, "north/n1", bed.topology.host_address("north", "n2"))


def test_sites_without_a_link_reach_the_metasched_only_and_etcd_may_have_three_members() -> None:
    def site(name: str) -> SiteSpec:
        return SiteSpec(name=name, hosts=(HostSpec(name="h1", gateway=True),))

    topology = Topology(sites=(site("east"), site("west")), etcd_members=3)
    apart = Testbed.create(topology, SECOND)
    apart.down()
    try:
        apart.up(services=False)
        assert pings(apart, "east/ctl", topology.meta_address())
        assert not pings(apart, "east/ctl", topology.ctl_wan_address("west"))
        apart.component("east/etcd-1").kill9()
        assert apart.component("east/etcd-2").ready()
        apart.component("east/etcd-1").start()
    finally:
        apart.down()
    assert apart.leftovers() == []


def up_command(until: str) -> subprocess.Popen[str]:
    """`python -m testbed up` of another instance, at the moment in which it reports `until`."""
    argv = [sys.executable, "-m", "testbed", "up", "--no-services", "--instance", KILLED]
    command = subprocess.Popen(argv, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    assert command.stderr is not None
    for line in command.stderr:
        if until in line:
            return command
    raise AssertionError(f"never said {until}")


@pytest.mark.parametrize(
    "moment",
    [
        "network",
        pytest.param("certificates", marks=pytest.mark.more_guests),
        pytest.param("virtlogd", marks=pytest.mark.more_guests),
        "[9/",
    ],
)
def test_down_removes_what_a_killed_up_left(moment: str) -> None:
    command = up_command(moment)
    command.kill()
    command.wait()
    command.stderr.close()  # type: ignore[union-attr]
    killed = Testbed.create(default_topology(), KILLED)
    assert killed.leftovers()
    argv = [sys.executable, "-m", "testbed", "down", "--instance", KILLED]
    for _ in range(2):
        assert subprocess.run(argv, cwd=REPOSITORY, check=False).returncode == 0
        assert killed.leftovers() == []


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "network"),
        (signal.SIGTERM, "[6/"),
        pytest.param(signal.SIGINT, "certificates", marks=pytest.mark.more_guests),
        pytest.param(signal.SIGINT, "[6/", marks=pytest.mark.more_guests),
        pytest.param(signal.SIGTERM, "network", marks=pytest.mark.more_guests),
        pytest.param(signal.SIGTERM, "certificates", marks=pytest.mark.more_guests),
    ],
)
def test_an_interrupted_up_leaves_nothing(number: signal.Signals, moment: str) -> None:
    command = up_command(moment)
    os.kill(command.pid, number)
    threading.Timer(0.1, command.send_signal, [number]).start()
    command.communicate(timeout=60)
    assert command.returncode == 130
    assert Testbed.create(default_topology(), KILLED).leftovers() == []


def test_the_mount_of_names_goes_with_the_last_name(tmp_path: Path) -> None:
    """A bug: on a machine that had never had a namespace, `/run/netns` stayed mounted."""
    names = tmp_path / "netns"
    names.mkdir()
    subprocess.run(["mount", "--bind", str(names), str(names)], check=True)
    try:
        (names / "one").touch()
        unmount_if_empty(names)
        assert f" {names} " in Path("/proc/self/mountinfo").read_text()
        (names / "one").unlink()
        unmount_if_empty(names)
        assert not names.exists()
    finally:
        subprocess.run(["umount", str(names)], capture_output=True, check=False)
