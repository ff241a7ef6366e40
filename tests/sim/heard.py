"""What users were told, held against what was on record by then, and later."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tests.sim.switches import Switches
from tests.sim.terms import has_terms

if TYPE_CHECKING:
    from tests.sim.record import Record, Told


class Heard:
    def __init__(
        self,
        record: Record,
        switches: Switches,
        *,
        decisions: Mapping[str, Any],
        clusters: Mapping[str, Sequence[tuple[float, Any]]],
        gone_at: Mapping[str, float],
        confirmed: Mapping[str, set[str]],
    ) -> None:
        """`decisions` by tx. By uid of a cluster: `clusters`, each state that was written, and
        when; `gone_at`, when its record was deleted. `confirmed`: by a cluster's name, the uids
        of those of which something was ever confirmed."""
        self.record = record
        self.switches = switches
        self.decisions = decisions
        self.clusters = clusters
        self.gone_at = gone_at
        self.confirmed = confirmed
        self.wrong: list[str] = []
        self.noted: list[str] = []
        """What is known to happen: see `_own_name`."""
        self.asks: dict[str, set[str]] = defaultdict(set)
        """Ids of the requests for other terms, by id of the cluster."""

    def broken(self) -> list[str]:
        """What users were told is so, and stays so."""
        answers: dict[tuple[str, str], set[str]] = defaultdict(set)
        for told in self.record.told:
            if told.outcome.split(":")[0] in ("INTERNAL", "UNKNOWN", "UNIMPLEMENTED"):
                self.wrong.append(f"{told.at:.3f} {told.user}: {told.outcome}")
            if told.call == "Create" and told.outcome == "RequestIdReuse":
                self.wrong.append(f"{told.at:.3f} {told.user}: {told.outcome} of {told.cluster}")
            if told.call == "Create" and told.outcome == "NameTaken":
                self._own_name(told)
            if told.call == "Act":
                self.switches.told(told)
            if told.call == "Update":
                self._was_amended(told)
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
        self.wrong += self.switches.counted()
        for states in self.clusters.values():
            cluster = states[-1][1]
            asks = self.asks[cluster["name"].rpartition("/")[2]]
            if cluster["terms"] > len(asks) and not cluster.get("waits"):
                self.wrong.append(
                    f"{cluster['name']} has got other terms {cluster['terms']} times, and was "
                    f"asked to {len(asks)} times"
                )
        for (user, request), uids in answers.items():
            if len(uids) > 1:
                self.wrong.append(f"{user}: {request} was answered with {sorted(uids)}")
        for name, uids in self.confirmed.items():
            if len(uids) > 1:
                self.wrong.append(f"{name} was made {len(uids)} times: {sorted(uids)}")
        return self.wrong

    def _was_amended(self, told: Told) -> None:
        """Who was told that a cluster has the terms that it was asked for."""
        asks = self.asks[told.cluster]
        asks.add(told.request_id)
        if told.outcome == "RequestIdReuse":
            self.wrong.append(f"{told.at:.3f} {told.user}: {told.outcome} of {told.request_id}")
        if told.outcome != "ok":
            return
        known = [each for at, each in self.clusters.get(told.uid, ()) if at <= told.at]
        if not any(has_terms(each, json.loads(told.asked)) for each in known):
            self.wrong.append(
                f"{told.at:.3f} {told.user}: {told.cluster} never had what {told.request_id} asked "
                f"for: {told.asked}"
            )

    def _own_name(self, told: Told) -> None:
        """A copy of a request may say that the name is taken which another copy has just taken, or
        given back: where a replica that led does not know yet what its successor has written, and
        where a record is discarded between two reads. It holds nothing, and is no invariant."""
        self.noted.append(f"{told.at:.3f} {told.user}: {told.outcome} of {told.cluster}, its own")
