"""Which sites clusters have lost, as their sites answer, and what was tried about it."""

from collections.abc import Mapping
from dataclasses import dataclass

from intertie.common.clock import Clock
from intertie.metasched.domain.cluster import ClusterRecord, PartSeen
from intertie.metasched.domain.lost_links import cut_off
from intertie.metasched.domain.lost_sites import LossPolicy, away, given_up

AGAIN_S = 10.0
"""After an attempt that came to nothing."""
JUDGED_S = 60.0
"""Sites that nobody has asked for so long say nothing of how many are silent."""


@dataclass(slots=True)
class _Loss:
    name: str
    options: tuple[Mapping[str, str], ...]
    """Sites to be left, each with why; one after another is tried."""
    since_s: float
    ends: bool
    """The cluster does, if it comes to nothing."""
    again_s: float
    problem: str = ""
    """Of the last attempt; empty: there was none."""
    attempts: int = 0

    @property
    def lost(self) -> Mapping[str, str]:
        return self.options[self.attempts % len(self.options)]


class Losses:
    """In memory: a replica that takes over begins to count anew, and so does one that could not
    look for a while. Silence is what it has seen itself, by its own steady clock.

    While more than half of the sites that were asked are silent none is taken for lost: then it is
    rather this one that is cut off.
    """

    def __init__(self, policy: LossPolicy, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._silent_since: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        """When each site was asked last."""
        self._losses: dict[str, _Loss] = {}
        """By cluster's uid."""

    def forget(self) -> None:
        """What came meanwhile is not known."""
        self._silent_since.clear()
        self._asked.clear()
        self._losses.clear()

    def keep(self, living: set[str]) -> None:
        """Of others nothing is known any more."""
        for uid in self._losses.keys() - living:
            del self._losses[uid]

    def heard(self, record: ClusterRecord, parts: Mapping[str, PartSeen]) -> str | None:
        """What its sites say, or do not. Why what a site has given up could not be had elsewhere in
        time; None: there is nothing, it is had, or there is time left."""
        now, now_s = self._clock.now(), self._clock.monotonic()
        for site in record.parts:
            part = parts.get(site)
            self._asked[site] = now_s
            if part is not None and part.current:
                self._silent_since.pop(site, None)
            else:
                self._silent_since.setdefault(site, now_s)
        gone = given_up(record, parts, now=now)
        lost = gone | away(record, self._silent_for_long(now_s), now=now)
        options: tuple[Mapping[str, str], ...] = ({site: f"{site} is lost" for site in lost},)
        if not lost:
            options = cut_off(record, parts, now=now, after=self._policy.site_lost_after)
        if not options:
            self._losses.pop(record.uid, None)
            return None
        loss, ends = self._losses.get(record.uid), bool(gone)
        if loss is None or loss.options != options or loss.ends != ends:
            since_s = loss.since_s if loss is not None and loss.ends and ends else now_s
            loss = _Loss(record.name, options, since_s, ends, now_s)
            self._losses[record.uid] = loss
        within_s = self._policy.replan_within.total_seconds()
        if loss.ends and loss.problem and now_s - loss.since_s >= within_s:
            return loss.problem
        return None

    def due(self) -> tuple[tuple[str, str, Mapping[str, str]], ...]:
        """Uid and name of clusters for which other sites are to be looked for, and the sites that
        they are to leave, each with why."""
        now_s = self._clock.monotonic()
        return tuple(
            (uid, each.name, each.lost)
            for uid, each in self._losses.items()
            if now_s >= each.again_s
        )

    def tried(self, uid: str, problem: str) -> None:
        """An attempt came to nothing."""
        if loss := self._losses.get(uid):
            loss.problem, loss.attempts = problem, loss.attempts + 1
            loss.again_s = self._clock.monotonic() + AGAIN_S

    def had(self, uid: str) -> None:
        """What was lost is had elsewhere."""
        self._losses.pop(uid, None)

    def _silent_for_long(self, now_s: float) -> frozenset[str]:
        asked = {site for site, at_s in self._asked.items() if now_s - at_s < JUDGED_S}
        silent = asked & self._silent_since.keys()
        if 2 * len(silent) > len(asked):
            return frozenset()
        least_s = self._policy.site_lost_after.total_seconds()
        return frozenset(s for s in silent if now_s - self._silent_since[s] >= least_s)
