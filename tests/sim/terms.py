"""What must hold of leases that get other terms: new terms are there as a whole or not at all, at
all sites, and the old ones stand until then. From records as plain JSON.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

from intertie.api.nodeagent.v1 import records_pb2
from tests.sim.counting import COUNTED, seconds, span, taken_at, takes_of, window_of

Say = Callable[[Any, str], None]
AMOUNTS = ("vcpus", "memory_mib", "disk_mib")
LIVE = frozenset({"SCHEDULED", "ACTIVE"})


class Terms:
    """Of all parts and clusters. `decisions` and `txs` are the register's, as they come."""

    def __init__(self, say: Say, decisions: Mapping[str, Any], txs: Mapping[str, Any]) -> None:
        self._say = say
        self._decisions = decisions
        self._txs = txs
        self.given_up: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
        """By site and part's name: terms that were in force, and that hosts may still have."""
        self._obeyed: dict[tuple[str, str, str], int] = {}
        """By site, host and part's uid: the newest generation of which it said that it has it, or
        that nothing is left."""
        self._uids: dict[str, str] = {}
        """Of parts, by name."""
        self._fenced: dict[str, set[str]] = defaultdict(set)
        """Hosts, by site."""
        self._records: dict[str, Any] = {}
        """Of clusters over several sites, by uid."""

    # Parts

    def part(self, written: Any, before: Any, after: Any) -> None:
        steps = after["terms"] - before["terms"]
        name = after["name"]
        if steps not in (0, 1):
            self._say(written, f"{name} has terms {after['terms']} after {before['terms']}")
        if after["keeping"] is not None:
            self._of_one_that_waits(written, before, after, steps)  # see `waiting`
            return
        if before["spec"] != after["spec"] and not steps:
            self._say(written, f"{name} has other terms under the same number")
        self._of_amend(written, before, after, steps)
        late = self.given_up[written.store][name]
        if steps and before["state"] in COUNTED:
            late.append({**before, "generation": before["generation"] + 1})
        self._still_counted(written, after)

    def _of_one_that_waits(self, written: Any, before: Any, after: Any, steps: int) -> None:
        """What it is left without counts until its hosts have ended it, or have had the time to."""
        late, generation = self.given_up[written.store][after["name"]], before["generation"] + 1
        shed = [each for each in after["shed"] if each["until"]]
        # By the time that was given for this. What is in no piece of its own counts for longest.
        own = [each for each in shed if each["generation"] == generation]
        until = [each["until"] for each in own or shed]
        if steps and until and len(after["placed"]) < len(before["placed"]):
            late.append({**before, "generation": generation, "until": seconds(max(until))})
        self._still_counted(written, after)

    def _of_amend(self, written: Any, before: Any, after: Any, steps: int) -> None:
        had, has, name = before["amend"], after["amend"], after["name"]
        if has is not None and has["replaces"] != after["terms"]:
            self._say(written, f"{name}: {has['tx']} is not for terms {after['terms']}")
        if had is not None and has is not None:
            same = {**had, "state": "", "expire_time": ""} == {
                **has,
                "state": "",
                "expire_time": "",
            }
            if not same or (had["state"], has["state"]) == ("PREPARED", "HELD"):
                self._say(written, f"{name}: {had['tx']} was {had['state']}, and is {has}")
        if had is not None and has is None:
            outcome = self._outcome(had["tx"])
            if steps and after["tx"] == had["tx"]:
                if had["state"] != "PREPARED" or outcome != "COMMIT":
                    self._say(
                        written,
                        f"{name}: {had['tx']} is in force: it was {had['state']}, and is {outcome}",
                    )
                if after["spec"] != had["spec"] or after["placed"] != had["placed"]:
                    self._say(written, f"{name} has other terms than were agreed in {had['tx']}")
            elif had["state"] == "PREPARED" and outcome != "ABORT":
                self._say(written, f"{name}: {had['tx']} let go alone: it is {outcome}")
        elif steps and after["tx"]:
            self._unasked(written, before, after)

    def _unasked(self, written: Any, before: Any, after: Any) -> None:
        """For which no site was asked: then it takes more of nothing."""
        name, tx = after["name"], after["tx"]
        if self._outcome(tx) != "COMMIT":
            self._say(written, f"{name}: {tx} is in force, and is {self._outcome(tx)}")
        had, has = takes_of(before), takes_of(after)
        more = sorted(" ".join(key) for key, amount in has.items() if amount > had.get(key, 0))
        if more or window_of(after)[1] > window_of(before)[1]:
            self._say(written, f"{name} got more by {tx}, and was not asked: {more}")

    def _still_counted(self, written: Any, part: Any) -> None:
        """What a host may still have of earlier terms is counted by the part's own record."""
        late = self.given_up[written.store][part["name"]]
        if part["state"] not in COUNTED:
            late.clear()
        fenced = self._fenced[written.store]
        left = [_without(each, fenced) for each in late]
        late[:] = [each for each in left if not self._is_given_up(written.store, part, each)]
        for each in late:
            begin, end = window_of(each)
            end = min(each.get("until", end), window_of(part)[1])
            moment = (max(begin, written.at) + end) / 2
            if moment >= end:
                continue
            counted = taken_at(part, moment)
            short = [key for key, amount in takes_of(each).items() if amount > counted.get(key, 0)]
            if short:
                self._say(
                    written,
                    f"{part['name']}: terms before {part['terms']} are given up before its hosts "
                    f"have obeyed: {' '.join(sorted(short)[0])}",
                )

    def _is_given_up(self, site: str, part: Any, terms: Any) -> bool:
        uid = self._uids.get(part["name"], "")
        hosts = {each["host"] for each in terms["placed"]}
        if terms["gateway"]:
            hosts.add(terms["gateway"])
        if not part["generation"]:
            return True
        return all(
            self._obeyed.get((site, host, uid), -1) >= terms["generation"]
            or host in self._fenced[site]
            for host in hosts
        )

    def _outcome(self, tx: str) -> str:
        outcome: str = self._decisions.get(tx, {}).get("outcome", "undecided")
        return outcome

    # Hosts

    def host(self, site: str, name: str, state: str) -> None:
        if state == "FENCED":
            self._fenced[site].add(name)
        elif state == "UP":
            self._fenced[site].discard(name)

    def wanted(self, wanted: records_pb2.WantedPart) -> None:
        self._uids[wanted.part] = wanted.part_uid

    def seen(self, site: str, host: str, value: bytes) -> None:
        report = records_pb2.SeenPart.FromString(value)
        key = site, host, report.part_uid
        newest = report.generation if report.gone else report.obeyed_generation
        self._obeyed[key] = max(self._obeyed.get(key, -1), newest)

    # Clusters over several sites

    def revision(self, written: Any, clusters: Mapping[str, Any]) -> None:
        """`clusters`: records that are written at this revision of the register, by uid."""
        committed = {
            self._txs[tx]["cluster_uid"]: tx
            for key, _ in written.puts
            for kind, _, tx in (key.partition("/"),)
            if kind == "decision"
            and self._outcome(tx) == "COMMIT"
            and self._txs.get(tx, _CREATE)["replaces"] is not None
        }
        for uid, record in clusters.items():
            before = self._records.get(uid)
            self._records[uid] = record
            if before is not None:
                self._record(written, before, record, committed.pop(uid, ""))
        for uid, tx in committed.items():
            self._say(written, f"{tx} is committed, and {uid} has the terms that it had")

    def _record(self, written: Any, before: Any, after: Any, tx: str) -> None:
        name, steps = after["name"], after["terms"] - before["terms"]
        if steps != bool(tx):
            self._say(written, f"{name} has terms {after['terms']} after {before['terms']} by {tx}")
        said = [(each["spec"], each["plan"]["window"], each["parts"]) for each in (before, after)]
        if said[0] != said[1] and not steps and before["state"] in LIVE:
            self._say(written, f"{name} has other terms, and nothing is decided")
        if tx and self._txs[tx]["replaces"] != before["terms"]:
            self._say(written, f"{name}: {tx} was drawn up on other terms than {before['terms']}")
        if tx and (after["end_requested_time"] or after["state"] not in LIVE):
            self._say(written, f"{name}: {tx} is committed after its end was asked for")

    def settled(self, parts: Mapping[tuple[str, str], Any]) -> Iterator[str]:
        """In the end, when all sites have heard of all that was decided: of a cluster that goes on
        each part has what its record says. `parts`: by site and name."""
        for record in self._records.values():
            if record["state"] not in LIVE or record["end_requested_time"]:
                continue
            known = {
                site: parts[site, name]
                for site, name in record["parts"].items()
                if (site, name) in parts
            }
            if any(
                each["end_requested_time"] or each["state"] == "ENDED" for each in known.values()
            ):
                continue
            for site in sorted(record["parts"]):
                part = known.get(site)
                if part is None or part["state"] != "CONFIRMED":
                    yield f"{record['name']} goes on, and its part at {site} does not"
                elif part["terms"] != record["terms"] or part["amend"] is not None:
                    yield (
                        f"{record['name']} has terms {record['terms']}, and its part at {site} "
                        f"{part['terms']}, with {part['amend']}"
                    )
            if record["parts"].keys() == known.keys():
                yield from differing(record, record["plan"]["window"], list(known.values()))


_CREATE = {"replaces": None}


def _without(terms: Any, fenced: Set[str]) -> Any:
    """What hosts that were fenced had is gone, also once they are back: pairs with what was there,
    too."""
    placed = [each for each in terms["placed"] if each["host"] not in fenced]
    if len(placed) == len(terms["placed"]):
        return terms
    there, spec = {each["workspace"] for each in placed}, terms["spec"]
    workspaces = [
        each for each in spec["workspaces"] if f"{each['group']}-{each['index']}" in there
    ]
    networks = [
        {**each, "pairs": [pair for pair in each["pairs"] if {pair["a"], pair["b"]} <= there]}
        for each in spec["networks"]
    ]
    spec = {**spec, "workspaces": workspaces, "networks": networks}
    return {**terms, "placed": placed, "spec": spec}


def differing(record: Any, window: Any, parts: list[Any]) -> Iterator[str]:
    """What of the cluster's terms its parts have not, or otherwise."""
    name, there = record["name"], [each for part in parts for each in part["spec"]["workspaces"]]
    for part in parts:
        if part["spec"]["window"] != window:
            yield f"{name} is from {window}, and its part {part['spec']['window']}"
    for group in record["spec"]["groups"]:
        mine = [each for each in there if each["group"] == group["name"]]
        fewest, most = group["min_count"] or group["count"], group["max_count"] or group["count"]
        if not fewest <= len(mine) <= most or len({each["index"] for each in mine}) < len(mine):
            yield f"{name} has {len(mine)} of {group['name']}, of {fewest} to {most}"
        for each in mine:
            for what in AMOUNTS:
                if each["allocation"][what] != group["allocation"][what]:
                    yield f"{name}: {group['name']}-{each['index']} has other {what}"


def has_terms(record: Any, asked: Any) -> bool:
    """`asked`: as `wishes.terms_of` says it."""
    spec = record["spec"]
    groups = [
        [each["name"], each["count"], *(each["allocation"][what] for what in AMOUNTS)]
        for each in spec["groups"]
    ]
    lasts = spec["lease"]["duration"]
    return (
        "duration" not in asked or (lasts is not None and span(lasts) == asked["duration"])
    ) and ("groups" not in asked or groups == asked["groups"])
