"""What must hold of leases that run when there is room, or are done by a deadline: that are put
aside for others, and have more workspaces at times and fewer. From records as plain JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from intertie.api.nodeagent.v1 import records_pb2
from tests.sim.counting import seconds, span, taken_at, takes_of, window_of

Say = Callable[[Any, str], None]
HAS_MEMORY = frozenset({4, 5})
"""RUNNING and PAUSED, of intertie.cluster.v1.Workspace.State."""
TICK_S = 1.1
"""As near as a moment is told: ends are at whole seconds, at times."""
GIVEN_UP_S = 5.0
"""For so long it counts, at least, what one is left without."""


class Waiting:
    """Of all parts of such leases and their clusters, at one site each or over all."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._told: dict[tuple[str, str, str], records_pb2.SeenPart] = {}
        """What each host said last, by site and part's uid."""
        self._uids: dict[str, str] = {}
        self._resized: dict[str, Any] = {}
        """Parts as they were, by name, that have other workspaces by the revision at hand."""

    def wanted(self, wanted: records_pb2.WantedPart) -> None:
        self._uids[wanted.part] = wanted.part_uid

    def seen(self, site: str, host: str, value: bytes) -> None:
        """By its own clock: a write that it has given up may come to etcd after a newer one."""
        report = records_pb2.SeenPart.FromString(value)
        known = self._told.setdefault((site, host, report.part_uid), report)
        if report.report_time.ToNanoseconds() >= known.report_time.ToNanoseconds():
            # A host that is held has obeyed nothing any more, and begins nothing either.
            report.obeyed_generation = max(report.obeyed_generation, known.obeyed_generation)
            self._told[site, host, report.part_uid] = report

    def part(self, written: Any, before: Any, after: Any) -> None:
        """Only its window changes, or how many workspaces it has; to go on, all its memory is
        there, and nothing of it runs."""
        keeping, name = after["keeping"], after["name"]
        if keeping is None:
            return
        had, has = before["spec"], after["spec"]
        if _but_when(had) != _but_when(has):
            self._resized[name] = before
        another = had["window"] != has["window"]
        later = window_of(after)[0] > window_of(before)[0]
        if another and not later and after["recalled_end"] != before["recalled_end"]:
            self._recalled(written, before, after)
        elif another and after["terms"] != before["terms"] + 1:
            self._say(written, f"{name} has another window under the same number")
        goes_on = later and before["keeping"]["until"]
        if not goes_on or seconds(before["keeping"]["until"]) < window_of(after)[0]:
            return
        for host in sorted({each["host"] for each in after["placed"]}):
            report = self._told.get((written.store, host, self._uids.get(name, "")))
            if (
                report is None
                or report.obeyed_generation < before["generation"]
                or any(each.state in HAS_MEMORY for each in report.workspaces)
            ):
                self._say(written, f"{name} goes on before {host} has saved it")

    def _recalled(self, written: Any, before: Any, after: Any) -> None:
        """By its site, or its coordinator has agreed on that."""
        name, may = after["name"], after["spec"]["recallable"]
        (had, was), (start, end) = window_of(before), window_of(after)
        if start != had or end > was:
            self._say(written, f"{name} is recalled from {had} to {was} to {start} to {end}")
        if may["deadline"] is not None and may["promised"] is None:
            self._say(written, f"{name} is put aside, and is promised nothing")

    def over_sites(
        self, written: Any, before: Any, after: Any, part_at: Callable[[str, str], Any]
    ) -> None:
        """`before` may be None; `part_at` has the part of a site by its name, or None."""
        if (waits := after["waits"]) is None:
            return
        name, lease, ran = after["name"], after["spec"]["lease"], span(waits["ran"])
        if before is not None and before["waits"] and ran < span(before["waits"]["ran"]):
            self._say(written, f"{name} has run for {ran} s, and for longer before")
        lasts = span(lease["duration"])
        if after["state"] == "ENDED" and ran < lasts - TICK_S:
            self._say(written, f"{name} is done, and has run for {ran} of {lasts} s")
        if lease["deadline"] is None or after["end_requested_time"]:
            return
        if after["state"] not in ("SCHEDULED", "ACTIVE", "SUSPENDED"):
            return
        for problem in _in_time_over_sites(after, lasts - ran, waits["aside"]):
            self._say(written, f"{name} {problem}")
        if not waits["aside"]:
            return
        for site, part_name in after["parts"].items():
            part = part_at(site, part_name)
            if part is None or part["state"] != "CONFIRMED" or part["end_requested_time"]:
                continue
            if part["keeping"]["promised"] != after["plan"]["promised"]:
                self._say(written, f"{name} is put aside, and {site} does not promise what it is")

    def cluster(self, written: Any, before: Any, after: Any, part: Any) -> None:
        """`before` may be None; `part` as it is at this revision, or None."""
        if (waits := after["waits"]) is None:
            return
        name, lease = after["name"], after["spec"]["lease"]
        ran = span(waits["ran"])
        if before is not None and waits["resized"] != before["waits"]["resized"]:
            self._sized(written, before, after, part)
        if before is not None and ran < span(before["waits"]["ran"]):
            self._say(written, f"{name} has run for {ran} s, and for longer before")
        lasts = span(lease["duration"])
        if after["state"] == "ENDED" and ran < lasts - TICK_S and not after["failure"]:
            self._say(written, f"{name} is done, and has run for {ran} of {lasts} s")
        if lease["deadline"] is None or part is None or part["state"] != "CONFIRMED":
            return
        if after["end_requested_time"] or part["end_requested_time"] or part["keeping"] is None:
            return
        if after["state"] in ("SCHEDULED", "ACTIVE", "SUSPENDED"):
            for problem in _in_time(after, part, lasts - ran):
                self._say(written, f"{name} {problem}")

    def revision(self, written: Any) -> None:
        """All of it was gone through."""
        for name in self._resized:
            self._say(written, f"{name} has other terms, and only its window may change")
        self._resized.clear()

    def _sized(self, written: Any, before: Any, after: Any, part: Any) -> None:
        """It has as many as it wants at least, and not more than it wants at most: who stays is as
        it was and where it was, and who goes is counted for as long as hosts may need."""
        name, had = after["name"], self._resized.pop(part["name"], None)
        if had is None or before["state"] not in ("SCHEDULED", "ACTIVE"):
            self._say(written, f"{name} is said to have other workspaces, and is {after['state']}")
            return
        if after["spec"]["lease"]["kind"] != "BEST_EFFORT":
            self._say(written, f"{name} has other workspaces, and is no lease that may")
        if had["spec"]["window"] != part["spec"]["window"]:
            self._say(written, f"{name} has other workspaces and another window")
        for each in after["spec"]["groups"]:
            there = {
                of["index"] for of in part["spec"]["workspaces"] if of["group"] == each["name"]
            }
            least, most = each["min_count"] or each["count"], each["max_count"] or each["count"]
            if there != set(range(len(there))) or not least <= len(there) <= most:
                self._say(written, f"{name} has {sorted(there)} of {least} to {most}")
        was, now = _each_of(had), _each_of(part)
        for label in was.keys() & now.keys():
            if was[label] != now[label]:
                self._say(written, f"{name}: {label} stays, and is another")
        counted = taken_at(part, seconds(after["waits"]["resized"]) + GIVEN_UP_S - TICK_S)
        short = [key for key, amount in takes_of(had).items() if amount > counted.get(key, 0)]
        if short:
            said = " ".join(sorted(short)[0])
            self._say(written, f"{name}: what it is left without is free at once: {said}")


def _each_of(part: Any) -> dict[str, Any]:
    where = {each["workspace"]: each["host"] for each in part["placed"]}
    labels = {f"{each['group']}-{each['index']}": each for each in part["spec"]["workspaces"]}
    return {label: (each, where[label]) for label, each in labels.items()}


def begins_late(cluster: Any) -> str:
    """Of one that a meta-scheduler has just planned: it begins later than its owner allows, and
    not, as he is told, because others give way."""
    lease, plan = cluster["spec"]["lease"], cluster["plan"]
    if lease["kind"] is not None or cluster["state"] != "PLANNED":
        return ""
    at, asked = seconds(plan["window"]["start"]), lease["start_time"]
    latest = seconds(asked or cluster["create_time"]) + span(lease["max_delay"])
    told = any("give way" in each for each in plan["reasons"])
    if at <= latest + TICK_S or (told and not asked):
        return ""
    return f"{cluster['name']} is to begin at {at}, later than {latest}"


def _in_time(cluster: Any, part: Any, left: float) -> Iterator[str]:
    """There is room on record for all the rest of it, and in time."""
    keeping, (start, end) = part["keeping"], window_of(part)
    deadline = seconds(cluster["spec"]["lease"]["deadline"])
    if cluster["state"] != "SUSPENDED":
        left -= max(end - start - span(keeping["restore"]), 0.0)
    if left <= TICK_S:
        if end > deadline + TICK_S and cluster["state"] != "SUSPENDED":
            yield f"is done at {end}, later than {deadline}"
        return
    promised = keeping["promised"]
    if promised is None:
        if end < deadline - TICK_S:  # else its last stretch began too late: a host was silent
            yield f"has {left} s to run, and is promised nothing"
        return
    begin, last = seconds(promised["start"]), seconds(promised["end"])
    if last > deadline + TICK_S or last - begin < left - TICK_S:
        yield f"has {left} s to run by {deadline}, and is promised {begin} to {last}"


def _in_time_over_sites(cluster: Any, left: float, aside: bool) -> Iterator[str]:
    """Likewise of one over several sites: room by its coordinator's record."""
    plan, waits = cluster["plan"], cluster["waits"]
    start, end = (seconds(plan["window"][each]) for each in ("start", "end"))
    deadline = seconds(cluster["spec"]["lease"]["deadline"])
    promised = plan["promised"]
    if cluster["state"] != "SUSPENDED":
        left -= max(end - start - span(waits["restore"]), 0.0)
        if end > deadline + TICK_S:
            yield f"runs until {end}, later than {deadline}"
    if left <= TICK_S or (not aside and end >= deadline - TICK_S):
        return  # else its last window began too late
    if promised is None:
        if aside:
            yield f"is put aside with {left} s to run, and is promised nothing"
        return
    begin, last = seconds(promised["start"]), seconds(promised["end"])
    if last > deadline + TICK_S or last - begin < left - TICK_S:
        yield f"has {left} s to run by {deadline}, and is promised {begin} to {last}"


def _but_when(spec: Any) -> Any:
    """Of a part: what of its terms stays. What its site may do with it is its coordinator's."""
    return {**spec, "window": "", "recallable": ""}


def overdue(cluster: Any, until: float, grace_s: float) -> bool:
    """It waits for longer than it may."""
    waits = cluster["waits"]
    if waits is None or cluster["state"] not in ("QUEUED", "SUSPENDED"):
        return False
    longest = span(cluster["spec"]["lease"]["max_wait"])
    return bool(longest) and until > seconds(waits["since"]) + longest + grace_s
