"""The invariants of a run, checked from its history by code that it shares with nothing it checks.

Records are read as plain JSON, revision by revision, in the order in which they were written
anywhere: what is true at one moment is judged at that moment.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from intertie.api.nodeagent.v1 import records_pb2
from tests.integration import ledger_history
from tests.integration.ledger_history import takes
from tests.sim.services import CAPACITY, LINK_MBIT_S, SITES
from tests.sim.virtual_loop import EPOCH

if TYPE_CHECKING:
    from tests.sim.record import Record, Told

COUNTED = frozenset({"HELD", "PREPARED", "CONFIRMED"})
NEVER_BEGAN = frozenset({"EXPIRED", "RELEASED"})
BEGAN = frozenset({"CONFIRMED", "ENDED"})
OVER = NEVER_BEGAN | {"ENDED"}
EDGES = ledger_history.EDGES | {("", "PREPARED")}
CLUSTER_OVER = frozenset({"ENDED", "REJECTED", "CANCELLED", "FAILED"})
LEADERS_OWN = (
    "ledger/",
    "parts/",
    "clusters/",
    "requests/",
    "forwards/",
    "wanted/",
    "hosts/",
    "vni/",
    "txs/",
    "settled/",
    "tombs/",
    "archive/",
)
KEPT_S = 24 * 3600.0
CLOCKS_S = 600.0
"""Two clocks of one site may differ by as much."""
GRACE_S = 40.0
"""After which all that should have come to an end has, once nothing fails any more."""


def seconds(moment: str) -> float:
    """Of true time, since the run began."""
    return (datetime.fromisoformat(moment) - EPOCH).total_seconds()


@lru_cache(maxsize=1 << 14)
def read(value: bytes) -> Any:
    return json.loads(value)


def broken(record: Record) -> tuple[list[str], list[str]]:
    """What is wrong with a run; nothing, one hopes. And what is known to happen, and noted: see
    `_own_name`."""
    _TAKEN.clear()  # another run of the seed has parts of the same names
    history = _History(record)
    for written in record.writes:
        history.take(written)
    history.hear()
    history.look_at_guests()
    history.wrong += [*record.fell, *undone(record)]
    return history.wrong, history.noted


@dataclass
class _Site:
    parts: dict[str, Any] = field(default_factory=dict)
    """By key, as they are now."""
    tombs: dict[str, Any] = field(default_factory=dict)
    """Parts that were put aside, by the keys that they had."""
    once: set[str] = field(default_factory=set)
    """Keys of parts that were over."""
    answers: dict[str, Any] = field(default_factory=dict)


class _History:
    def __init__(self, record: Record) -> None:
        self.record = record
        self.wrong: list[str] = []
        self.noted: list[str] = []
        self.sites = {site: _Site() for site in SITES}
        self.holders: dict[str, str] = {}
        self.decisions: dict[str, Any] = {}
        self.txs: dict[str, Any] = {}
        self.parts_of: dict[str, dict[str, str]] = defaultdict(dict)
        """State of a co-allocation's parts, by site."""
        self.clusters: dict[str, list[tuple[float, Any]]] = defaultdict(list)
        """By uid: every state that was written, and when."""
        self.gone_at: dict[str, float] = {}
        """When a cluster's record was deleted, by uid."""
        self.current: dict[tuple[str, str], str] = {}
        self.confirmed: dict[str, set[str]] = defaultdict(set)
        """Uids of the clusters of one id that something was ever confirmed for."""
        self.ended: dict[str, float] = {}
        """By workspace's uid: when its part was over in the ledger."""
        self.workspaces: dict[str, list[str]] = defaultdict(list)
        """Uids of workspaces, by part's uid."""

    def say(self, written: Any, problem: str) -> None:
        self.wrong.append(f"{written.at:.3f} {written.store}@{written.revision}: {problem}")

    # The history

    def take(self, written: Any) -> None:
        self._leads(written)
        if written.store == "meta":
            self._meta(written)
            return
        site = self.sites[written.store]
        made = answered = 0
        for key, value in written.puts:
            kind = key.partition("/")[0]
            if kind == "parts":
                made += self._part(written, site, key, read(value))
            elif kind == "forwards":
                made += 1
            elif kind == "requests":
                answered += 1
                self._request(written, site, key, read(value))
            elif kind == "clusters":
                self._cluster(written, key, read(value))
            elif kind == "wanted":
                self._wanted(value)
        if made != answered:
            self.say(written, f"{made} were made for {answered} answers to requests")
        for key in written.deleted:
            self._deleted(written, site, key)

    def _leads(self, written: Any) -> None:
        """No write of one that does not lead."""
        holder = self.holders.get(written.store, "")
        for key, value in written.puts:
            if key.startswith("election/"):
                self.holders[written.store] = written.writer
            elif self._leaders_own(key, value) and written.writer != holder:
                self.say(written, f"{key} by {written.writer}, while {holder or 'nobody'} leads")
        for key in written.deleted:
            if key.startswith("election/"):
                self.holders[written.store] = ""
            elif key.startswith(LEADERS_OWN) and written.writer != holder:
                self.say(written, f"{key} deleted by {written.writer}, {holder or 'nobody'} leads")

    @staticmethod
    def _leaders_own(key: str, value: bytes) -> bool:
        if key.startswith("decision/"):
            return bool(read(value)["outcome"] == "COMMIT")
        return key.startswith(LEADERS_OWN)

    def _meta(self, written: Any) -> None:
        for key, value in written.puts:
            kind, _, rest = key.partition("/")
            if kind == "decision":
                self._decision(written, rest, read(value))
            elif kind == "txs":
                self.txs[rest] = read(value)
            elif kind == "clusters":
                self._cluster(written, key, read(value))
        for key in written.deleted:
            kind, _, rest = key.partition("/")
            if kind == "decision":
                self.say(written, f"the decision on {rest} is gone")
            elif kind == "txs" and rest not in self.decisions:
                self.say(written, f"{rest} was forgotten before it was decided")
            elif kind == "clusters":
                self._cluster_deleted(written, key)

    def _decision(self, written: Any, tx: str, decision: Any) -> None:
        before = self.decisions.setdefault(tx, decision)
        if before is not decision:
            self.say(written, f"{tx} was {before['outcome']}, and is {decision['outcome']}")
        if decision["outcome"] != "COMMIT":
            return
        if tx not in self.txs:
            self.say(written, f"{tx} is committed, and was never begun")
        for site in self.txs.get(tx, {"parts": {}})["parts"]:
            state = self.parts_of[tx].get(site, "")
            if state not in ("PREPARED", "CONFIRMED", "ENDED"):
                self.say(written, f"{tx} is committed, and {state or 'not there'} at {site}")

    # Parts

    def _part(self, written: Any, site: _Site, key: str, part: Any) -> int:
        before = site.parts.get(key)
        was, now = before["state"] if before else "", part["state"]
        if was != now and (was, now) not in EDGES:
            self.say(written, f"{key} went from {was or 'nothing'} to {now}")
        if not was and key in site.once:
            self.say(written, f"{key} was over, and is {now} again")
        site.parts[key] = part
        if now in COUNTED and was not in COUNTED:
            self._fits(written, site, part)
            self._vnis(written, site, key, part)
        elif now == "PREPARED" and was == "HELD":
            self._vnis(written, site, key, part)
        if was != now:
            self._of_tx(written, part, was, now)
            if now == "CONFIRMED":
                spec = part["spec"]
                self.confirmed[spec["cluster"].rpartition("/")[2]].add(spec["cluster_uid"])
        if now in OVER:
            site.once.add(key)
            if was not in OVER:
                for uid in self.workspaces[part["name"]]:
                    self.ended[uid] = written.at
        return 0 if was else 1

    def _of_tx(self, written: Any, part: Any, was: str, now: str) -> None:
        tx = part.get("tx", "")
        if not tx:
            return
        states = self.parts_of[tx]
        states[written.store] = now
        outcome = self.decisions.get(tx, {}).get("outcome", "")
        if was == "PREPARED" and now == "RELEASED" and outcome != "ABORT":
            self.say(written, f"{tx} let go alone: it is {outcome or 'undecided'}")
        if now == "CONFIRMED" and outcome != "COMMIT":
            self.say(written, f"{tx} is confirmed: it is {outcome or 'undecided'}")
        if BEGAN & set(states.values()) and NEVER_BEGAN & set(states.values()):
            self.say(written, f"{tx} is mixed: {dict(states)}")

    def _fits(self, written: Any, site: _Site, part: Any) -> None:
        """Every resource at every moment of the new part's window at which one begins."""
        start, end = _window(part)
        others = [
            (*_window(each), each)
            for each in site.parts.values()
            if each["state"] in COUNTED and _window(each)[0] < end and start < _window(each)[1]
        ]
        for moment in sorted({max(begin, start) for begin, _, _ in others}):
            use: Counter[str] = Counter()
            for begin, finish, each in others:
                if begin <= moment < finish:
                    use.update(_takes(each))
            for resource, amount in use.items():
                place, _, what = resource.partition(" ")
                most = LINK_MBIT_S if place == "link" else CAPACITY.get(what, 0)
                if amount > most:
                    self.say(written, f"{resource} is promised {amount} of {most} at {moment}")

    def _vnis(self, written: Any, site: _Site, key: str, part: Any) -> None:
        mine = {each["vni"] for each in part.get("network_ids", ())}
        if not mine:
            return
        for other, each in site.parts.items():
            both = mine & {net["vni"] for net in each.get("network_ids", ())}
            if both and other != key and each["state"] not in OVER:
                self.say(written, f"VXLAN ids {sorted(both)} are of {key} and of {other}")

    def _deleted(self, written: Any, site: _Site, key: str) -> None:
        kind, _, rest = key.partition("/")
        kept = f"archive/{key}"
        if kind == "tombs":
            self._tomb_deleted(written, site, rest)
        elif kind in ("parts", "clusters") and any(
            each.startswith(kept) for each, _ in written.puts
        ):
            self._archived(written, site, key)
        elif kind == "parts":
            part = site.parts.pop(key)
            ends = max(_window(part)[1], seconds(part["end_time"]) if part["end_time"] else 0.0)
            if part["state"] not in OVER:
                self.say(written, f"{key} was forgotten while it was {part['state']}")
            elif written.at < ends + KEPT_S - CLOCKS_S:
                self.say(written, f"the tombstone {key} was dropped early")
        elif kind == "requests":
            answer = site.answers.pop(key)
            # What a meta-scheduler has refused is forgotten with its forward, so that it may be
            # asked for again.
            refused = any(each.startswith("forwards/") for each in written.deleted)
            if not refused and written.at < seconds(answer["create_time"]) + KEPT_S - CLOCKS_S:
                self.say(written, f"the answer {key} was forgotten early")
        elif kind == "clusters":
            self._cluster_deleted(written, key)

    def _archived(self, written: Any, site: _Site, key: str) -> None:
        """It is as it was, and its tombstone is written with it."""
        if not key.startswith("parts/"):
            return
        part = site.parts.pop(key)
        put = dict(written.puts)
        if read(zlib.decompress(put[f"archive/{key}"])) != part:
            self.say(written, f"{key} is another in the archive")
        if part["state"] not in OVER:
            self.say(written, f"{key} was put aside while it was {part['state']}")
        if f"tombs/{key}" not in put:
            self.say(written, f"{key} was put aside without a tombstone")
        site.tombs[key] = part

    def _tomb_deleted(self, written: Any, site: _Site, key: str) -> None:
        part = site.tombs.pop(key, None)
        if part is not None:
            ends = max(_window(part)[1], seconds(part["end_time"]))
            if written.at < ends + KEPT_S - CLOCKS_S:
                self.say(written, f"the tombstone {key} was dropped early")

    def _request(self, written: Any, site: _Site, key: str, answer: Any) -> None:
        before = site.answers.setdefault(key, answer)
        if before is not answer:
            self.say(written, f"{key} was answered twice: {before['uid']}, {answer['uid']}")

    # Clusters

    def _cluster(self, written: Any, key: str, cluster: Any) -> None:
        self.current[written.store, key] = cluster["uid"]
        self.clusters[cluster["uid"]].append((written.at, cluster))

    def _cluster_deleted(self, written: Any, key: str) -> None:
        uid = self.current.pop((written.store, key))
        self.gone_at[uid] = written.at
        state = self.clusters[uid][-1][1]["state"]
        if state not in CLUSTER_OVER and state != "PLANNED":
            self.say(written, f"{key} was forgotten while it was {state}")

    # Hosts

    def _wanted(self, value: bytes) -> None:
        wanted = records_pb2.WantedPart.FromString(value)
        self.workspaces[wanted.part] = sorted(
            {*self.workspaces[wanted.part], *(each.uid for each in wanted.workspaces)}
        )

    def look_at_guests(self) -> None:
        obeyed: dict[tuple[str, str], dict[str, int]] = {}
        for save in self.record.saves:
            before = obeyed.get((save.site, save.host), {})
            for uid, generation in save.generations.items():
                if generation < before.get(uid, 0):
                    self.wrong.append(
                        f"{save.at:.3f} {save.site}/{save.host}: obeys generation {generation} of "
                        f"{uid} after {before[uid]}"
                    )
            obeyed[save.site, save.host] = save.generations
        for start in self.record.starts:
            over = self.ended.get(start.domain.removeprefix("it-"))
            if over is not None and start.at > over:
                self.wrong.append(
                    f"{start.at:.3f} {start.site}/{start.host}: {start.domain} was started after "
                    f"its part was over at {over:.3f}"
                )

    # Users

    def hear(self) -> None:
        """What users were told is so, and stays so."""
        answers: dict[tuple[str, str], set[str]] = defaultdict(set)
        for told in self.record.told:
            if told.outcome.split(":")[0] in ("INTERNAL", "UNKNOWN", "UNIMPLEMENTED"):
                self.wrong.append(f"{told.at:.3f} {told.user}: {told.outcome}")
            if told.call == "Create" and told.outcome == "RequestIdReuse":
                self.wrong.append(f"{told.at:.3f} {told.user}: {told.outcome} of {told.cluster}")
            if told.call == "Create" and told.outcome == "NameTaken":
                self._own_name(told)
            if told.call != "Create" or told.outcome != "ok":
                continue
            answers[told.user, told.request_id].add(told.uid)
            known = [each for at, each in self.clusters.get(told.uid, ()) if at <= told.at]
            if not any(each["state"] != "PLANNED" for each in known):
                self.wrong.append(f"{told.at:.3f} {told.user}: {told.cluster} is on no record")
            for each in known[-1:]:
                if (tx := each.get("tx")) and each["state"] in ("SCHEDULED", "ACTIVE", "ENDED"):
                    outcome = self.decisions.get(tx, {}).get("outcome", "")
                    if outcome != "COMMIT":
                        self.wrong.append(f"{told.user}: {told.cluster} is told, and {outcome}")
            if told.uid in self.gone_at and told.at < self.gone_at[told.uid]:
                self.wrong.append(f"{told.user}: {told.cluster} was told, and forgotten")
        for (user, request), uids in answers.items():
            if len(uids) > 1:
                self.wrong.append(f"{user}: {request} was answered with {sorted(uids)}")
        for name, uids in self.confirmed.items():
            if len(uids) > 1:
                self.wrong.append(f"{name} was made {len(uids)} times: {sorted(uids)}")

    def _own_name(self, told: Told) -> None:
        """A copy of a request may say that the name is taken which another copy has just taken, or
        given back: where a replica that led does not know yet what its successor has written, and
        where a record is discarded between two reads. It holds nothing, and is no invariant."""
        self.noted.append(f"{told.at:.3f} {told.user}: {told.outcome} of {told.cluster}, its own")


def undone(record: Record, *, grace_s: float = GRACE_S) -> list[str]:
    """What should have come to its end for so long, and has not."""
    now: dict[tuple[str, str], tuple[float, bytes]] = {}
    for written in record.writes:
        for key, value in written.puts:
            now[written.store, key] = written.at, value
        for key in written.deleted:
            now.pop((written.store, key), None)
    return [*_unsettled(record, now, grace_s), *_left_running(record, now)]


def _unsettled(
    record: Record, now: dict[tuple[str, str], tuple[float, bytes]], grace_s: float
) -> Iterator[str]:
    last = max((each.at for each in record.writes), default=0.0)
    until = max(record.ended_at, last)
    late_s = grace_s + 2 * record.profile.offset_s
    for (store, key), (_, value) in now.items():
        kind = key.partition("/")[0]
        if kind == "txs":
            yield f"{store}: {key} is not settled"
        if kind not in ("parts", "clusters"):
            continue
        each = read(value)
        state = each["state"]
        open_part = kind == "parts" and state in ("HELD", "PREPARED")
        if open_part or (kind == "clusters" and store == "meta" and state == "PLANNED"):
            yield f"{store}: {key} is {state} for ever"
        elif state in ("CONFIRMED", "SCHEDULED", "ACTIVE"):
            window = each["spec"]["window"] if kind == "parts" else _cluster_window(each)
            asked = each.get("end_requested_time")
            end = seconds(window["end"])
            if until > end + late_s or (asked and until > seconds(asked) + late_s):
                yield f"{store}: {key} is {state} after its end"


def _cluster_window(cluster: Any) -> Any:
    return cluster["plan"]["window"] if "plan" in cluster else cluster["window"]


def _left_running(record: Record, now: dict[tuple[str, str], tuple[float, bytes]]) -> Iterator[str]:
    wanted = {
        (store, key.split("/")[1], workspace.uid)
        for (store, key), (_, value) in now.items()
        if key.startswith("wanted/")
        for workspace in records_pb2.WantedPart.FromString(value).workspaces
    }
    for place, domains in record.running.items():
        site, _, host = place.partition("/")
        for each in domains:
            if (site, host, each.removeprefix("it-")) not in wanted:
                yield f"{place}: {each} runs, and nobody wants it"


def _window(part: Any) -> tuple[float, float]:
    window = part["spec"]["window"]
    return _moment(window["start"]), _moment(window["end"])


@lru_cache(maxsize=1 << 14)
def _moment(text: str) -> float:
    return seconds(text)


_TAKEN: dict[str, dict[str, int]] = {}


def _takes(part: Any) -> dict[str, int]:
    """The same for as long as the part is: its placement does not change."""
    key = f"{part['name']} {part['seed']}"
    if key not in _TAKEN:
        _TAKEN[key] = dict(takes(part))
    return _TAKEN[key]
