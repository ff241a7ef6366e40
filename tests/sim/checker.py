"""The invariants of a run, checked from its history by code that it shares with nothing it checks.

Records are read as plain JSON, revision by revision, in the order in which they were written
anywhere: what is true at one moment is judged at that moment.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from intertie.api.nodeagent.v1 import records_pb2
from tests.integration import ledger_history
from tests.sim.counting import COUNTED, forget, overfull, read, seconds, span, window_of
from tests.sim.guests import broken_guests
from tests.sim.heard import Heard
from tests.sim.leading import Leading
from tests.sim.services import SITES
from tests.sim.switches import Switches, starts
from tests.sim.terms import Terms, differing
from tests.sim.undone import undone
from tests.sim.waiting import Waiting, begins_late

if TYPE_CHECKING:
    from tests.sim.record import Record

NEVER_BEGAN = frozenset({"EXPIRED", "RELEASED"})
BEGAN = frozenset({"CONFIRMED", "ENDED"})
OVER = NEVER_BEGAN | {"ENDED"}
EDGES = ledger_history.EDGES | {("", "PREPARED")}
CLUSTER_OVER = frozenset({"ENDED", "REJECTED", "CANCELLED", "FAILED"})
TAKING = ("spec", "placed", "gateway", "shed", "amend", "keeping")
"""Of a part's record: what says how much it takes, and when."""
CHANGES = ("u-", "a-", "act-", "fwd-")
"""How the ids of requests begin by which users change what there is."""
KEPT_S = 24 * 3600.0
CLOCKS_S = 600.0
"""Two clocks of one site may differ by as much."""


def broken(record: Record) -> tuple[list[str], list[str]]:
    """What is wrong with a run; nothing, one hopes. And what is known to happen, and noted: see
    `heard.Heard`."""
    forget()
    history = _History(record)
    for written in record.writes:
        history.take(written)
    heard = Heard(
        record,
        history.switches,
        decisions=history.decisions,
        clusters=history.clusters,
        gone_at=history.gone_at,
        confirmed=history.confirmed,
    )
    history.wrong += heard.broken()
    history.look_at_guests()
    history.wrong += [*record.fell, *undone(record), *history.in_the_end()]
    history.wrong += broken_guests(record)
    return history.wrong, heard.noted


@dataclass
class _Site:
    parts: dict[str, Any] = field(default_factory=dict)
    """By key, as they are now."""
    tombs: dict[str, Any] = field(default_factory=dict)
    """Parts that were put aside, by the keys that they had."""
    once: set[str] = field(default_factory=set)
    """Keys of parts that were over."""
    answers: dict[str, Any] = field(default_factory=dict)
    forwards: set[str] = field(default_factory=set)
    late: dict[str, Any] = field(default_factory=dict)
    """Parts as they were, that count for longer by this revision because they are not saved."""


class _History:
    def __init__(self, record: Record) -> None:
        self.record = record
        self.wrong: list[str] = []
        self.sites = {site: _Site() for site in SITES}
        self.leading = Leading(self.say)
        self.decisions: dict[str, Any] = {}
        self.txs: dict[str, Any] = {}
        self.waiting = Waiting(self.say)
        self.switches = Switches(self.say)
        self.terms = Terms(self.say, self.decisions, self.txs)
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
        self.not_up: set[tuple[str, str]] = set()
        """Site and host: silent, or to be off, by the last that was written of them."""
        self.uids: dict[str, dict[str, str]] = defaultdict(dict)
        """Of workspaces by their labels, by name of the part."""
        self.workspaces: dict[str, list[str]] = defaultdict(list)
        """Uids of workspaces, by part's uid."""

    def say(self, written: Any, problem: str) -> None:
        self.wrong.append(f"{written.at:.3f} {written.store}@{written.revision}: {problem}")

    # The history

    def take(self, written: Any) -> None:
        self.leading.write(written)
        if written.store == "meta":
            self._meta(written)
            return
        site = self.sites[written.store]
        site.late = {}
        taking: list[tuple[Any, Any, float]] = []
        """Parts that take what they did not, and from when on: beside all that is otherwise now."""
        answers = [read(value)["answer"] for key, value in written.puts if _is_answer(key)]
        for key, value in written.puts:
            if key in site.parts:
                self.switches.part(written, site.parts[key], read(value), answers)
        made: list[str] = []
        answered: list[str] = []
        for key, value in written.puts:
            kind = key.partition("/")[0]
            if kind == "parts":
                if key not in site.parts and read(value)["tx"]:
                    made.append(read(value)["name"])
                self._part(written, site, key, read(value), taking)
            elif kind == "forwards":
                if key not in site.forwards:  # else it is made sure of
                    made.append(read(value)["name"])
                site.forwards.add(key)
            elif kind == "requests":
                answer = read(value)
                self._request(written, site, key, answer)
                if not self._of_what_stands(written, site, answer):
                    answered.append(answer["answer"])
            elif kind == "clusters":
                if (written.store, key) not in self.current:
                    made.append(read(value)["name"])
                self._cluster(written, key, read(value))
            elif kind == "wanted":
                self._wanted(value)
            elif kind == "hosts":
                self._host(written, read(value))
            elif kind == "seen" and "/parts/" in key:
                self.terms.seen(written.store, key.split("/")[1], value)
                self.waiting.seen(written.store, key.split("/")[1], value)
        for part, before, since in taking:
            self._fits(written, site, part, before, since)
        if sorted(made) != sorted(answered):
            self.say(written, f"{sorted(made)} were made for {sorted(answered)}")
        self._terms_of_clusters(written, site)
        self.waiting.revision(written)
        for key in written.deleted:
            self._deleted(written, site, key)

    def _of_what_stands(self, written: Any, site: _Site, answer: Any) -> bool:
        """Whether a request makes nothing: it changes what is there."""
        part = next((each for each in written.puts if _named(each, answer["answer"])), None)
        amend = None if part is None else read(part[1])["amend"]
        if amend is not None and amend["tx"] == answer["request_id"]:
            return True  # else one that switches a part for which other terms are held
        return bool(answer["request_id"].startswith(CHANGES))

    def _terms_of_clusters(self, written: Any, site: _Site) -> None:
        """A cluster of one site and its part get other terms at one revision."""
        for key, value in written.puts:
            kind, _, rest = key.partition("/")
            if kind != "clusters":
                continue
            cluster = read(value)
            part = site.parts.get(
                f"parts/{rest.partition('/')[0]}/{cluster['part'].rpartition('/')[2]}"
            )
            self.waiting.cluster(written, self._version_before(cluster), cluster, part)
            if part is None or part["state"] != "CONFIRMED":
                continue
            if cluster["state"] not in ("SCHEDULED", "ACTIVE"):
                continue
            if part["terms"] != cluster["terms"]:
                self.say(written, f"{key} has terms {cluster['terms']}, its part {part['terms']}")
            for problem in differing(cluster, cluster["window"], [part]):
                self.say(written, problem)

    def _meta(self, written: Any) -> None:
        clusters: dict[str, Any] = {}
        for key, value in written.puts:
            kind, _, rest = key.partition("/")
            if kind == "decision":
                self._decision(written, rest, read(value))
            elif kind == "txs":
                self.txs[rest] = read(value)
            elif kind == "clusters":
                cluster = read(value)
                self._cluster(written, key, cluster)
                clusters[cluster["uid"]] = cluster
                if late := begins_late(cluster):
                    self.say(written, late)
                before = self._version_before(cluster)
                self.waiting.over_sites(written, before, cluster, self._part_at)
        self.terms.revision(written, clusters)
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
        if self.txs.get(tx, {}).get("specs"):
            return  # no site was asked
        for site in self.txs.get(tx, {"parts": {}})["parts"]:
            state = self.parts_of[tx].get(site, "")
            if state not in ("PREPARED", "CONFIRMED", "ENDED"):
                self.say(written, f"{tx} is committed, and {state or 'not there'} at {site}")

    def _part_at(self, site: str, name: str) -> Any:
        """None where there is none, or none any more."""
        *_, tenant, _, uid = name.split("/")
        return self.sites[site].parts.get(f"parts/{tenant}/{uid}")

    # Parts

    def _part(
        self, written: Any, site: _Site, key: str, part: Any, taking: list[tuple[Any, Any, float]]
    ) -> None:
        before = site.parts.get(key)
        was, now = before["state"] if before else "", part["state"]
        if was != now and (was, now) not in EDGES:
            self.say(written, f"{key} went from {was or 'nothing'} to {now}")
        if not was and key in site.once:
            self.say(written, f"{key} was over, and is {now} again")
        site.parts[key] = part
        if before is not None:
            self.terms.part(written, before, part)
            self.waiting.part(written, before, part)
        had = before if was in COUNTED else None
        if now in COUNTED and (had is None or _otherwise(had, part)):
            # What it takes before now is past: others had it then that are over since, or get it
            # from now on.
            now_s = written.at + self.record.offsets.get(written.writer.partition("#")[0], 0.0)
            taking.append((part, had, max(window_of(part)[0], now_s)))
        if before and _is_late(before, part):
            # What was admitted at this very revision was so before.
            site.late[key] = before
        if before is None or part["network_ids"] != before["network_ids"]:
            self._vnis(written, site, key, part)
        self._of_amend(written, before, part)
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
        self._whole(written, tx)

    def _of_amend(self, written: Any, before: Any, part: Any) -> None:
        """Other terms for a part are of a transaction too."""
        had, has = before["amend"] if before else None, part["amend"]
        if has is not None:
            self.parts_of[has["tx"]][written.store] = has["state"]
        elif had is not None:
            applied = part["tx"] == had["tx"]
            self.parts_of[had["tx"]][written.store] = "CONFIRMED" if applied else "RELEASED"
            self._whole(written, had["tx"])

    def _whole(self, written: Any, tx: str) -> None:
        states = self.parts_of[tx]
        if BEGAN & set(states.values()) and NEVER_BEGAN & set(states.values()):
            self.say(written, f"{tx} is mixed: {dict(states)}")

    def _fits(self, written: Any, site: _Site, part: Any, before: Any, since: float) -> None:
        """Every resource at every moment from then on at which a part begins."""
        there = {**site.parts, **site.late}
        others = [each for each in there.values() if each["state"] in COUNTED]
        late = self.terms.given_up[written.store]
        for problem in overfull(part, before, others, since, late):
            self.say(written, problem)

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
            ends = max(window_of(part)[1], seconds(part["end_time"]) if part["end_time"] else 0.0)
            if part["state"] not in OVER:
                self.say(written, f"{key} was forgotten while it was {part['state']}")
            elif written.at < ends + KEPT_S - CLOCKS_S:
                self.say(written, f"the tombstone {key} was dropped early")
        elif kind == "forwards":
            site.forwards.discard(key)
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
            ends = max(window_of(part)[1], seconds(part["end_time"]))
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

    def _version_before(self, cluster: Any) -> Any:
        """The last but one that was written of it, or None."""
        versions = self.clusters[cluster["uid"]]
        return versions[-2][1] if len(versions) > 1 else None

    def _cluster_deleted(self, written: Any, key: str) -> None:
        uid = self.current.pop((written.store, key))
        self.gone_at[uid] = written.at
        state = self.clusters[uid][-1][1]["state"]
        if state not in CLUSTER_OVER and state != "PLANNED":
            self.say(written, f"{key} was forgotten while it was {state}")

    # Hosts

    def _host(self, written: Any, host: Any) -> None:
        place = written.store, host["name"]
        self.terms.host(*place, host["state"])
        self.not_up.discard(place)
        if host["state"] != "UP":
            self.not_up.add(place)

    def _wanted(self, value: bytes) -> None:
        wanted = records_pb2.WantedPart.FromString(value)
        self.terms.wanted(wanted)
        self.waiting.wanted(wanted)
        self.uids[wanted.part].update({each.name: each.uid for each in wanted.workspaces})
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

    def in_the_end(self) -> Iterator[str]:
        parts = {
            (name, each["name"]): each
            for name, site in self.sites.items()
            for each in site.parts.values()
        }
        yield from self.terms.settled(parts)
        for (site, name), part in parts.items():
            if not any(of == site for of, _ in self.not_up):
                yield from self.switches.done(self.record, site, part, self.uids[name])
        boots = {
            f"it-{self.uids[name].get(label, '')}": count
            for (name, label), count in self.switches.boots.items()
        }
        yield from starts(self.record, boots)


def _otherwise(before: Any, part: Any) -> bool:
    """Whether it may take more. That what is not saved or given up in time counts on is not among
    it: it is there, and what was promised to others by then begins once it is not."""
    if part["keeping"] and before["keeping"] and part["terms"] == before["terms"]:
        keeping = {**before["keeping"], "save": part["keeping"]["save"]}
        before = {**before, "keeping": keeping, "shed": part["shed"]}
    return any(part[what] != before[what] for what in TAKING)


def _is_late(before: Any, part: Any) -> bool:
    same = all(part[what] == before[what] for what in ("terms", "recalled_end"))
    counts_on = part["keeping"] and part["shed"] != before["shed"]
    keeps = part["keeping"] != before["keeping"] and not _is_saved_sooner(before, part)
    return bool((keeps or counts_on) and same)


def _is_saved_sooner(before: Any, part: Any) -> bool:
    """Then others may have at once what it was to have for longer."""
    had, has = before["keeping"], part["keeping"]
    return bool(had and has) and span(has["save"]) < span(had["save"])


def _is_answer(key: str) -> bool:
    return key.startswith("requests/")


def _named(put: tuple[str, bytes], name: str) -> bool:
    return put[0].startswith("parts/") and bool(read(put[1])["name"] == name)
