"""Two hosts with agents and no broker: the test writes the records that one would."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from blake3 import blake3

from intertie.common.names import uid_of
from setup.guest_image import image_path
from testbed.bed import Testbed
from testbed.hosts import agent_data
from testbed.topology import HostSpec, SiteSpec, Topology, WanLink
from tests.e2e.agent_client import AgentClient
from tests.e2e.agent_records import Member, SiteRecords, eventually, wanted_part

HOSTS = ("n1", "n2")
MEMBERS = (Member(name="a-0", host="n1", number=0), Member(name="b-0", host="n2", number=1))
PROMISED_MBIT_S = 20
CAP_IOPS = 100
RUNNING = 4
ENDED = 7
READY_WITHIN_S = 240
"""Emulated guests on a machine that may be busy."""


class Site:
    """Two hosts with agents, and the image in their caches."""

    def __init__(self, testbed: Testbed) -> None:
        self.testbed = testbed
        self.records = SiteRecords(testbed, "north")
        self.image = f"b3:{blake3(image_path().read_bytes()).hexdigest()}"
        self.agents = {host: AgentClient(testbed, "north", host) for host in HOSTS}
        self.underlay = {host: testbed.topology.host_address("north", host) for host in HOSTS}

    def want(
        self,
        part: str,
        *,
        generation: int = 1,
        gone: bool = False,
        lasts: timedelta = timedelta(hours=1),
        kept: timedelta = timedelta(),
        vni: int = 4711,
        guarantee_mbit_s: int = PROMISED_MBIT_S,
        cap_iops: int = CAP_IOPS,
        members: Sequence[Member] = MEMBERS,
        vcpus: int = 1,
        memory_mib: int = 128,
        disk_mib: int = 256,
    ) -> None:
        for host in HOSTS:
            wanted = wanted_part(
                host,
                members,
                self.underlay,
                part=part,
                image=self.image,
                generation=generation,
                lasts=lasts,
                vni=vni,
                guarantee_mbit_s=guarantee_mbit_s,
                cap_mbit_s=guarantee_mbit_s,
                cap_iops=cap_iops,
                vcpus=vcpus,
                memory_mib=memory_mib,
                disk_mib=disk_mib,
            )
            wanted.gone = gone
            if kept:
                wanted.keep_until.FromDatetime(wanted.window.end_time.ToDatetime() + kept)
            self.records.want(host, wanted)

    def wait_ready(self, part: str) -> float:
        def ready() -> bool:
            seen = [self.records.seen(host, uid_of(part)) for host in HOSTS]
            return all(
                each and [(w.state, w.ready) for w in each.workspaces] == [(RUNNING, True)]
                for each in seen
            )

        return eventually(ready, "guests are ready", within_s=READY_WITHIN_S)

    def wait_gone(self, part: str, *, within_s: float = 30) -> None:
        def gone() -> bool:
            seen = [self.records.seen(host, uid_of(part)) for host in HOSTS]
            return all(each is not None and each.gone for each in seen)

        eventually(gone, "everything is gone", within_s=within_s)

    def forget(self, part: str) -> None:
        for host in HOSTS:
            self.records.unwant(host, uid_of(part))

        def forgotten() -> bool:
            return all(self.records.seen(host, uid_of(part)) is None for host in HOSTS)

        eventually(forgotten, "what was seen is deleted", within_s=20)

    def on(self, part: str, member: Member, command: str) -> str:
        agent = self.agents[member.host]
        return agent.on_console(f"{part}/workspaces/{member.name}", command)

    def pids(self) -> list[int]:
        return [pid for host in HOSTS for pid in self.testbed.guest_pids(f"north/{host}")]

    def inventory(self) -> list[list[str]]:
        return [self.testbed.inventory(f"north/{host}") for host in HOSTS]

    def agent_process(self, host: str) -> str:
        return f"north/{host}/nodeagent"


@contextmanager
def two_hosts(
    instance: str,
    *,
    fault_points: bool = False,
    memory_growth: int = 1,
    vcpu_growth: int = 1,
    memory_mib: int = 2048,
) -> Iterator[Site]:
    """With the gateway of another site; nothing of it is left afterwards. How far guests may grow
    is the second host's alone, `memory_mib` the first one's."""
    hosts = (
        HostSpec(name=HOSTS[0], gateway=True, memory_mib=memory_mib),
        HostSpec(name=HOSTS[1], memory_growth=memory_growth, vcpu_growth=vcpu_growth),
    )
    north = SiteSpec(name="north", hosts=hosts)
    south = SiteSpec(name="south", hosts=(HostSpec(name="s1", gateway=True),))
    link = WanLink(a="north", b="south", mbps=100)
    topology = Topology(sites=(north, south), links=(link,), fault_points=fault_points)
    testbed = Testbed.create(topology, instance)
    testbed.down()
    testbed.up(services=False)
    try:
        made = Site(testbed)
        for where, host in (("north", "n1"), ("north", "n2"), ("south", "s1")):
            cache = agent_data(testbed.places, where, host) / "cache"
            cache.mkdir(parents=True)
            shutil.copy(image_path(), cache / f"{made.image.removeprefix('b3:')}.img")
            testbed.component(f"{where}/{host}/nodeagent").start()
            records = SiteRecords(testbed, where)
            eventually(
                lambda records=records, host=host: records.facts(host) is not None,  # type: ignore[misc]
                f"facts of {host}",
                within_s=20,
            )
        yield made
    finally:
        testbed.down()
    assert testbed.leftovers() == []
