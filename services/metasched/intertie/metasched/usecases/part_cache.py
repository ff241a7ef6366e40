"""What sites say of the parts of clusters, not asked more often than once a second."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from intertie.common.clock import Clock
from intertie.common.errors import DomainError, NotFound
from intertie.common.names import PartName
from intertie.common.values import replace
from intertie.metasched.domain.cluster import PENDING, ClusterRecord, PartSeen
from intertie.metasched.domain.ports import Sites

FRESH_S = 1.0
SILENCE_S = 3.0
"""A site that did not answer is not asked again for so long."""
KEPT_S = 300.0
"""What nobody has asked for in so long is dropped: of clusters that are over, and of sites that
clusters are at no more, which only the leader is told of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    seen: PartSeen | None
    until: float
    """Monotonic moment up to which it is good enough."""


class PartCache:
    def __init__(self, sites: Sites, clock: Clock) -> None:
        self._sites = sites
        self._clock = clock
        self._answers: dict[str, _Answer] = {}
        self._dropped_s = clock.monotonic()

    async def parts_of(self, record: ClusterRecord) -> Mapping[str, PartSeen]:
        """By site. A site that does not answer keeps what it said last, marked as not current;
        one that never answered is not in it."""
        if record.over or record.state in PENDING:
            return {}
        found = await asyncio.gather(
            *(self.part_at(site, part) for site, part in record.parts.items())
        )
        return {
            site: seen for site, seen in zip(record.parts, found, strict=True) if seen is not None
        }

    def heard(self, part: str, seen: PartSeen) -> None:
        """What a site has just said of it by itself."""
        self._keep(part, seen, FRESH_S)

    def forget(self, record: ClusterRecord) -> None:
        for part in record.parts.values():
            self.forget_part(part)

    def forget_part(self, part: str) -> None:
        self._answers.pop(part, None)

    async def part_at(self, site: str, part: str) -> PartSeen | None:
        """Likewise of one, whosever it is; None where its site never answered."""
        last = self._answers.get(part)
        if last is not None and self._clock.monotonic() < last.until:
            return last.seen
        fresh_s = FRESH_S
        seen: PartSeen | None
        try:
            seen = await self._sites.part(PartName.parse(part))
        except NotFound:
            seen = PartSeen(over=True)
        except DomainError:
            seen = replace(last.seen, current=False) if last and last.seen else None
            fresh_s = SILENCE_S
        self._keep(part, seen, fresh_s)
        return seen

    def _keep(self, part: str, seen: PartSeen | None, fresh_s: float) -> None:
        now = self._clock.monotonic()
        self._answers[part] = _Answer(seen=seen, until=now + fresh_s)
        if now - self._dropped_s >= KEPT_S:
            self._dropped_s = now
            # Who asks for one that is good no more has it asked for anew.
            self._answers = {
                name: answer
                for name, answer in self._answers.items()
                if now - answer.until < KEPT_S
            }
