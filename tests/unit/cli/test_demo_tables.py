"""The demo's judgement: what counts as kept, as answered, as left over."""

from __future__ import annotations

from typing import Any

from testbed.demo_guests import parse_pings
from testbed.demo_tables import bandwidths, differences, disks, measuring_order, pairs_of


def pair(source: str, target: str) -> dict[str, Any]:
    return {
        "kind": "PAIR_BANDWIDTH",
        "from": source,
        "to": target,
        "guarantee": 20,
        "cap": 40,
    }


def test_a_pair_is_promised_both_ways_however_it_is_listed() -> None:
    one = pairs_of([pair("head-0", "worker-0")])
    both = pairs_of([pair("head-0", "worker-0"), pair("worker-0", "head-0")])
    assert set(one) == set(both) == {("head-0", "worker-0"), ("worker-0", "head-0")}


def test_every_pair_is_measured_once_and_from_few_guests() -> None:
    pairs = pairs_of([pair("head-0", "a-0"), pair("head-0", "a-1"), pair("a-0", "a-1")])
    assert measuring_order(pairs) == {"a-0": ["a-1", "head-0"], "a-1": ["head-0"]}
    star = pairs_of([pair("head-0", f"worker-{index}") for index in range(3)])
    assert measuring_order(star) == {"head-0": ["worker-0", "worker-1", "worker-2"]}


def test_less_than_promised_is_broken_however_little() -> None:
    pairs = pairs_of([pair("a", "b")])
    above, below = bandwidths(pairs, {("a", "b"): 20.0, ("b", "a"): 19.9})
    assert above.kept
    assert not below.kept
    iops = {"kind": "DISK_IOPS", "from": "a", "guarantee": 150, "cap": 200}
    [disk] = disks([iops, pair("a", "b")], {"a": 149.0})
    assert not disk.kept
    found = bandwidths(pairs, {("a", "b"): 20.0, ("b", "a"): 44.1})
    assert [each.verdict[0] for each in found] == ["kept", "kept, above its cap"]


def test_pings_are_read_by_name_and_silence_is_no_answer() -> None:
    said = """to worker-0
PING worker-0 (10.1.0.11): 56 data bytes
2 packets transmitted, 2 packets received, 0% packet loss
round-trip min/avg/max = 1.234/1.500/2.000 ms
to worker-1
PING worker-1 (10.1.0.12): 56 data bytes
2 packets transmitted, 0 packets received, 100% packet loss
"""
    assert parse_pings(said, ["worker-0", "worker-1"]) == {"worker-0": 1.234, "worker-1": None}


def test_what_came_and_what_went_are_both_differences() -> None:
    before = {"north/n1": ["link eth0", "file a"], "north/n2": []}
    after = {"north/n1": ["link eth0", "link tap"], "north/n2": []}
    assert differences(before, after) == [
        "north/n1: left over: link tap",
        "north/n1: gone: file a",
    ]
