"""What is to be done on this host: decided from what is wanted, known and seen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from intertie.common.actions import Power, Switched
from intertie.common.terms import Environment, OnIsolation, Readiness
from intertie.common.values import replace
from intertie.nodeagent.domain.failures import Attempts
from intertie.nodeagent.domain.migrating import Role
from intertie.nodeagent.domain.power import Button, Memory, MemoryMove
from intertie.nodeagent.domain.snapshot_note import SnapshotNote
from intertie.nodeagent.domain.standing import Standing
from intertie.nodeagent.domain.wanted import WantedPart, WantedWorkspace

STAGING_LEAD = timedelta(seconds=60)
"""How long before its window opens a part's images, disks and networks are made."""


class Phase(Enum):
    """Where a part is in its life, as this host sees it."""

    WAIT = "WAIT"
    STAGE = "STAGE"
    RUN = "RUN"
    KEEP = "KEEP"
    """It has no window now, and what its guests have in memory is kept for the next one."""
    OVER = "OVER"


NEXT_PHASE: dict[Phase, frozenset[Phase]] = {
    Phase.WAIT: frozenset({Phase.STAGE, Phase.OVER}),
    Phase.STAGE: frozenset({Phase.RUN, Phase.KEEP, Phase.OVER}),
    Phase.RUN: frozenset({Phase.KEEP, Phase.OVER}),
    Phase.KEEP: frozenset({Phase.STAGE, Phase.RUN, Phase.OVER}),
    Phase.OVER: frozenset(),
}
"""As time goes on and records of higher generations come, on a host that looks often enough."""


class DomainState(Enum):
    """What libvirt says of a guest."""

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    STALLED = "STALLED"
    """Paused by its emulator in a write to its disk, which the host's disk did not take."""
    STARTING = "STARTING"
    """Its emulator is there, as somebody asked for it, and it has not run yet."""
    ENDING = "ENDING"
    """Its emulator is about to be gone: the guest has switched itself off, or the emulator was
    told to end, also where the guest stood still."""
    IN_TRANSIT = "IN_TRANSIT"
    """It stands still for its last piece to be sent, or is on its way in; from a file, too."""
    SENT = "SENT"
    """Off, because all of it is at another host."""
    POWERED_OFF = "POWERED_OFF"
    """The guest switched itself off."""
    OFF = "OFF"
    """Not running, for any other reason."""


ALIVE = frozenset(
    {
        DomainState.RUNNING,
        DomainState.PAUSED,
        DomainState.STALLED,
        DomainState.STARTING,
        DomainState.ENDING,
        DomainState.IN_TRANSIT,
    }
)
"""A guest is there, and has terms that are in force."""


class WorkspaceState(Enum):
    """As intertie.api.cluster.v1.Workspace.State, by number."""

    PLANNED = 1
    STAGING = 2
    DEFINED = 3
    RUNNING = 4
    PAUSED = 5
    STOPPED = 6
    ENDED = 7
    FAILED = 8
    SUSPENDED = 9


class Step(Enum):
    """One thing to do for a workspace."""

    STAGE_IMAGE = "STAGE_IMAGE"
    """And its data sets."""
    MAKE_DISK = "MAKE_DISK"
    GROW_DISK = "GROW_DISK"
    MAKE_VOLUMES = "MAKE_VOLUMES"
    MAKE_SEED = "MAKE_SEED"
    DEFINE = "DEFINE"
    START = "START"
    RESUME = "RESUME"
    """After its disk had no room."""
    STOP = "STOP"
    PRESS = "PRESS"
    PAUSE = "PAUSE"
    GO_ON = "GO_ON"
    """After PAUSE, or after its memory was read back."""
    SAVE = "SAVE"
    KEEP = "KEEP"
    """What was saved, if it was to its end."""
    RESTORE = "RESTORE"
    DISCARD = "DISCARD"
    """What was saved."""
    SEND = "SEND"
    """To another host."""
    TAKE_IN = "TAKE_IN"
    """It came as it was put aside, and its host has given it up."""
    GIVE = "GIVE"
    """Its disk is put away: who has been sent is not started here again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What has to be remembered of a workspace."""

    ready_time: datetime | None = None
    powered_off: bool = False
    """The guest switched itself off and stays off."""
    boots: int = 0
    """Of its owner's, as of when it was last started."""
    starting: bool = False
    """It was begun to be started and was not seen to run yet, so that it is off says nothing."""
    paused: bool = False
    """By its owner's switch; who is paused otherwise is left alone."""
    was_ready: datetime | None = None
    """When it became ready, of one that stands still or is put aside: it need not say so again."""
    saved: MemoryMove | None = None
    restored: MemoryMove | None = None
    snapshot: SnapshotNote | None = None
    frozen: bool = False
    """Its file systems were begun to be frozen since it was last started, and it has not said since
    that they are thawed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPart:
    """A part as it is kept on the host's own disk."""

    wanted: WantedPart
    """Of the highest generation ever seen."""
    present: bool = True
    """Its record was there at the last listing."""
    notes: Mapping[str, Note] = field(default_factory=dict)
    """By workspace uid."""

    def note(self, uid: str) -> Note:
        return self.notes.get(uid, Note())

    def with_note(self, uid: str, note: Note) -> "KnownPart":
        return replace(self, notes={**self.notes, uid: note})


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """All that is kept on the host's own disk."""

    parts: Mapping[str, KnownPart]
    """By uid."""
    complete: bool = True
    """Every record of this host was read at least once: what is not here is not wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What is there of a workspace."""

    domain: DomainState | None = None
    image: bool = False
    data: bool = True
    """All of its data sets are here."""
    disk: bool = False
    small: bool = False
    """Its disk is smaller than it is to be, and its guest does not run."""
    volumes: bool = True
    """All of its volumes are."""
    seed: bool = False
    memory: Memory = Memory.NONE
    given: bool = False
    """It was given up to another host; False of one that no host is to send or take."""
    unsent: bool = False
    """It was tried to be sent, and is not tried again."""
    come: bool = False
    """All of it has come as it is put aside, and nobody has said yet that it is this host's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Every record of this host, at one moment."""

    parts: tuple[WantedPart, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Part uid to what is wrong: records that this agent does not understand."""
    standing: Standing = field(default_factory=Standing)


def merge(known: Mapping[str, KnownPart], listing: Listing) -> dict[str, KnownPart]:
    """What is known after a complete listing of the records.

    A record of a lower generation than one that was obeyed before changes nothing, nor does one
    that cannot be read. A part whose record is away is over, whatever it said.
    """
    by_uid = {part.uid: part for part in listing.parts}
    merged = {}
    for uid in {**known, **by_uid}:
        before, now = known.get(uid), by_uid.get(uid)
        if before is None:
            merged[uid] = KnownPart(wanted=by_uid[uid])
        elif now is None:
            merged[uid] = replace(before, present=uid in listing.unreadable)
        elif now.generation >= before.wanted.generation:
            merged[uid] = replace(before, wanted=now, present=True, notes=_kept(before, now))
        else:
            merged[uid] = replace(before, present=True)
    return merged


def _kept(before: KnownPart, now: WantedPart) -> Mapping[str, Note]:
    """Of workspaces that are still wanted: one that comes back later begins anew."""
    wanted = {workspace.uid for workspace in now.workspaces}
    return {uid: note for uid, note in before.notes.items() if uid in wanted}


def phase_of(part: KnownPart, *, now: datetime) -> Phase:
    """The window rules, even where nobody can be asked: at its end a part is over, or its guests
    are kept for a while. What is kept is so before a next window, too."""
    window, keep_until = part.wanted.window, part.wanted.keep_until
    if not part.present or part.wanted.gone:
        return Phase.OVER
    if now >= window.end:
        return Phase.KEEP if keep_until is not None and now < keep_until else Phase.OVER
    if now >= window.start:
        return Phase.RUN
    if now >= window.start - STAGING_LEAD:
        return Phase.STAGE
    return Phase.WAIT if keep_until is None else Phase.KEEP


def must_stop(workspace: WantedWorkspace, *, last_contact: datetime, now: datetime) -> bool:
    """A workspace with `on_isolation: STOP` is stopped `stop_after` after the last contact."""
    term = workspace.allocation.availability
    return term.on_isolation is OnIsolation.STOP and now - last_contact >= term.stop_after


def steps(
    phase: Phase,
    seen: Observed,
    note: Note,
    switched: Switched,
    *,
    isolated: bool,
    button: Button = Button.FREE,
    keeps: bool = False,
    role: Role | None = None,
    goes_aside: bool = False,
) -> tuple[Step, ...]:
    """What is missing, in the order in which it has to be made.

    A guest that runs is never touched, but for one that must be stopped or that its owner has
    switched otherwise (its terms are another matter: `guest_terms`); one that is paused was
    paused by somebody on purpose, unless its disk is what it waits for. Each start is from the
    newest description. A part that `keeps` what its guests have in memory has none of them run
    outside its window, and nothing is started nor thrown away there. One that is between two hosts
    is started by none of them, also of one that `goes_aside`.
    """
    held = phase in (Phase.STAGE, Phase.RUN, Phase.KEEP)
    if seen.come and held and role is not Role.TAKE:
        return (Step.TAKE_IN,)
    if role is not None and goes_aside and held:
        return _goes_aside(role, seen, isolated=isolated)
    if role is not None and phase is Phase.RUN:
        return _between_hosts(role, seen, isolated=isolated)
    if seen.domain is DomainState.IN_TRANSIT:
        # As one that was read back and not let go on yet, or that is not sent any more.
        note = replace(note, paused=note.paused or seen.memory is Memory.NONE)
        seen = replace(seen, domain=DomainState.PAUSED)
    if seen.domain in ALIVE:
        aside = phase is Phase.KEEP or (keeps and phase is Phase.STAGE)
        return _while_it_runs(seen, note, switched, isolated=isolated, button=button, aside=aside)
    if not held:
        return ()
    if seen.memory is Memory.SAVING:
        return (Step.KEEP,)
    if phase is Phase.KEEP:
        return ()
    anew = note.boots != switched.boots
    runs = phase is Phase.RUN and not isolated
    needed: list[Step] = []
    if seen.memory is not Memory.NONE:
        if seen.memory is Memory.SAVED and not anew and switched.power is not Power.OFF:
            if not runs or switched.power is Power.SAVED:
                return ()
            if not seen.data:
                return (Step.STAGE_IMAGE,)
            # One that is to stand still does so once it runs. On a host that it has come to nobody
            # has told libvirt of it, which would forget it as soon as it is off.
            return (Step.RESTORE,) if seen.domain is not None else (Step.DEFINE, Step.RESTORE)
        needed.append(Step.DISCARD)
    if not seen.data or not (seen.disk or seen.image):
        return (*needed, Step.STAGE_IMAGE)
    if not seen.disk:
        needed.append(Step.MAKE_DISK)
    elif seen.small:
        needed.append(Step.GROW_DISK)
    if not seen.volumes:
        needed.append(Step.MAKE_VOLUMES)
    if not seen.seed:
        needed.append(Step.MAKE_SEED)
    # One that stood still has not switched itself off: its emulator was ended.
    itself = seen.domain is DomainState.POWERED_OFF and not note.paused
    switched_off = note.powered_off or itself
    starts = runs and (
        (anew and switched.power is not Power.OFF)
        or (switched.power is Power.ON and (note.starting or not switched_off))
    )
    if starts or seen.domain is None:
        needed.append(Step.DEFINE)
    if starts:
        needed.append(Step.START)
    return tuple(needed)


def _between_hosts(role: Role, seen: Observed, *, isolated: bool) -> tuple[Step, ...]:
    if seen.domain in ALIVE and isolated:
        return (Step.STOP,)
    if role is Role.TAKE:
        if seen.domain is not None:
            return ()
        if not seen.disk and not seen.image:
            return (Step.STAGE_IMAGE,)
        missing = () if seen.disk else (Step.MAKE_DISK,)
        return missing if seen.seed else (*missing, Step.MAKE_SEED)
    if seen.domain is DomainState.SENT:
        return () if seen.given else (Step.GIVE,)
    if seen.domain is DomainState.IN_TRANSIT:
        # Whoever was sending it is no more, and the copy goes on only once this host has given up.
        return (Step.GO_ON,)
    if role is Role.SEND and seen.domain is DomainState.RUNNING and not seen.unsent:
        return (Step.SEND,)
    return ()


def _goes_aside(role: Role, seen: Observed, *, isolated: bool) -> tuple[Step, ...]:
    if role is Role.TAKE:
        if seen.domain is not None or seen.disk or seen.seed:
            return ()
        return (Step.MAKE_SEED,) if seen.image else (Step.STAGE_IMAGE,)
    if seen.domain in ALIVE and isolated:
        return (Step.STOP,)
    return (Step.SEND,) if role is Role.SEND and goes_as_it_is(seen) and not seen.unsent else ()


def goes_as_it_is(seen: Observed) -> bool:
    """Nothing of it runs, and it could be gone on with from what is on the disk."""
    kept = seen.memory in (Memory.SAVED, Memory.NONE)
    return seen.domain not in ALIVE and seen.disk and kept


def _while_it_runs(
    seen: Observed,
    note: Note,
    switched: Switched,
    *,
    isolated: bool,
    button: Button,
    aside: bool,
) -> tuple[Step, ...]:
    if isolated:
        return (Step.STOP,)
    if seen.domain is DomainState.STARTING:
        return ()
    off = switched.power is Power.OFF
    # One that is to start anew does so in its next window, if it is put aside now.
    anew = note.boots != switched.boots and not aside
    away = aside or switched.power is Power.SAVED
    if seen.domain is DomainState.PAUSED and not off and not anew:
        if seen.memory is Memory.SAVED and away:
            return (Step.STOP,)  # it was not let go on, so what is saved is as good as before
        if seen.memory in (Memory.SAVED, Memory.RESTORING) and not away:
            return (Step.GO_ON,)
    # What is saved of a guest that runs is older than its disk.
    old = () if seen.memory in (Memory.NONE, Memory.SAVING) else (Step.DISCARD,)
    running = seen.domain in (DomainState.RUNNING, DomainState.ENDING)
    if off or anew:
        if not running or button is Button.IGNORED:
            return (*old, Step.STOP)
        return (*old, Step.PRESS) if button is Button.FREE else old
    match Power.SAVED if away else switched.power:
        case Power.SAVED:
            return (*old, Step.SAVE)
        case Power.PAUSED if running:
            return (*old, Step.PAUSE)
        case Power.ON if seen.domain is DomainState.STALLED:
            return (*old, Step.RESUME)
        case Power.ON if note.paused and not running:
            return (*old, Step.GO_ON)
    return old


def lateness(environment: Environment, waited_s: float) -> str:
    """Why a guest that has run for so long without being ready has failed; empty while it may
    still take its time. No limit is known of what an older broker has asked for."""
    limit = environment.ready_within
    if not limit or waited_s < limit.total_seconds():
        return ""
    silent = {
        Readiness.CHANNEL: ": it wrote nothing to org.intertie.ready.0",
        Readiness.GUEST_AGENT: ": its guest agent does not answer",
    }
    why = silent.get(environment.readiness, "")
    return f"not ready within {limit.total_seconds():g} s of its start{why}"


def state_of(
    phase: Phase,
    seen: Observed,
    note: Note,
    switched: Switched,
    *,
    isolated: bool,
    attempts: Attempts,
    late: bool = False,
) -> WorkspaceState:
    """How a workspace is reported. `late`: it runs, and should have been ready by now."""
    if phase is Phase.OVER:
        return WorkspaceState.ENDED
    if seen.domain in (DomainState.RUNNING, DomainState.ENDING):
        return WorkspaceState.FAILED if late else WorkspaceState.RUNNING
    if seen.domain in (DomainState.PAUSED, DomainState.STALLED, DomainState.IN_TRANSIT):
        return WorkspaceState.PAUSED
    if seen.memory is Memory.SAVED:
        return WorkspaceState.SUSPENDED
    if attempts.is_failure:
        return WorkspaceState.FAILED
    if note.powered_off or seen.domain is DomainState.POWERED_OFF or (isolated and seen.domain):
        return WorkspaceState.STOPPED
    if seen.domain is not None:
        off = switched.power is not Power.ON
        return WorkspaceState.STOPPED if off else WorkspaceState.DEFINED
    begun = phase in (Phase.STAGE, Phase.RUN)
    return WorkspaceState.STAGING if begun else WorkspaceState.PLANNED
