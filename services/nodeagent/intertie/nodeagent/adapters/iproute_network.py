"""Bridges, VXLAN devices, taps and forwarding entries of the agent's network namespace."""

import asyncio
import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from intertie.nodeagent.adapters.commands import batch_all, run, run_json
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.network_plan import (
    FILTER_TABLE,
    FLOOD,
    BridgePlan,
    FdbEntry,
    NetworkPlan,
    TapPlan,
    VxlanPlan,
    filter_leave,
    filter_rules,
    sending_on_rules,
    stale_devices,
)
from intertie.nodeagent.domain.ports import Applied

_OWN = re.compile(r"it[0-9a-f]{9}|i[bvw][0-9a-f]{10}")
_IPV6 = Path("/proc/sys/net/ipv6/conf")


class IprouteNetwork:
    """Makes the links of a plan and keeps them so. Links that are right are not touched."""

    def __init__(self) -> None:
        self._rules = ""
        self._sent_on: frozenset[tuple[str, str]] = frozenset()

    async def apply(self, plan: NetworkPlan) -> Applied:
        found = await _links()
        wrong = {
            vxlan.name
            for vxlan in plan.vxlans
            if vxlan.name in found and not _is_as_planned(found[vxlan.name], vxlan)
        }
        own = {name for name in found if _OWN.fullmatch(name)}
        stale = sorted(wrong | stale_devices(own, plan))
        problems = [await batch_all("ip", lines=[f"link del {name}" for name in stale])]
        kept = {name: link for name, link in found.items() if name not in stale}
        problems += await _apply_links(plan, kept)
        tables = frozenset((await run("nft", "list", "tables")).splitlines())
        await self._apply_rules(plan, tables)
        problems.append(await _apply_fdb(plan))
        await self._send_on(plan, tables)
        problem = "; ".join(filter(None, problems))
        if stale or problem:
            found = await _links()
            own = {name for name in found if _OWN.fullmatch(name)}
            missing = plan.devices - found.keys()
            return Applied(missing=missing, left=stale_devices(own, plan), problem=problem)
        return Applied()

    async def send_on(self, plan: NetworkPlan) -> None:
        rules = run("nft", "-f", "-", stdin=sending_on_rules(plan.sent_on))
        problem, _ = await asyncio.gather(_apply_fdb(plan), rules)
        self._sent_on = plan.sent_on
        if problem:
            raise HostFailure(problem)

    async def _apply_rules(self, plan: NetworkPlan, tables: Set[str]) -> None:
        taps = sorted(plan.taps, key=lambda tap: tap.name)
        rules = filter_rules(taps)
        there = f"table bridge {FILTER_TABLE}" in tables
        if there and plan.removable is not None:
            # Whoever else may speak on this host may go on to.
            if leave := filter_leave(taps):
                await run("nft", "-f", "-", stdin=leave)
            self._rules = ""
        elif rules != self._rules or not there:
            await run("nft", "-f", "-", stdin=rules)
            self._rules = rules

    async def _send_on(self, plan: NetworkPlan, tables: Set[str]) -> None:
        """Of rules that an earlier agent has left too; a device that goes takes its own along."""
        there = f"table netdev {FILTER_TABLE}" in tables
        as_planned = there and bool(plan.sent_on) and plan.sent_on == self._sent_on
        if (plan.sent_on or there) and not as_planned:
            await run("nft", "-f", "-", stdin=sending_on_rules(plan.sent_on))
        self._sent_on = plan.sent_on


async def _links() -> dict[str, dict[str, Any]]:
    links: list[dict[str, Any]] = await run_json("ip", "-json", "-details", "link", "show")
    return {link["ifname"]: link for link in links}


def link_lines(plan: NetworkPlan, found: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """For `ip -batch`: what makes links and corrects them, and what sets them up after that."""
    new: list[str] = []
    up: list[str] = []
    for bridge in plan.bridges:
        if bridge.name not in found:
            new.append(_new_bridge(bridge))
        elif found[bridge.name].get("mtu") != bridge.mtu:
            new.append(f"link set {bridge.name} mtu {bridge.mtu}")
        if "UP" not in found.get(bridge.name, {}).get("flags", ()):
            up.append(f"link set {bridge.name} up")
    for vxlan in plan.vxlans:
        if vxlan.name not in found:
            new.append(_new_vxlan(vxlan))
    for tap in plan.taps:
        if tap.name not in found:
            new.append(f"tuntap add dev {tap.name} mode tap")
        if found.get(tap.name, {}).get("mtu") != tap.mtu:
            new.append(f"link set {tap.name} mtu {tap.mtu}")
    for port in _ports(plan):
        link = found.get(port.name, {})
        if link.get("master") != port.bridge or "UP" not in link.get("flags", ()):
            up.append(f"link set {port.name} master {port.bridge} up")
    return new, up


def _ports(plan: NetworkPlan) -> tuple[VxlanPlan | TapPlan, ...]:
    return (*plan.vxlans, *plan.taps)


async def _apply_links(plan: NetworkPlan, found: Mapping[str, Any]) -> list[str]:
    """Makes links, then takes from them what is not theirs, then sets them up."""
    new, up = link_lines(plan, found)
    problems = [await batch_all("ip", lines=new)]
    for bridge in plan.bridges:
        if bridge.name not in found:
            _set_ipv6(bridge.name, accept_ra="0", accept_dad="0", autoconf="0")
    for port in _ports(plan):
        if port.name not in found:
            _set_ipv6(port.name, disable_ipv6="1")
    problems.append(await batch_all("ip", lines=up))
    return problems


def _set_ipv6(device: str, **knobs: str) -> None:
    """The host has no address on a guest's network but the link-local one of the bridge, and
    takes no advice from there."""
    for knob, value in knobs.items():
        path = _IPV6 / device / knob
        if path.exists():
            path.write_text(value)


def _new_bridge(bridge: BridgePlan) -> str:
    return (
        f"link add {bridge.name} address {bridge.mac} mtu {bridge.mtu} type bridge "
        "forward_delay 0 stp_state 0 mcast_snooping 0"
    )


def _new_vxlan(vxlan: VxlanPlan) -> str:
    return (
        f"link add {vxlan.name} mtu {vxlan.mtu} type vxlan id {vxlan.vni} local {vxlan.address} "
        f"dev {vxlan.interface} dstport {vxlan.port} nolearning ttl 16"
    )


def _is_as_planned(link: Mapping[str, Any], plan: VxlanPlan) -> bool:
    data = link.get("linkinfo", {}).get("info_data", {})
    return (
        data.get("id") == plan.vni
        and data.get("local") == plan.address
        and data.get("port") == plan.port
        and link.get("mtu") == plan.mtu
    )


async def _apply_fdb(plan: NetworkPlan) -> str:
    ports = {vxlan.name: vxlan.port for vxlan in plan.vxlans}
    if not ports:
        return ""
    rows: list[dict[str, Any]] = await run_json("bridge", "-json", "fdb", "show")
    found = {
        _entry(row, ports[row["ifname"]], vni)
        for row in rows
        if row.get("ifname") in ports and "dst" in row
        for vni in (row.get("vni", 0),)
    }
    wanted = {_plain(entry, ports, plan) for entry in plan.fdb if entry.device in ports}
    lines = [f"fdb del {_words(entry)}" for entry in sorted(found - wanted)]
    lines += [f"fdb append {_words(entry)}" for entry in sorted(wanted - found)]
    return await batch_all("bridge", lines=lines)


def _entry(row: Mapping[str, Any], port: int, vni: int) -> FdbEntry:
    """As the kernel tells it: what equals the device's own is left out there."""
    own = int(row.get("port", 0))
    return FdbEntry(row["ifname"], row["mac"], row["dst"], vni, 0 if own == port else own)


def _plain(entry: FdbEntry, ports: Mapping[str, int], plan: NetworkPlan) -> FdbEntry:
    """Without what equals the device's own, as the kernel would tell it."""
    own_vni = next(vxlan.vni for vxlan in plan.vxlans if vxlan.name == entry.device)
    vni = 0 if entry.vni == own_vni else entry.vni
    port = 0 if entry.port == ports[entry.device] else entry.port
    return FdbEntry(entry.device, entry.mac, entry.address, vni, port)


def _words(entry: FdbEntry) -> str:
    words = f"{entry.mac} dev {entry.device} dst {entry.address} self"
    if entry.vni:
        words += f" vni {entry.vni}"
    if entry.port:
        words += f" port {entry.port}"
    return words if entry.mac == FLOOD else f"{words} permanent"
