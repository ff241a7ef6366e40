"""What parts take, moment by moment, from their records as plain JSON: counted by other code than
the ledger's.

Of each workspace counts the largest of the terms in force, of those that are held for it, and of
those that its hosts have not given up yet.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any

from tests.sim.services import CAPACITY, LINK_MBIT_S
from tests.sim.virtual_loop import EPOCH

COUNTED = frozenset({"HELD", "PREPARED", "CONFIRMED"})
Takes = dict[tuple[str, str], int]
"""By workspace, empty for what is no workspace's own, and by resource."""

_SPAN = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?")


@lru_cache(maxsize=1 << 14)
def read(value: bytes) -> Any:
    return json.loads(value)


@lru_cache(maxsize=1 << 14)
def seconds(moment: str) -> float:
    """Of true time, since the run began."""
    return (datetime.fromisoformat(moment) - EPOCH).total_seconds()


@lru_cache(maxsize=1 << 12)
def span(text: str) -> float:
    """Seconds of a duration."""
    found = _SPAN.fullmatch(text)
    assert found is not None, text
    days, hours, minutes, rest = (float(each or 0) for each in found.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + rest


def window_of(part: Any) -> tuple[float, float]:
    window = part["spec"]["window"]
    return seconds(window["start"]), seconds(window["end"])


def takes_of(terms: Any) -> Takes:
    """Of terms that are placed, whether in force or not. One who has not asked before computes."""
    known = _TAKEN.get(id(terms))
    if known is None or known[0] is not terms:
        known = _TAKEN[id(terms)] = (terms, dict(_takes(terms)))
    return known[1]


_TAKEN: dict[int, tuple[Any, Takes]] = {}


def forget() -> None:
    """Another run has other records."""
    _TAKEN.clear()


def _takes(terms: Any) -> Iterator[tuple[tuple[str, str], int]]:
    use: Counter[tuple[str, str]] = Counter()
    where = {each["workspace"]: each["host"] for each in terms["placed"]}
    spec = terms["spec"]
    for each in spec["workspaces"]:
        label, has = f"{each['group']}-{each['index']}", each["allocation"]
        host = where[label]
        use[label, f"{host} vcpus"] += has["vcpus"]
        use[label, f"{host} memory_mib"] += has["memory_mib"]
        use[label, f"{host} disk_mib"] += has["disk_mib"]
        use[label, f"{host} iops"] += has["disk"]["cap_iops"]
        use[label, f"{host} throughput_mib_s"] += has["disk"]["cap_mib_s"]
        use[label, f"{host} uplink_mbit_s"] += has["nic"]["guarantee_mbit_s"] * len(each["nics"])
        for network in spec["networks"]:
            for pair in network["pairs"]:
                ends = {pair["a"], pair["b"]}
                if label in ends and len({where.get(end) for end in ends}) > 1:
                    use[label, f"{host} uplink_mbit_s"] += pair["bandwidth"]["guarantee_mbit_s"]
    for link in spec["links"]:
        use["", "link egress"] += link["egress_mbit_s"]
        use["", "link ingress"] += link["ingress_mbit_s"]
        use["", f"{terms['gateway']} uplink_mbit_s"] += link["egress_mbit_s"]
    yield from use.items()


def largest(all_of: Iterable[Takes]) -> Takes:
    most: Takes = {}
    for takes in all_of:
        for key, amount in takes.items():
            most[key] = max(most.get(key, 0), amount)
    return most


def taken_at(part: Any, moment: float, given_up_late: Iterable[Any] = ()) -> Takes:
    """All that the part takes at a moment. `given_up_late`: terms that were in force before and
    that hosts may still have, whatever the part's own record says of them."""
    if part["keeping"] is not None:
        takes = dict(largest(_of_stretch(*each, moment) for each in _stretches(part)))
        for key, amount in _given_up(part, moment).items():
            takes[key] = takes.get(key, 0) + amount
        return takes
    terms = [part, *part["shed"], *given_up_late]
    if part["amend"] is not None:
        terms.append(part["amend"])
    begin = window_of(part)[0]
    return largest(takes_of(each) for each in terms if begin <= moment < window_of(each)[1])


def _given_up(part: Any, moment: float) -> Takes:
    """What hosts may still have of one that may be put aside, and was left with fewer workspaces:
    beyond what is in force, until the moment by which it is said to be gone."""
    has, beyond = _whole(part, part["keeping"]), Takes()
    for each in part["shed"]:
        if window_of(part)[0] <= moment < _gone_by(each):
            for key, amount in _whole(each, part["keeping"]).items():
                beyond[key] = max(beyond.get(key, 0), amount - has.get(key, 0))
    return beyond


def _gone_by(shed: Any) -> float:
    return seconds(shed["until"]) if shed["until"] else window_of(shed)[1]


def _stretches(part: Any) -> Iterator[tuple[Any, Any]]:
    """What is in force of one that may be put aside, and the window that is held for it."""
    yield part, part["keeping"]
    amend = part["amend"]
    if amend is not None and amend["keeping"] is not None:
        yield amend, amend["keeping"]


def _of_stretch(part: Any, keeping: Any, moment: float) -> Takes:
    """Of one that may be put aside: with the disk and the throughput for its memory until that is
    saved, then its disks and memory alone, and all of it again over what it is promised."""
    start, end = window_of(part)
    until, promised = keeping["until"], keeping["promised"]
    whole = _whole(part, keeping)
    if until is None and promised is None:
        return whole if start <= moment < end else {}
    if promised is not None and seconds(promised["start"]) <= moment < seconds(promised["end"]):
        return whole
    last = seconds(promised["end"] if promised is not None else until)
    if not start <= moment < last:
        return {}
    saved = span(keeping["save"]) if until is not None else 0.0
    if moment < end + saved - 1e-6:  # of a sum of two that are not whole
        return whole
    return {key: amount for key, amount in whole.items() if key[1].endswith(" disk_mib")}


def _whole(terms: Any, keeping: Any) -> Takes:
    if keeping["save"] != "P0D" and span(keeping["save"]):
        return _roomy(terms, keeping["mib_s"])
    return takes_of(terms)


def _roomy(part: Any, mib_s: int) -> Takes:
    takes = dict(takes_of(part))
    where = {each["workspace"]: each["host"] for each in part["placed"]}
    for each in part["spec"]["workspaces"]:
        label, has = f"{each['group']}-{each['index']}", each["allocation"]
        takes[label, f"{where[label]} disk_mib"] += has["memory_mib"]
        through = label, f"{where[label]} throughput_mib_s"
        takes[through] = max(takes.get(through, 0), mib_s)
    return takes


def begins(part: Any) -> tuple[float, ...]:
    """The moments at which it takes more than just before."""
    if part["keeping"] is None:
        return (window_of(part)[0],)
    return tuple(
        at
        for terms, keeping in _stretches(part)
        for promised in (keeping["promised"],)
        for at in (window_of(terms)[0], *((seconds(promised["start"]),) if promised else ()))
    )


def ends(part: Any) -> float:
    if part["keeping"] is not None:
        stretches = (_last_of(*each) for each in _stretches(part))
        return max((*stretches, *map(_gone_by, part["shed"])))
    terms = [part, *part["shed"]]
    if part["amend"] is not None:
        terms.append(part["amend"])
    return max(window_of(each)[1] for each in terms)


def _last_of(terms: Any, keeping: Any) -> float:
    if keeping["promised"] is not None:
        return seconds(keeping["promised"]["end"])
    return window_of(terms)[1] if keeping["until"] is None else seconds(keeping["until"])


def overfull(
    part: Any, before: Any, others: Iterable[Any], since: float, late: dict[str, list[Any]]
) -> Iterator[str]:
    """Every resource that the site has not, from a moment on at which the part takes some of it
    that it did not. `before`: the part as it was, None where it took nothing. `late`: by part's
    name, see `taken_at`."""
    until = ends(part)
    beside = [each for each in others if since < ends(each) and window_of(each)[0] < until]
    starts = {since, *(at for each in beside for at in begins(each))}
    for moment in sorted(at for at in starts if since <= at < until):
        use: Counter[str] = Counter()
        had = taken_at(before, moment) if before is not None else {}
        has = taken_at(part, moment)
        mine = {key[1] for key, amount in has.items() if amount > had.get(key, 0)}
        for each in beside:
            for (_, resource), amount in taken_at(each, moment, late.get(each["name"], ())).items():
                use[resource] += amount
        for resource, amount in use.items():
            place, _, what = resource.partition(" ")
            most = LINK_MBIT_S if place == "link" else CAPACITY.get(what, 0)
            if amount > most and resource in mine:
                yield f"{resource} is promised {amount} of {most} at {moment}"
