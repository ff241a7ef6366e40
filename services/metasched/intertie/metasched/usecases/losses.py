"""Which sites clusters have lost, as their sites answer, and what was tried about it."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from intertie.common.clock import Clock
from intertie.metasched.domain.cluster import ClusterRecord, PartSeen
from intertie.metasched.domain.lost_links import cut_off
from intertie.metasched.domain.lost_sites import LossPolicy, at_site, away, given_up, may_be_left

AGAIN_S = 10.0
"""After a first attempt that came to nothing; after each further one, twice as long."""
SELDOM_S = 300.0
"""Where nothing ends by it, at most so long."""
JUDGED_S = 60.0
"""Sites that nobody has asked for so long say nothing of how many are silent."""

Options = tuple[Mapping[str, str], ...]
"""Sites that are to be left, each with why; one after another is tried."""


@dataclass(slots=True)
class _Loss:
    name: str
    options: Options
    since_s: float
    ends: bool
    """The cluster does, if it comes to nothing."""
    again_s: float
    blocked: Sequence[str] = field(default=())
    """Sites that are to be asked, and do not answer."""
    problem: str = ""
    """Of the last attempt; empty: there was none."""
    attempts: int = 0
    too_late: bool = False
    """The last attempt came to nothing when there was no time left."""

    @property
    def lost(self) -> Mapping[str, str]:
        return self.options[self.attempts % len(self.options)]

    def like(self, options: Options, *, ends: bool) -> bool:
        """Whatever is said of why."""
        return self.ends == ends and list(map(set, self.options)) == list(map(set, options))


class Losses:
    """In memory: a replica that takes over begins to count anew, and so does one that could not
    look for a while. Silence is what it has seen itself, by its own steady clock.

    While more than half of the sites that were asked are silent it is rather this one that is cut
    off: then no time counts.
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

    def keep(self, living: Set[str]) -> None:
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
        silent = self._silent_for_long(now_s)
        gone = given_up(record, parts, now=now)
        # Those without machines are left with others alone: nobody could be asked there for what is
        # to be had in the place of those.
        lost = {site: f"{site} is lost" for site in sorted(gone | away(record, silent, now=now))}
        options: Options = ({},)
        if not gone and not any(at_site(record, site) for site in lost):
            options = cut_off(record, parts, now=now, after=self._policy.site_lost_after)
        if not options:
            self._losses.pop(record.uid, None)
            return None
        options = tuple({**each, **lost} for each in options)
        return self._judged(self._known(record, options, ends=bool(gone)), record, now_s)

    def _known(self, record: ClusterRecord, options: Options, *, ends: bool) -> _Loss:
        now_s, before = self._clock.monotonic(), self._losses.get(record.uid)
        if before is not None and before.like(options, ends=ends):
            before.options = options
        else:
            since_s = before.since_s if before is not None and before.ends and ends else now_s
            before = _Loss(record.name, options, since_s, ends, now_s)
            self._losses[record.uid] = before
        return before

    def _judged(self, loss: _Loss, record: ClusterRecord, now_s: float) -> str | None:
        """As heard."""
        now = self._clock.now()
        loss.blocked = [
            site for site in record.parts if site in self._silent_since and site not in loss.lost
        ]
        if not loss.ends or now_s - loss.since_s < self._within_s:
            return None
        for site in loss.blocked:
            if not may_be_left(record, site, now=now):
                return f"{site} does not answer"
        return loss.problem if loss.too_late and not loss.blocked else None

    def due(self) -> Iterator[tuple[str, str, Mapping[str, str]]]:
        """Uid and name of clusters for which other sites are to be looked for, and the sites that
        they are to leave, each with why."""
        now_s = self._clock.monotonic()
        for uid, each in tuple(self._losses.items()):
            if now_s >= each.again_s and not each.blocked:
                yield uid, each.name, each.lost

    def still(self, uid: str, lost: Mapping[str, str]) -> bool:
        """Whether these sites are lost to it by what was heard last."""
        loss = self._losses.get(uid)
        return loss is not None and any(set(each) == set(lost) for each in loss.options)

    def tried(self, uid: str, problem: str, began_s: float) -> None:
        """An attempt that began then came to nothing."""
        if loss := self._losses.get(uid):
            self.later(uid)
            loss.problem = problem
            loss.too_late = began_s - loss.since_s >= self._within_s

    def later(self, uid: str) -> None:
        """An attempt could not be made, or not to its end."""
        if loss := self._losses.get(uid):
            wait_s = AGAIN_S if loss.ends else min(AGAIN_S * 2**loss.attempts, SELDOM_S)
            loss.attempts += 1
            loss.again_s = self._clock.monotonic() + wait_s

    def had(self, uid: str) -> None:
        """What was lost is had elsewhere."""
        self._losses.pop(uid, None)

    def about(self, uid: str) -> bool:
        """Something is lost to it, as far as is known."""
        return uid in self._losses

    @property
    def _within_s(self) -> float:
        return self._policy.replan_within.total_seconds()

    def _silent_for_long(self, now_s: float) -> frozenset[str]:
        asked = {site for site, at_s in self._asked.items() if now_s - at_s < JUDGED_S}
        silent = asked & self._silent_since.keys()
        if 2 * len(silent) > len(asked):
            self._silent_since.update(dict.fromkeys(silent, now_s))
            return frozenset()
        least_s = self._policy.site_lost_after.total_seconds()
        return frozenset(s for s in silent if now_s - self._silent_since[s] >= least_s)
