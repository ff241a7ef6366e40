"""What to do about one part, given what its hosts were told and what they say."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from intertie.broker.domain.cluster import WINDOW_OVER
from intertie.broker.domain.fleet import Fleet, Policy, SeenPart
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.wanted import WantedPart, fingerprint, wanted_of
from intertie.common.values import replace

STAGING_LEAD = timedelta(seconds=60)
"""Hosts are told of a part so long before its window opens, so that images can be staged."""

NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """Write these records, one a host, with the part that knows of it."""

    part: Part
    wanted: Mapping[str, WantedPart]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Nothing is left on any host: take the records away, end the part."""

    part: Part
    hosts: tuple[str, ...]


Step = Tell | End | None


class Phase(Enum):
    EARLY = "EARLY"
    DUE = "DUE"
    ENDING = "ENDING"


def phase_of(part: Part, *, now: datetime) -> Phase:
    """What the time alone asks for: nothing yet, the part, or its end."""
    if part.end_requested_time is not None or now >= part.window.end:
        return Phase.ENDING
    return Phase.EARLY if now < part.window.start - STAGING_LEAD else Phase.DUE


def until(part: Part, *, now: datetime) -> datetime:
    """When the time alone next asks for something else; NEVER where it does not."""
    match phase_of(part, now=now):
        case Phase.EARLY:
            return part.window.start - STAGING_LEAD
        case Phase.DUE:
            return part.window.end
    return NEVER


def step_of(
    part: Part,
    told: Mapping[str, int],
    seen: Mapping[str, SeenPart],
    fleet: Fleet,
    policy: Policy,
    *,
    now: datetime,
) -> Step:
    """The next step for one part; None when there is nothing to do.

    `told` are the hosts that have a record of it now, and of which generation that is: where a
    leader was broken off, some are of an older one.
    """
    if part.state is not PartState.CONFIRMED:
        return None
    phase = phase_of(part, now=now)
    if phase is Phase.EARLY:
        return None
    ending = phase is Phase.ENDING
    if ending and part.end_requested_time is None:
        part = part.ending(now=now, reason=WINDOW_OVER)
    wanted = wanted_of(part, fleet, policy, gone=ending)
    if ending and _nothing_left(part, told, seen, fingerprint(wanted)):
        ended = part.move(PartState.ENDED, now=now, reason=part.end_reason)
        return End(part=ended, hosts=tuple(sorted(told)))
    if part.told == fingerprint(wanted) and told == dict.fromkeys(wanted, part.generation):
        return None
    return _tell(part, wanted)


def _nothing_left(
    part: Part, told: Mapping[str, int], seen: Mapping[str, SeenPart], wanted: str
) -> bool:
    """Every host that was ever told of the part has been told that it is over, and says, of
    that generation, that nothing is left."""
    if not told:
        return True
    return part.told == wanted and all(
        host in seen and seen[host].gone and seen[host].generation >= part.generation
        for host in told
    )


def _tell(part: Part, wanted: Mapping[str, WantedPart]) -> Tell:
    generation = part.generation + 1
    return Tell(
        part=replace(part, generation=generation, told=fingerprint(wanted)),
        wanted={host: replace(each, generation=generation) for host, each in wanted.items()},
    )
