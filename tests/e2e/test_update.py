"""Clusters that run, of one site and over two, get more workspaces, and fewer."""

from __future__ import annotations

import json

import libvirt
import pytest

from testbed.bed import Testbed
from tests.e2e.driver import User, eventually, group, spec
from tests.e2e.one_site import SITE, counters

pytestmark = [pytest.mark.root, pytest.mark.e2e]

BOOT = "cat /proc/sys/kernel/random/boot_id"
GONE_WITHIN_S = 60


@pytest.mark.more_guests
def test_a_cluster_grows_and_shrinks_while_its_first_guest_runs_on(user: User) -> None:
    north = user.at("north")
    name = "amended"
    free = free_vcpus(north)
    north.create(name, spec(group("w", 1, max_per_host=1)))
    [first] = north.show(name)["workspaces"]
    boot = north.in_guest(name, "w-0", BOOT)

    two = north.write(name, spec(group("w", 2, max_per_host=1)))
    north.do("cluster", "update", name, "-f", str(two), timeout_s=300)
    shown = north.show(name)
    was, new = shown["workspaces"]
    assert shown["terms"] == 1
    assert (was["host"], was["addresses"]) == (first["host"], first["addresses"])
    assert new["ready"]
    assert new["host"] != was["host"]
    north.in_guest(name, "w-1", "ping -c 3 -W 5 w-0")
    old_guest = counters(user.testbed, was["host"])[f"{name}/w-0"].domain
    new_guest = counters(user.testbed, new["host"])[f"{name}/w-1"].domain
    assert north.in_guest(name, "w-0", BOOT) == boot, "it was not started again"

    one = north.write(name, spec(group("w", 1, max_per_host=1)))
    north.do("cluster", "update", name, "-f", str(one))
    assert [each["host"] for each in north.show(name)["workspaces"]] == [first["host"]]
    eventually(
        lambda: new_guest not in running(user.testbed, new["host"]),
        within_s=GONE_WITHIN_S,
        what="the guest that was given up is gone",
    )
    eventually(
        lambda: free_vcpus(north)[new["host"]] == free[new["host"]],
        within_s=GONE_WITHIN_S,
        what="what it had is free for others",
    )
    assert free_vcpus(north)[first["host"]] == free[first["host"]] - 1
    assert north.in_guest(name, "w-0", BOOT) == boot

    north.do("cluster", "update", name, "--duration", "2h")
    window = json.loads(north.do("cluster", "show", name, "-o", "json"))["window"]
    assert window["start_time"] == shown["window"]["start_time"]
    assert window["end_time"] > shown["window"]["end_time"]
    north.delete(name)
    assert old_guest not in running(user.testbed, was["host"])


def free_vcpus(user: User) -> dict[str, int]:
    """Of each host, as the site tells."""
    told = json.loads(user.do("host", "list", "-o", "json"))
    return {each["name"].rpartition("/")[2]: each["free"].get("vcpus", 0) for each in told}


def running(bed: Testbed, host: str) -> set[str]:
    """The names of the guests that run there."""
    connection = libvirt.open(bed.libvirt_uri(f"{SITE}/{host}"))
    try:
        return {each.name() for each in connection.listAllDomains()}
    finally:
        connection.close()


def test_a_cluster_over_two_sites_grows_at_both_or_at_none(user: User) -> None:
    """More bandwidth and one more worker; what is too much leaves all as it was."""
    name = "wider"

    def sized(workers: int, mbit_s: int, vcpus: int = 1) -> str:
        pair = {"group": "w", "bandwidth": {"guarantee_mbit_s": mbit_s}}
        head = group("head", sites=["north"], pairs=[pair])
        return str(user.write(name, spec(head, group("w", workers, sites=["south"], vcpus=vcpus))))

    pair = {"group": "w", "bandwidth": {"guarantee_mbit_s": 10}}
    head = group("head", sites=["north"], pairs=[pair])
    user.create(name, spec(head, group("w", 1, sites=["south"])))
    before = user.show(name)
    boot = {each: user.in_guest(name, each, BOOT) for each in ("head-0", "w-0")}

    said = user.say("cluster", "update", name, "-f", sized(2, 10, vcpus=40))
    assert said.code == 1
    assert "NO_CAPACITY" in said.err
    same = user.show(name)
    for shown in (before, same):
        for link in shown["plan"]["links"]:
            link.pop("round_trip", None)  # measured, and another each time
    for field in ("spec", "plan", "window"):
        assert same[field] == before[field]
    assert same.get("terms", 0) == 0

    user.do("cluster", "update", name, "-f", sized(2, 20), timeout_s=300)
    shown = user.show(name)
    machines = {each["name"].rpartition("/")[2]: each for each in shown["workspaces"]}
    assert (shown["terms"], set(machines)) == (1, {"head-0", "w-0", "w-1"})
    assert all(each["ready"] for each in machines.values())
    assert {int(each["mbit_s"]) for each in shown["plan"]["links"]} == {40}
    for each in before["workspaces"]:
        now = machines[each["name"].rpartition("/")[2]]
        assert (now["host"], now["addresses"]) == (each["host"], each["addresses"])
    user.in_guest(name, "w-1", "ping -c 3 -W 5 head-0")
    # Who runs since before has no name of who is new.
    address = machines["w-1"]["addresses"][0]["address"].partition("/")[0]
    user.in_guest(name, "head-0", f"ping -c 3 -W 5 {address}")
    for each, was in boot.items():
        assert user.in_guest(name, each, BOOT) == was, "it was not started again"
    user.delete(name)
