"""What to do about one part, given what its hosts were told and what they say."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from intertie.broker.domain import migrating
from intertie.broker.domain.cluster import WAITED_TOO_LONG, WINDOW_OVER
from intertie.broker.domain.fleet import Fleet, Policy, SeenPart
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.sending import still_to_come
from intertie.broker.domain.snapshots import settled
from intertie.broker.domain.used import known_of, on_record
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


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp:
    """Hosts have obeyed: what the part had before counts no more. Take the records of those away
    that have nothing of it now."""

    part: Part
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Hosts have said what the part is by now; they are told the next time."""

    part: Part


Step = Tell | GivenUp | End | Note | None


class Phase(Enum):
    EARLY = "EARLY"
    DUE = "DUE"
    ENDING = "ENDING"


def phase_of(part: Part, *, now: datetime) -> Phase:
    """What the time alone asks for: nothing yet, the part, or its end. Nothing, too, before its
    hosts could get the images that are brought to the site for it. In doubt it does not end by
    its window, which may have become a longer one; its hosts stop its guests as ever."""
    if part.end_requested_time is not None or (now >= part.ends and not part.bound):
        return Phase.ENDING
    early = now < part.window.start - STAGING_LEAD or _is_awaited(part)
    return Phase.EARLY if early else Phase.DUE


def _awaited(part: Part) -> frozenset[str]:
    """Digests of what is still to come."""
    if not part.spec.transfers:
        return frozenset()
    coming = still_to_come(part.spec, part.arrivals, part.path.site)
    return frozenset(each.digest for each in coming)


def _is_awaited(part: Part) -> bool:
    """No host has heard of it, and something is to come that others need than those who came
    later."""
    if part.generation or not (awaited := _awaited(part)):
        return False
    return any(
        not awaited.isdisjoint(each.images)
        for each in part.spec.workspaces
        if each.label not in part.awaiting
    )


def without_awaiting(part: Part) -> Part:
    """As hosts are told of it: without workspaces that wait for what is brought for them."""
    if not part.awaiting:
        return part
    awaited = _awaited(part)
    out = {
        each.label
        for each in part.spec.workspaces
        if each.label in part.awaiting and not awaited.isdisjoint(each.images)
    }
    if not out:
        return part
    there = tuple(each for each in part.spec.workspaces if each.label not in out)
    return replace(
        part,
        spec=replace(part.spec, workspaces=there),
        placed=tuple(each for each in part.placed if each.workspace not in out),
    )


def until(part: Part, *, now: datetime) -> datetime:
    """When the time alone next asks for something else; NEVER where it does not."""
    match phase_of(part, now=now):
        case Phase.EARLY:
            opens = part.window.start - STAGING_LEAD
            return opens if now < opens else part.ends
        case Phase.DUE:
            return min(part.ends, migrating.until(part) or NEVER)
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
    ending = phase is Phase.ENDING
    if part.shed and not ending and not part.generation:
        return GivenUp(part=replace(part, shed=()), hosts=())  # no host ever knew
    if phase is Phase.EARLY:
        return None
    if ending and part.end_requested_time is None:
        kept = part.ends > part.window.end
        reason = WAITED_TOO_LONG if kept else part.end_reason or WINDOW_OVER
        part = part.ending(now=now, reason=reason)
    elif not ending and (after := migrating.next_of(part, seen, fleet, now=now)) is not None:
        return Note(part=after)
    before, part = part, settled(part, seen)
    wanted = wanted_of(without_awaiting(part), fleet, policy, gone=ending)
    says = _fingerprint(part, wanted)
    if ending and _nothing_left(part, told, seen, says, fleet.fenced):
        ended = part.move(PartState.ENDED, now=now, reason=part.end_reason)
        ended = settled(ended, seen)
        return End(part=_with_counts(ended, ended, seen), hosts=tuple(sorted(told)))
    due = part.generation < max(
        (*(each.generation for each in part.shed), *(each.generation for each in part.left)),
        default=0,
    )
    as_told = part.told == says and not due
    if not as_told or part != before or told != dict.fromkeys(wanted, part.generation):
        return _tell(part, wanted, says)
    return None if ending else _given_up(part, told, seen, fleet.fenced)


def _given_up(
    part: Part,
    told: Mapping[str, int],
    seen: Mapping[str, SeenPart],
    fenced: Collection[str],
) -> GivenUp | None:
    """What every host of it has given up: it has obeyed a generation in which it is in force no
    more, or says of such a one that nothing of the part is left, or is fenced."""

    def obeyed(hosts: Iterable[str], generation: int) -> bool:
        return all(host in fenced or _obeyed(seen.get(host), generation) for host in hosts)

    shed = tuple(each for each in part.shed if not obeyed(each.hosts(), each.generation))
    left = tuple(
        each
        for each in part.left
        if not (
            obeyed((each.host,), each.generation) or _cleared(seen.get(each.host), each.generation)
        )
    )
    if shed == part.shed and left == part.left:
        return None
    after = _with_counts(replace(part, shed=shed, left=left), part, seen)
    there = {*after.hosts(), *after.left_hosts()}
    rid = tuple(sorted(host for host in told if host not in there))
    return GivenUp(part=after, hosts=rid)


def _with_counts(after: Part, before: Part, seen: Mapping[str, SeenPart]) -> Part:
    """What hosts have counted is on record with the part before they take their own away, or are
    not heard on it any more."""
    return replace(after, used=on_record(known_of(before, seen)))


def _obeyed(report: SeenPart | None, generation: int) -> bool:
    if report is None:
        return False
    return report.obeyed_generation >= generation or (
        report.gone and report.generation >= generation
    )


def _cleared(report: SeenPart | None, generation: int) -> bool:
    """What migrations have left there is gone, whatever its host has yet to do for others: one that
    is put aside has not obeyed, however long that is."""
    return report is not None and report.cleared_generation >= generation


def _nothing_left(
    part: Part,
    told: Mapping[str, int],
    seen: Mapping[str, SeenPart],
    wanted: str,
    fenced: Collection[str],
) -> bool:
    """Every host that was ever told of the part has been told that it is over, and says, of
    that generation, that nothing is left. Of one that is fenced nothing runs, and it takes away
    what it has no record of before it runs anything again."""
    if not told:
        return True
    return part.told == wanted and all(
        host in fenced
        or (host in seen and seen[host].gone and seen[host].generation >= part.generation)
        for host in told
    )


def _fingerprint(part: Part, wanted: Mapping[str, WantedPart]) -> str:
    """Of what hosts have of the part: that others are rid of it is no news to these."""
    left = part.left_hosts()
    return fingerprint({host: each for host, each in wanted.items() if host not in left})


def _tell(part: Part, wanted: Mapping[str, WantedPart], says: str) -> Tell:
    generation = part.generation + 1
    return Tell(
        part=replace(part, generation=generation, told=says),
        wanted={host: replace(each, generation=generation) for host, each in wanted.items()},
    )
