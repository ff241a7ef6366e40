"""What must hold of a world at every moment, and what has come to an end in one that converged.

Counted from the records as they stand, by code that shares nothing with what wrote them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from tests.fault.commit.world import World

COUNTED = frozenset({"HELD", "PREPARED", "CONFIRMED"})
BEGAN = frozenset({"CONFIRMED", "ENDED"})
NEVER_BEGAN = frozenset({"RELEASED", "EXPIRED"})
PENDING = frozenset({"REQUESTED", "PLANNED", "HELD"})
OVER = frozenset({"ENDED", "CANCELLED", "FAILED", "REJECTED"})


def broken(world: World, vcpus: Mapping[str, int]) -> list[str]:
    """A sentence for each promise that is broken; `vcpus` of each `SITE/HOST`."""
    return [
        *_mixed(world),
        *_against_decision(world),
        *_overbooked(world, vcpus),
        *_twice(world),
    ]


def _mixed(world: World) -> list[str]:
    """Never confirmed at one site and given back at another."""
    states: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for part in world.parts:
        states[part.tx][part.site] = part.state
    return [
        f"{tx} is mixed: {sites}"
        for tx, sites in states.items()
        if BEGAN & set(sites.values()) and NEVER_BEGAN & set(sites.values())
    ]


def _against_decision(world: World) -> list[str]:
    """A part begins by a COMMIT alone, and one that was decided for is not given back."""
    found = []
    for part in world.parts:
        decision = world.decisions.get(part.tx)
        if part.state in BEGAN and decision != "COMMIT":
            found.append(f"{part.tx} is {part.state} at {part.site} and decided {decision}")
        if part.state in NEVER_BEGAN and decision == "COMMIT":
            found.append(f"{part.tx} is {part.state} at {part.site} after COMMIT")
    return found


def _overbooked(world: World, vcpus: Mapping[str, int]) -> list[str]:
    """By what is on record, and by what runs: every guest here has one vCPU."""
    taken: defaultdict[str, int] = defaultdict(int)
    for part in world.parts:
        if part.state in COUNTED:
            for host, number in part.vcpus.items():
                taken[host] += number
    found = [
        f"{host} has promised {taken[host]} vCPUs of {most}"
        for host, most in vcpus.items()
        if taken[host] > most
    ]
    return found + [
        f"{host} runs {len(guests)} guests on {vcpus[host]} vCPUs"
        for host, guests in world.guests.items()
        if len(guests) > vcpus[host]
    ]


def _twice(world: World) -> list[str]:
    """One host a guest, one part a VXLAN id of its site."""
    where: defaultdict[str, list[str]] = defaultdict(list)
    for host, guests in world.guests.items():
        for uid in guests:
            where[uid].append(host)
    found = [f"guest {uid} runs on {hosts}" for uid, hosts in where.items() if len(hosts) > 1]
    ids: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for part in world.parts:
        if part.state in COUNTED:
            for vni in part.vnis:
                ids[part.site, vni].append(part.tx)
    return found + [f"VXLAN id {vni} is of {txs}" for vni, txs in ids.items() if len(txs) > 1]


def unsettled(world: World) -> list[str]:
    """A sentence for each thing that is still under way, or that nobody minds."""
    found = [f"{tx} is on record as not settled" for tx in world.participants]
    found += [
        f"cluster {name} is {state}"
        for name, state in world.clusters.items()
        if state in PENDING or (name in world.ending and state not in OVER)
    ]
    sites: defaultdict[str, set[str]] = defaultdict(set)
    live: set[tuple[str, str]] = set()
    for part in world.parts:
        sites[part.tx].add(part.site)
        if part.state in ("HELD", "PREPARED"):
            found.append(f"{part.tx} is {part.state} at {part.site}")
        if part.state != "CONFIRMED":
            continue
        if part.ending:
            found.append(f"{part.tx} has not ended at {part.site}")
            continue
        for host in part.vcpus:
            live.add((host, part.uid))
            if (host, part.uid) not in world.told:
                found.append(f"{host} was not told of {part.tx}")
    found += [
        f"{part.tx} is {part.state} at {part.site} and not known at all of {set(part.participants)}"
        for part in world.parts
        if part.state in BEGAN and sites[part.tx] != part.participants
    ]
    found += [f"{host} is told of {uid}, which is over" for host, uid in world.told.keys() - live]
    found += [f"{host} speaks of {uid}, which is over" for host, uid in world.seen.keys() - live]
    return found + _guests_amiss(world)


def _guests_amiss(world: World) -> list[str]:
    """The guests that are to be on each host, and no others, as the site knows them."""
    found = []
    wanted: defaultdict[str, set[str]] = defaultdict(set)
    for (host, uid), told in world.told.items():
        if told.gone:
            continue
        wanted[host] |= told.workspaces
        seen = world.seen.get((host, uid))
        if seen is None or seen.generation != told.generation or seen.running != told.workspaces:
            found.append(f"{host} is told {told} and says {seen}")
    for host, guests in world.guests.items():
        found += [f"guest {uid} is not on {host}" for uid in wanted[host] - guests.keys()]
        found += [f"guest {uid} is left on {host}" for uid in guests.keys() - wanted[host]]
    return found


def lost(before: World, after: World, kept: frozenset[str]) -> list[str]:
    """Guests of `kept`, by uid, that are not the same processes on the same hosts."""
    return [
        f"guest {uid} on {host}: was {guest}, is {after.guests[host].get(uid)}"
        for host, guests in before.guests.items()
        for uid, guest in guests.items()
        if uid in kept and after.guests[host].get(uid) != guest
    ]
