"""Migration of workspaces between hosts of the site: whether and where to, and what is next.

A workspace on its way counts on both hosts, until the one that does not have it in the end has
cleared it (`Left`). Who has it is the word of the host that it comes from: nothing here rests on
silence, and on a host's loss only once that is fenced.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from intertie.broker.domain.amounts import shortfall_of, with_room_for_memory
from intertie.broker.domain.board import Room
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.difference import at_host, least, more_of
from intertie.broker.domain.fleet import (
    Fleet,
    HostFacts,
    MigrationOutcome,
    Policy,
    SeenMigration,
    SeenPart,
    WorkspaceState,
)
from intertie.broker.domain.ledger import LedgerView, calendar_of, free_hosts
from intertie.broker.domain.moving import Left, Moving, MovingState
from intertie.broker.domain.part import Part
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.placement import place
from intertie.broker.domain.stretches import counted_till, is_kept, is_saved
from intertie.common.actions import Action, Power, allowed, standing
from intertie.common.amend_rules import LAST_MINUTES
from intertie.common.errors import (
    ActionIllegal,
    AmendPending,
    FieldInvalid,
    LeaseEnding,
    NoCapacity,
    Shortfall,
)
from intertie.common.intervals import Window
from intertie.common.part_spec import PartSpec
from intertie.common.spec import ANY_HYPERVISOR, BandwidthTerm, DiskTerm
from intertie.common.values import replace

PREPARED_WITHIN = timedelta(minutes=10)
"""With the image on its way."""
SENT_WITHIN = timedelta(minutes=30)
_LONGEST_WHY = 200
"""Characters of what a host says: what is written of one that stays is little more than of one on
its way, so that a part whose workspaces may all go is never too large to say that they have not."""
_OWN_CPU = "kvm"
"""Guests of it have their host's processors as they are, and do not go on by others."""


def begun(
    part: Part,
    states: Mapping[str, str],
    labels: Sequence[str],
    host: str,
    view: LedgerView,
    policy: Policy,
    *,
    copied: Collection[str] = (),
    now: datetime,
) -> Part | None:
    """The part with these workspaces, or all of it where none is named, on their way, each to the
    host that is named or to one that placement finds; None where all of them are already.

    Those that run go while they do, those that are put aside as they are. `states`: as hosts say,
    by label; of those `copied` an image is being made. All of them or none:
    ActionIllegal, AmendPending, LeaseEnding, NoCapacity with what is short, FieldInvalid."""
    _check_labels(labels, states)
    if host and host not in policy.hosts:
        raise FieldInvalid("host", f"{host} is no host of {policy.site}")
    on_the_way = {each.workspace: each.host for each in part.moving}
    wanted = [each for each in labels or states if on_the_way.get(each) is None]
    if not wanted:
        return None
    if part.keeping is not None:
        check_kept(part, view.seen.get(part.uid, {}), now=now)
    aside = dict.fromkeys(wanted, part.keeping is not None)
    for label in wanted:
        if part.keeping is None:
            _check_state(part, label, states[label], is_copied=label in copied)
            aside[label] = part.switch_of(label).power is Power.SAVED
        elif label in copied:
            stands = f"{states[label]} with a SNAPSHOT under way"
            raise ActionIllegal(Action.MIGRATE.name, label, stands, "")
    check_free_to_move(part, now=now)
    check_goes_whole(part, wanted)
    after = part
    spec = part.spec if part.keeping is None else only_kept(part.spec)
    window = Window(now, part.ends)
    for label in wanted:
        to = place_for(
            part, after, label, host, spec, window, view, policy, aside=aside[label], now=now
        )
        after = on_its_way(part, after, label, to, aside=aside[label], now=now)
    check_room(part, after, view, policy, now=now)
    return after


def check_kept(part: Part, seen: Mapping[str, SeenPart], *, now: datetime) -> None:
    """Of best-effort leases only what is put aside goes to another host, if this site goes on with
    it; of those with a deadline none."""
    if not is_kept(part, now=now):
        said = "MIGRATE is for best-effort leases only put aside, and for none with a deadline"
        raise FieldInvalid("action", said)
    if part.coordinator:
        raise FieldInvalid("action", "MIGRATE is not for what its coordinator goes on with")
    assert part.keeping is not None
    if part.keeping.promised is not None:
        raise FieldInvalid("action", "MIGRATE is not for what is promised room where it is")
    if not is_saved(part, seen):
        raise ActionIllegal(Action.MIGRATE.name, part.name, "being saved", "")


def check_goes_whole(part: Part, labels: Collection[str]) -> None:
    """Disks beside the root disk stay where they are, and so does who has any."""
    for each in part.spec.workspaces:
        if each.disks and each.label in labels:
            raise FieldInvalid(
                "action",
                f"MIGRATE does not take along data sets and volumes, and {each.label} has "
                f"{', '.join(disk.name for disk in each.disks)}; it stays where it is",
            )


def check_free_to_move(part: Part, *, now: datetime) -> None:
    """AmendPending, LeaseEnding."""
    if part.amend is not None or part.shed or part.left:
        raise AmendPending(part.name)
    if part.ends - now < LAST_MINUTES:
        raise LeaseEnding(part.name, part.ends.isoformat(timespec="seconds"))


def on_its_way(
    before: Part, part: Part, label: str, host: str, *, aside: bool, now: datetime
) -> Part:
    """`before`: as its hosts were told last."""
    if aside and (keeping := counted_till(part, now).keeping) is not None:
        part = replace(part, keeping=replace(keeping, saved=True))
    number = before.generation + 1
    moving = Moving(workspace=label, host=host, number=number, since=now, aside=aside)
    unmoved = tuple(each for each in part.unmoved if each[0] != label)
    return replace(part, moving=(*part.moving, moving), unmoved=unmoved)


def only_kept(spec: PartSpec) -> PartSpec:
    """What is kept of it: disks, and as much disk again as there is memory."""
    roomy = with_room_for_memory(spec, 0)
    kept = tuple(
        replace(
            each,
            allocation=replace(
                each.allocation, vcpus=0, memory_mib=0, disk=DiskTerm(), nic=BandwidthTerm()
            ),
            disks=tuple(replace(disk, disk=DiskTerm()) for disk in each.disks),
        )
        for each in roomy.workspaces
    )
    networks = tuple(replace(each, pairs=()) for each in spec.networks)
    return replace(spec, workspaces=kept, networks=networks, links=())


def _check_labels(labels: Sequence[str], states: Mapping[str, str]) -> None:
    for position, label in enumerate(labels):
        if label not in states:
            known = ", ".join(sorted(states))
            raise FieldInvalid(f"workspaces[{position}]", f"there is no {label}; known: {known}")


def _check_state(part: Part, label: str, state: str, *, is_copied: bool) -> None:
    how = part.switch_of(label)
    legal, stands = allowed(state, how), standing(state, how)
    if is_copied:
        legal = tuple(each for each in legal if each not in (Action.SNAPSHOT, Action.MIGRATE))
        stands = f"{stands} with a SNAPSHOT under way"
    if how.power is Power.SAVED and state != WorkspaceState.SUSPENDED.name:
        # It goes as it is put aside, once it is.
        legal = tuple(each for each in legal if each is not Action.MIGRATE)
        stands = f"{stands} and {state} still"
    if Action.MIGRATE not in legal:
        names = ", ".join(each.name for each in legal)
        raise ActionIllegal(Action.MIGRATE.name, label, stands, names)


def place_for(
    before: Part,
    part: Part,
    label: str,
    host: str,
    spec: PartSpec,
    window: Window,
    view: LedgerView,
    policy: Policy,
    *,
    aside: bool,
    now: datetime,
) -> str:
    """By the placement of everything else, among hosts that can take a guest of its own one, and
    have what `spec` says of it over that window. `before` is what counts of the part already: what
    those take for which a place was found since is not free any more."""
    own = part.host_of(label)
    if host == own:
        raise FieldInvalid("host", f"{label} is on {host} already")
    calendar = calendar_of(view, policy)
    workspace = next(each for each in part.spec.workspaces if each.label == label)
    asked = workspace.environment.hypervisor
    # What another of them leaves is full of its group until it has left.
    leaving = {part.host_of(each.workspace) for each in part.moving}
    had, has = demands_of(before, policy.admission), demands_of(part, policy.admission)
    more = tuple(more_of(had, has, since=now))
    rooms = {
        name: Room(facts=facts, free=least(free - at_host(name, demand) for demand in more))
        for name, free in free_hosts(calendar, view, policy, window, now=now).items()
        for facts in (view.fleet.facts[name],)
        if name != own
        and name not in leaving
        and host in ("", name)
        and may_take(view.fleet.facts, own, name, asked, aside=aside)
    }
    if not rooms:
        said = f"{policy.site}: no other host is alive that {label} could go to as it is"
        raise NoCapacity((Shortfall(site=policy.site, resource="hosts", message=said),))
    fixed = {each.workspace: each.host for each in part.placed if each.workspace != label}
    fixed |= {each.workspace: each.host for each in part.moving}
    placed = place(spec, rooms, site=policy.site, fixed=fixed)
    return next(each.host for each in placed if each.workspace == label)


def may_take(
    facts: Mapping[str, HostFacts], here: str, there: str, asked: str, *, aside: bool
) -> bool:
    """A guest of that hypervisor may go from one to the other: both know how, and it goes on
    there."""
    source, target = facts.get(here), facts.get(there)
    if source is None or target is None or not (source.migrates and target.migrates):
        return False
    if aside and not (source.migrates_aside and target.migrates_aside):
        return False
    return _are_alike(source, target, asked)


def _are_alike(here: HostFacts, there: HostFacts, asked: str) -> bool:
    """A guest of that hypervisor that runs on one goes on on the other."""
    kind = asked
    if asked in ("", ANY_HYPERVISOR):
        kind = next(iter(here.hypervisors), "")
        if there.hypervisors[:1] != (kind,):
            return False
    if kind == _OWN_CPU and not here.cpu == there.cpu != "":
        return False
    return here.architecture == there.architecture


def check_room(
    before: Part, after: Part, view: LedgerView, policy: Policy, *, now: datetime
) -> None:
    """Both places count. What tenants may have is not the question: they get nothing more."""
    calendar = calendar_of(view, policy)
    had, has = demands_of(before, policy.admission), demands_of(after, policy.admission)
    short = [
        shortfall_of(policy.site, resource, wanted, available)
        for demand in more_of(had, has, since=now)
        for resource, wanted, available in calendar.shortfalls(demand)
        if not resource.startswith("tenant/")
    ]
    if short:
        raise NoCapacity(tuple(dict.fromkeys(short)))


# What is next


def next_of(
    part: Part, seen: Mapping[str, SeenPart], fleet: Fleet, *, now: datetime
) -> Part | None:
    """The part after what its hosts say; None while there is nothing to do."""
    after = part
    for each in part.moving:
        after = _after(after, each, seen, fleet.fenced, late=_is_late(part, each, now), now=now)
    return None if after is part else after


def until(part: Part) -> datetime | None:
    """When the time alone asks for something; None where it does not."""
    sending = _sending(part)
    moments = [
        each.since + (PREPARED_WITHIN if each.state is MovingState.PREPARING else SENT_WITHIN)
        for each in part.moving
        if each.state is MovingState.SENDING
        or (each.state is MovingState.PREPARING and part.host_of(each.workspace) not in sending)
    ]
    answering = all(each.state is MovingState.ANSWERING for each in part.moving)
    if part.vacating is not None and not answering:
        moments.append(part.vacating.broken_off)
    return min(moments, default=None)


def _after(
    part: Part,
    moving: Moving,
    seen: Mapping[str, SeenPart],
    fenced: Collection[str],
    *,
    late: str,
    now: datetime,
) -> Part:
    """`late`: why it is not waited for any longer; empty while it is."""
    source = part.host_of(moving.workspace)
    said, heard = _said(seen, source, moving), _said(seen, moving.host, moving)
    given = said is not None and said.outcome is MigrationOutcome.GIVEN
    taken = heard is not None and heard.outcome is MigrationOutcome.TAKEN
    if given or taken:
        return arrived(part, moving)
    if moving.state is MovingState.PREPARING:
        return _prepared(part, moving, heard, fenced, late=late, now=now)
    if source in fenced:
        # Nothing of it runs there, and nothing will. What may have come to run at the other host
        # without a word of it is taken away there before anything is begun elsewhere.
        return dropped(part, moving, f"host {source} was lost")
    if said is not None and said.outcome is MigrationOutcome.KEPT:
        return dropped(part, moving, moving.why)
    why = ""
    if moving.host in fenced:
        why = f"host {moving.host} was lost"
    elif said is not None and said.outcome is MigrationOutcome.FAILED:
        why = said.message
    elif now - moving.since >= SENT_WITHIN:
        why = f"not sent within {SENT_WITHIN.total_seconds():.0f} s"
    why = why or late
    if why and moving.state is MovingState.SENDING:
        why = why[:_LONGEST_WHY]
        return _with(part, moving, moving.move(MovingState.ANSWERING, now=now, why=why))
    return part


def _prepared(
    part: Part,
    moving: Moving,
    heard: SeenMigration | None,
    fenced: Collection[str],
    *,
    late: str,
    now: datetime,
) -> Part:
    """Nobody but the other host knows of it. It waits while its own sends another one of the part,
    as hosts send one at a time, and the time for that is not for waiting."""
    source = part.host_of(moving.workspace)
    for host in (moving.host, source):
        if host in fenced:
            return dropped(part, moving, f"host {host} was lost")
    is_ready = heard is not None and heard.outcome is MigrationOutcome.READY
    waits = source in _sending(part)
    if is_ready and not waits and not late:
        return _with(part, moving, moving.move(MovingState.SENDING, now=now))
    if heard is not None and heard.outcome is MigrationOutcome.FAILED:
        return dropped(part, moving, heard.message)
    if late:
        return dropped(part, moving, late)
    if now - moving.since >= PREPARED_WITHIN and not waits:
        why = f"not ready for it within {PREPARED_WITHIN.total_seconds():.0f} s"
        return dropped(part, moving, why)
    return part


def _is_late(part: Part, moving: Moving, now: datetime) -> str:
    """Why it is broken off, where it goes for another lease."""
    vacating = part.vacating
    if vacating is None or moving.aside:
        return ""
    if part.vacates_in_vain():
        return "another one of the lease stays"
    if now < vacating.broken_off:
        return ""
    if vacating.called_off:
        return "others need the room there, too"
    return "not there in time for the lease that it makes room for"


def _sending(part: Part) -> frozenset[str]:
    """Hosts that are told to send something of the part, or asked what became of it."""
    return frozenset(
        part.host_of(each.workspace)
        for each in part.moving
        if each.state is not MovingState.PREPARING
    )


def _said(seen: Mapping[str, SeenPart], host: str, moving: Moving) -> SeenMigration | None:
    report = seen.get(host)
    for each in report.workspaces if report is not None else ():
        found = each.migration
        if each.name == moving.workspace and found is not None and found.number == moving.number:
            return found
    return None


def _with(part: Part, before: Moving, after: Moving) -> Part:
    return replace(part, moving=tuple(after if each is before else each for each in part.moving))


def arrived(part: Part, moving: Moving) -> Part:
    """It is at the other host. What its own has of it counts until that has obeyed."""
    source = part.host_of(moving.workspace)
    return replace(
        part,
        placed=_placed_at(part.placed, moving),
        moving=tuple(each for each in part.moving if each is not moving),
        left=(*part.left, _left(part, moving, source)),
    )


def dropped(part: Part, moving: Moving, why: str) -> Part:
    """It stays where it is. What the other host has made for it counts until that has obeyed."""
    said = f"it was to go to {moving.host}, and stays: {why[:_LONGEST_WHY]}"
    others = (each for each in part.unmoved if each[0] != moving.workspace)
    return replace(
        part,
        moving=tuple(each for each in part.moving if each is not moving),
        unmoved=(*others, (moving.workspace, said)),
        left=(*part.left, _left(part, moving, moving.host)),
    )


def _left(part: Part, moving: Moving, host: str) -> Left:
    return Left(
        workspace=moving.workspace,
        host=host,
        generation=part.generation + 1,
        live=not moving.aside,
    )


def _placed_at(placed: tuple[Placed, ...], moving: Moving) -> tuple[Placed, ...]:
    return tuple(
        replace(each, host=moving.host) if each.workspace == moving.workspace else each
        for each in placed
    )
