"""What must hold of workspaces that their owners switch: what was asked for is done once, and no
guest is begun anew that nobody has asked for. From records as plain JSON, and from what hosts did.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tests.sim.counting import window_of

if TYPE_CHECKING:
    from tests.sim.record import Record, Told

Say = Callable[[Any, str], None]
ANEW = frozenset({"START", "REBOOT"})
IS_TO_BE = {
    "ON": frozenset({"RUNNING"}),
    "OFF": frozenset({"OFF", "POWERED_OFF", ""}),
    "PAUSED": frozenset({"PAUSED"}),
    "SAVED": frozenset({"OFF", ""}),
}
DONE_S = 18.0
"""In which a host has come to what it was told, once nothing fails any more."""


class Switches:
    def __init__(self, say: Say) -> None:
        self._say = say
        self.at: dict[tuple[str, str], float] = {}
        """When a part was last switched, by site and name."""
        self._boots: dict[tuple[str, str], int] = {}
        """How often a workspace was asked to start anew, by cluster's id and label."""
        self.boots: dict[tuple[str, str], int] = {}
        """Likewise, by part's name and label; also of one that it has no more."""
        self._asked: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        """Requests to start anew, by cluster's id and label; without one, of all."""

    def part(self, written: Any, before: Any, after: Any, answers: list[str]) -> None:
        """`answers`: what the requests that are answered at this revision were answered with."""
        had, has = (_by_label(each) for each in (before, after))
        cluster = after["spec"]["cluster"].rpartition("/")[2]
        changed = {label for label in had.keys() | has.keys() if had.get(label) != has.get(label)}
        there = {f"{each['group']}-{each['index']}" for each in after["spec"]["workspaces"]}
        if not changed & there:
            return
        asked = sum(each in (after["name"], _own_cluster(after)) for each in answers)
        if not asked:
            self._say(written, f"{after['name']} was switched, and nobody has asked for it")
        for label in changed & there:
            boots = has.get(label, _AS_BEGUN)["boots"]
            more = boots - had.get(label, _AS_BEGUN)["boots"]
            if not 0 <= more <= asked:
                self._say(written, f"{label} of {after['name']} starts anew {more} times at once")
            self.boots[after["name"], label] = max(boots, self.boots.get((after["name"], label), 0))
            self._boots[cluster, label] = max(self._boots.get((cluster, label), 0), boots)
        self.at[written.store, after["name"]] = written.at

    def told(self, told: Told) -> None:
        asked = json.loads(told.asked)
        if asked["action"] in ANEW:
            for label in asked["workspaces"] or [""]:
                self._asked[told.cluster][label].add(told.request_id)

    def counted(self) -> Iterator[str]:
        """When all has been told: no request counts twice."""
        for (cluster, label), boots in self._boots.items():
            asked = self._asked[cluster]
            most = len(asked[label] | asked[""])
            if boots > most:
                yield f"{cluster} {label} starts anew {boots} times, and was asked to {most} times"

    def done(self, record: Record, site: str, part: Any, uids: dict[str, str]) -> Iterator[str]:
        """In the end each guest is as it was asked to be. `uids`: of workspaces, by label."""
        start, end = window_of(part)
        since = max(self.at.get((site, part["name"]), 0.0), start, record.busy_until)
        now = record.ended_at
        if record.profile.offset_s > 2 or now < since + DONE_S or now > end - 2:
            return
        if part["state"] != "CONFIRMED" or part["end_requested_time"] or not part["generation"]:
            return
        switched = _by_label(part)
        for placed in part["placed"]:
            label = placed["workspace"]
            back_at = record.began.get(f"agent-{site}-{placed['host']}")
            if back_at is None or now < back_at + DONE_S:
                continue  # a host that was lost may come back when nothing fails any more
            power = switched.get(label, _AS_BEGUN)["power"]
            domain = f"it-{uids.get(label, '')}"
            state = record.states.get(f"{site}/{placed['host']}", {}).get(domain, "")
            if state not in IS_TO_BE[power]:
                what = f"{label} of {part['name']}"
                yield f"{site}: {what} is to be {power}, and is {state or 'away'}"


def starts(record: Record, boots: dict[str, int]) -> Iterator[str]:
    """No guest is started more often than it was asked to, and once. `boots`: by domain."""
    begun: Counter[tuple[str, str, str]] = Counter()
    for each in record.guests:
        key = each.site, each.host, each.domain
        if each.what in ("gone", "power"):
            begun.pop(key, None)
        if each.what == "start":
            begun[key] += 1
            if begun[key] > 1 + boots.get(each.domain, 0):
                yield (
                    f"{each.at:.3f} {each.site}/{each.host}: {each.domain} was started "
                    f"{begun[key]} times, and asked to {boots.get(each.domain, 0)} times"
                )


_AS_BEGUN = {"power": "ON", "boots": 0}


def _by_label(part: Any) -> dict[str, Any]:
    return dict(part["switched"])


def _own_cluster(part: Any) -> str:
    cluster: str = part["spec"]["cluster"]
    return cluster
