"""Agents and hypervisors may be killed; guests go on."""

from __future__ import annotations

import pytest

from testbed.bed import Testbed
from tests.e2e.driver import User, alive, eventually, group, spec

pytestmark = [pytest.mark.root, pytest.mark.e2e]


def guest_pids(testbed: Testbed, host: str) -> list[int]:
    """Pids of QEMU processes whose network namespace is the host's."""
    said = testbed.run(host, ["sh", "-c", "ip netns identify $$"]).stdout.strip()
    pids = testbed.run("fabric", ["ip", "netns", "pids", said]).stdout.split()
    found = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/comm") as comm:
                if comm.read().startswith("qemu-system"):
                    found.append(int(pid))
        except FileNotFoundError:
            continue
    return sorted(found)


@pytest.mark.more_guests
def test_guests_outlive_their_agent_and_libvirtd_and_the_state_converges(user: User) -> None:
    user.create("stays", spec(group("a", 2, sites=["south"])))
    shown = user.show("stays")
    hosts = {f"south/{w['host']}" for w in shown["workspaces"]}
    before = {host: guest_pids(user.testbed, host) for host in hosts}
    assert sum(len(pids) for pids in before.values()) == 2
    for host in hosts:
        for part in ("nodeagent", "libvirtd"):
            user.testbed.component(f"{host}/{part}").kill9()
    for host in hosts:
        for part in ("libvirtd", "nodeagent"):
            user.testbed.component(f"{host}/{part}").start()

    def converged() -> bool:
        again = user.show("stays")
        return again["state"] == "ACTIVE" and all(
            w["state"] == "RUNNING" and w["ready"] for w in again["workspaces"]
        )

    eventually(converged, within_s=15, what="ACTIVE again, all guests RUNNING")
    assert {host: guest_pids(user.testbed, host) for host in hosts} == before
    assert all(alive(pid) for pids in before.values() for pid in pids)
    user.in_guest("stays", "a-0", "ping -c 2 -W 3 a-1")
    user.delete("stays")
    eventually(
        lambda: all(not guest_pids(user.testbed, host) for host in hosts),
        within_s=15,
        what="guests gone after delete",
    )
