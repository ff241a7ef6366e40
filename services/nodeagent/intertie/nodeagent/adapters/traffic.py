"""HTB classes and their filters, by `tc`.

A class id stands for one key for good, and the filters of a class have a preference of their own,
made from its id: so what is there can be told apart without reading filters back.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from intertie.nodeagent.adapters.commands import batch, run, run_json
from intertie.nodeagent.domain.measured import QueueCounters
from intertie.nodeagent.domain.meters import WHOLE, Queue
from intertie.nodeagent.domain.ports import ClassCounters
from intertie.nodeagent.domain.traffic_plan import (
    DEFAULT_CLASS,
    ROOT_CLASS,
    ClassPlan,
    DevicePlan,
    NicPlan,
    Word,
    allot,
)

_OWN_IFB = re.compile(r"ii[0-9a-f]{9}")
_CLASS = re.compile(r"^class htb 1:(?P<id>[0-9a-f]+) (?:root|parent 1:(?P<parent>[0-9a-f]+))", re.M)
_CLASS_STATISTICS = re.compile(
    _CLASS.pattern
    + r"[^\n]*\n\s*Sent (?P<bytes>\d+) bytes (?P<packets>\d+) pkt "
    + r"\(dropped (?P<drops>\d+), overlimits (?P<overlimits>\d+)",
    re.M,
)
_HOLDER = re.compile(r"1:(?P<id>[0-9a-f]+)")
"""Of a queue: the class that it belongs to."""
_PREF = re.compile(r"\bpref (\d+)\b")
_PAIR_WORDS = 6
_HOST_WORDS = 4
_HOST_PREF = 0x5000
_GENERAL_PREF = 0xA000
"""Filters of a network towards one host come after those of pairs, those of all of it last."""
_NIC_CLASS = ROOT_CLASS
"""Of a tap, which has one class only; on an ifb, the one that holds all others."""
Keys = dict[str, dict[str, int]]
"""Device to key to class id."""


class TcTraffic:
    """Shapes devices of the agent's network namespace."""

    def __init__(self, load: Callable[[], Keys], save: Callable[[Keys], None]) -> None:
        self._save = save
        self._ids: Keys = load()
        self._applied: dict[str, DevicePlan] = {}
        self._nics: dict[str, NicPlan] = {}

    async def apply_device(self, plan: DevicePlan) -> None:
        shaped, _ = await _shaped_devices()
        await self._apply(plan, shaped)

    async def _apply(self, plan: DevicePlan, shaped: frozenset[str]) -> None:
        if plan.device in shaped and self._applied.get(plan.device) == plan:
            return
        if plan.device not in shaped or plan.device not in self._ids:
            self._ids[plan.device] = {}
            self._applied.pop(plan.device, None)
            old = [f"qdisc del dev {plan.device} root"] if plan.device in shaped else []
            await batch("tc", lines=[*old, *_new_tree(plan)])
        # What breaks off half done is done again, also when the plan is the old one by then.
        self._applied.pop(plan.device, None)
        before = self._ids[plan.device]
        ids = allot([each.key for each in plan.classes], before)
        # Written down before it is done: an id never stands for two things after a crash.
        self._ids[plan.device] = {**before, **ids}
        self._save(self._ids)
        await self._apply_classes(plan, ids)
        self._ids[plan.device] = ids
        self._save(self._ids)
        self._applied[plan.device] = plan

    async def _apply_classes(self, plan: DevicePlan, ids: Mapping[str, int]) -> None:
        device = plan.device
        shown = await run("tc", "filter", "show", "dev", device, "parent", "1:")
        prefs = {int(text) for text in _PREF.findall(shown)}
        wanted = {_pref(each, ids[each.key]) for each in plan.classes if each.match}
        lines = [*_frame(plan)]
        lines += [f"filter del dev {device} parent 1: pref {n}" for n in sorted(prefs - wanted)]
        live = await _class_ids(device)
        kept = {ROOT_CLASS, DEFAULT_CLASS, *ids.values()}
        # Children first: a class that holds others cannot go.
        gone = [number for number in live if number not in kept]
        gone.sort(key=lambda number: _depth(number, live), reverse=True)
        lines += [f"class del dev {device} classid 1:{number:x}" for number in gone]
        for each in plan.classes:
            parent = ids[each.parent] if each.parent else ROOT_CLASS
            number = ids[each.key]
            if number in live and live[number] != parent:
                lines.append(f"class del dev {device} classid 1:{number:x}")
            lines.append(_class(device, parent, number, each.rate_kbit, each.ceil_kbit))
            if each.match:
                lines.append(_queue(device, number, each.rate_kbit))
            pref = _pref(each, number)
            if each.match and pref not in prefs:
                lines.append(
                    f"filter add dev {device} parent 1: protocol ip pref {pref} u32 "
                    f"{' '.join(map(_match, each.match))} flowid 1:{number:x}"
                )
        await batch("tc", lines=lines)

    async def apply_nics(self, nics: tuple[NicPlan, ...]) -> None:
        shaped, redirected = await _shaped_devices()
        links: list[dict[str, Any]] = await run_json("ip", "-json", "link", "show")
        there = {link["ifname"] for link in links}
        for nic in nics:
            whole = {nic.tap, nic.ifb} <= shaped and nic.tap in redirected
            if nic.tap in there and not (whole and self._nics.get(nic.tap) == nic):
                await _shape_nic(nic, has_ifb=nic.ifb in there, shaped=shaped, led=redirected)
                await self._apply(nic.sent, shaped)
                self._nics[nic.tap] = nic
        wanted = {nic.ifb for nic in nics}
        stale = [name for name in there if _OWN_IFB.fullmatch(name) and name not in wanted]
        await batch("ip", lines=[f"link del {name}" for name in stale])
        self._forget(name for name in self._ids if _OWN_IFB.fullmatch(name) and name not in wanted)
        self._nics = {nic.tap: nic for nic in nics if nic.tap in self._nics}

    def _forget(self, devices: Iterable[str]) -> None:
        if gone := tuple(devices):
            for device in gone:
                del self._ids[device]
                self._applied.pop(device, None)
            self._save(self._ids)

    async def device_counters(self, device: str) -> Mapping[str, ClassCounters]:
        by_id = await _counters(device)
        keys = self._ids.get(device, {})
        return {key: by_id[number] for key, number in keys.items() if number in by_id}

    async def nic_counters(self, device: str) -> ClassCounters:
        return (await _counters(device)).get(_NIC_CLASS, ClassCounters())

    async def queues(self) -> Mapping[Queue, QueueCounters]:
        """From the queues of the classes: of those, one `tc` tells all that there are on a host, as
        JSON, where of classes it tells a device's and in text."""
        qdiscs: list[dict[str, Any]] = await run_json("tc", "-json", "-statistics", "qdisc", "show")
        keys = {
            device: {number: key for key, number in ids.items()}
            for device, ids in self._ids.items()
        }
        found = {}
        for qdisc in qdiscs:
            device, holder = qdisc["dev"], _HOLDER.fullmatch(qdisc.get("parent", ""))
            if qdisc.get("root") and qdisc["kind"] == "htb":
                key: str | None = WHOLE
            else:
                key = keys.get(device, {}).get(int(holder["id"], 16)) if holder else None
            if key is not None:
                found[Queue(device, key)] = QueueCounters(
                    made=qdisc["handle"], bytes=qdisc["bytes"], backlog=qdisc["backlog"]
                )
        return found


def _new_tree(plan: DevicePlan) -> list[str]:
    device = plan.device
    return [
        f"qdisc replace dev {device} root handle 1: htb default {DEFAULT_CLASS:x}",
        *_frame(plan),
        _queue(device, DEFAULT_CLASS, plan.capacity_kbit),
    ]


def _frame(plan: DevicePlan) -> list[str]:
    """The class that all others borrow from, and that of what nothing was promised to."""
    return [
        _class(plan.device, 0, ROOT_CLASS, plan.capacity_kbit, plan.capacity_kbit),
        _class(plan.device, ROOT_CLASS, DEFAULT_CLASS, plan.default_kbit, plan.capacity_kbit),
    ]


def _class(device: str, parent: int, number: int, rate_kbit: int, ceil_kbit: int) -> str:
    """A burst of 10 ms, and never less than one large segment of a guest."""
    burst = max(65_536, rate_kbit * 125 // 100)
    cburst = max(65_536, ceil_kbit * 125 // 100)
    quantum = min(max(rate_kbit * 125 // 1000, 1_600), 65_536)
    holder = f"1:{parent:x}" if parent else "1:"
    return (
        f"class replace dev {device} parent {holder} classid 1:{number:x} htb "
        f"rate {rate_kbit}kbit ceil {ceil_kbit}kbit burst {burst} cburst {cburst} "
        f"quantum {quantum}"
    )


def _queue(device: str, number: int, rate_kbit: int) -> str:
    """50 ms at the class's rate, and never less than four large segments: the kernel's own
    choice is a thousand packets, which may be a minute."""
    limit = max(262_144, rate_kbit * 125 // 20)
    return f"qdisc replace dev {device} parent 1:{number:x} bfifo limit {limit}"


def _pref(plan: ClassPlan, number: int) -> int:
    """Of its filter: the more special ones come first."""
    if len(plan.match) >= _PAIR_WORDS:
        return number
    return number + (_HOST_PREF if len(plan.match) >= _HOST_WORDS else _GENERAL_PREF)


def _match(word: Word) -> str:
    return f"match u32 {word.value:#010x} {word.mask:#010x} at {word.offset}"


async def _shape_nic(
    nic: NicPlan, *, has_ifb: bool, shaped: frozenset[str], led: frozenset[str]
) -> None:
    """To the guest: HTB on its tap. From it: what enters by the tap passes an ifb with HTB."""
    new = [f"link add {nic.ifb} type ifb", f"link set {nic.ifb} addrgenmode none"]
    lines = [] if has_ifb else new
    await batch("ip", lines=[*lines, f"link set {nic.ifb} up"])
    rows = []
    if nic.tap not in shaped:
        rows.append(f"qdisc replace dev {nic.tap} root handle 1: htb default {_NIC_CLASS:x}")
    rows.append(_class(nic.tap, 0, _NIC_CLASS, nic.cap_kbit, nic.cap_kbit))
    rows.append(_queue(nic.tap, _NIC_CLASS, nic.cap_kbit))
    if nic.tap not in led:
        rows.append(f"qdisc add dev {nic.tap} ingress")
    else:
        rows.append(f"filter del dev {nic.tap} parent ffff:")
    rows.append(
        f"filter add dev {nic.tap} parent ffff: protocol all pref 1 u32 match u32 0 0 "
        f"action mirred egress redirect dev {nic.ifb}"
    )
    await batch("tc", lines=rows)


async def _shaped_devices() -> tuple[frozenset[str], frozenset[str]]:
    """Devices whose root is an HTB of this agent's shape, and those whose incoming packets are
    led elsewhere."""
    qdiscs: list[dict[str, Any]] = await run_json("tc", "-json", "qdisc", "show")
    shaped = frozenset(
        qdisc["dev"]
        for qdisc in qdiscs
        if qdisc["kind"] == "htb" and qdisc.get("root") and qdisc.get("handle") == "1:"
    )
    return shaped, frozenset(qdisc["dev"] for qdisc in qdiscs if qdisc["kind"] == "ingress")


async def _class_ids(device: str) -> dict[int, int]:
    """Minor id of each class to that of its parent, 0 for none."""
    shown = await run("tc", "class", "show", "dev", device)
    return {int(m["id"], 16): int(m["parent"] or "0", 16) for m in _CLASS.finditer(shown)}


def _depth(number: int, parents: Mapping[int, int]) -> int:
    """How many classes hold it."""
    depth = 0
    while number := parents.get(number, 0):
        depth += 1
    return depth


async def _counters(device: str) -> dict[int, ClassCounters]:
    """Read from text: this `tc` knows no JSON for classes."""
    shown = await run("tc", "-statistics", "class", "show", "dev", device)
    return {
        int(m["id"], 16): ClassCounters(
            bytes=int(m["bytes"]),
            packets=int(m["packets"]),
            overlimits=int(m["overlimits"]),
            drops=int(m["drops"]),
        )
        for m in _CLASS_STATISTICS.finditer(shown)
    }
