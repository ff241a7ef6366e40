"""Parts of leases over several sites that this site may put aside, and how they go on.

Their coordinator has no cluster here. The site shortens the window of one by itself, where it gives
way to a lease that does not wait, and says so in `recalled_end`; the number of its terms stays. The
coordinator then puts an end on record for all sites, the short way, and later a window in which it
goes on, the long way.
"""

from datetime import datetime, timedelta

from intertie.broker.domain.account import Account
from intertie.broker.domain.amounts import host_key, with_room_for_memory
from intertie.broker.domain.cluster import (
    PREEMPTED,
    WORKSPACE_FAILED,
    ClusterRecord,
    ClusterState,
    Waits,
)
from intertie.broker.domain.decision import Decision, OpenedReceipt, Outcome, check, remotes_of
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.difference import more_of, shortfalls_of
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.in_time import SLACK
from intertie.broker.domain.keeping import Keeping
from intertie.broker.domain.ledger import LedgerView, Versioned, calendar_of
from intertie.broker.domain.migrating import only_kept
from intertie.broker.domain.pace import Paces, paces_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.placed import hosts_of
from intertie.broker.domain.planning import Allotment, allot, free_hosts_over
from intertie.broker.domain.price import asked_for, shortened, until
from intertie.broker.domain.quotas import counted_for
from intertie.broker.domain.refusing import check_quotas
from intertie.broker.domain.stretch import Stretch
from intertie.broker.domain.stretches import LEAST, counted_till, is_saved, put_aside
from intertie.broker.domain.tariff import BEST_EFFORT, DEADLINE
from intertie.broker.domain.terms import Amend, AmendState
from intertie.broker.domain.usage import charged_when_on
from intertie.common.calendar import Calendar
from intertie.common.errors import DecisionInvalid, FieldInvalid, NoCapacity, Shortfall
from intertie.common.intervals import Window
from intertie.common.part_spec import PROMISED, PartSpec, Recallable
from intertie.common.spec import ClusterSpec, Kind, LeaseTerms
from intertie.common.values import replace

TOLD_WITHIN = timedelta(seconds=60)
"""One with a deadline is put aside only so long before its window's end: its coordinator, which may
just be another replica, is to tell its other sites before they take away what they have of it."""
_NEARLY = timedelta(seconds=1)
"""As exactly it is found until when there is disk."""


def as_lease(part: Part) -> Versioned[ClusterRecord]:
    """What there is of its cluster here, for who looks at leases that wait: it is on no record, so
    its revision is 0."""
    terms = _terms(part)
    lease = LeaseTerms(
        kind=Kind.BEST_EFFORT if terms.deadline is None else Kind.DEADLINE,
        duration=terms.ran + part.window.duration,
        deadline=terms.deadline,
        max_wait=terms.keep_for,
        cancellable=terms.cancellable,
    )
    record = ClusterRecord(
        name=part.spec.cluster,
        uid=part.spec.cluster_uid,
        spec=ClusterSpec(groups=(), networks=(), lease=lease),
        owner=part.owner,
        state=ClusterState.SCHEDULED,
        part=part.name,
        window=part.window,
        counts=(),
        cost=0.0,
        reasons=(),
        shortfalls=(),
        create_time=part.create_time,
        terms=part.terms,
        waits=Waits(since=part.create_time, images=(), ran=terms.ran),
    )
    return Versioned(value=record, revision=0)


def allotted(
    spec: PartSpec,
    view: LedgerView,
    policy: Policy,
    *,
    tenant: str,
    now: datetime,
    calendar: Calendar | None = None,
) -> Allotment:
    """Where a new part is that may be put aside: on hosts that have room for its memory on disk
    too, unless it is cancelled instead, and for all of it in the window that is promised to it.
    NoCapacity where they have not; of what is short for that promise alone the field is said to be
    `PROMISED`."""
    terms = spec.recallable
    assert terms is not None
    found = allot(spec, view, policy, tenant=tenant, now=now, calendar=calendar)
    if not _is_kept(terms):
        return found
    roomy = with_room_for_memory(found.spec, policy.queue.pool_mib_s)
    if (promised := terms.promised) is None:
        fits = allot(roomy, view, policy, tenant=tenant, now=now, calendar=calendar)
        return replace(fits, spec=found.spec)
    calendar = calendar or calendar_of(view, policy)
    windows = (spec.window, promised)
    kept = Window(spec.window.start, promised.end)
    free = free_hosts_over(calendar, view, policy, windows, kept, now=now)
    try:
        fits, _ = (
            allot(
                replace(roomy, window=each),
                view,
                policy,
                tenant=tenant,
                now=now,
                calendar=calendar,
                free=free,  # the same in both, and so it is placed the same
            )
            for each in windows
        )
        if spec.window.end < promised.start:
            idle = replace(only_kept(found.spec), window=Window(spec.window.end, promised.start))
            check_quotas(idle, fits.placed, "", calendar, policy, tenant)
        restore = paces_of(view, policy).restore(fits.spec, fits.placed)
        if spec.window.duration + restore + SLACK > promised.duration:
            raise NoCapacity((_says(policy.site, f"to go on takes {restore}, it has less time"),))
    except NoCapacity as error:
        raise NoCapacity(
            tuple(replace(each, field=PROMISED) for each in error.shortfalls)
        ) from None
    return replace(fits, spec=found.spec)


def keeping_of(found: Allotment, view: LedgerView, policy: Policy) -> Keeping | None:
    """Of a new part: what putting it aside takes. None: its site may not."""
    terms = found.spec.recallable
    if terms is None:
        return None
    pool = policy.queue.pool_mib_s
    if not _is_kept(terms):
        return Keeping(mib_s=pool, save=timedelta())
    save = paces_of(view, policy).save(found.spec, found.placed)
    return Keeping(mib_s=pool, save=save, promised=terms.promised)


def kind_said(spec: PartSpec) -> str:
    """As which its owner is charged for it; empty: it says of no kind that it is."""
    if spec.recallable is None:
        return ""
    return BEST_EFFORT if spec.recallable.deadline is None else DEADLINE


def recalled(
    part: Part,
    record: ClusterRecord,
    at: datetime,
    paces: Paces,
    policy: Policy,
    *,
    now: datetime,
) -> Part | None:
    """The part as its site puts it aside, `at` and not before now. Of one with a deadline None
    where what is left would not fit into what is promised to it, where its other sites may not
    hear of it before their windows are over, and where it is to be put aside already: how much is
    left then its window does not say."""
    after = put_aside(part, record, at, paces, policy, now=now)
    if (promised := _terms(part).promised) is None:
        return after
    keeping, had = after.keeping, part.keeping
    assert keeping is not None
    assert had is not None
    end = after.window.end
    ran = max(end - part.window.start - had.restore, timedelta())
    left = part.window.duration - had.restore - ran
    if (
        now < part.window.start
        or had.until is not None
        or part.window.end < max(end + keeping.save, now + TOLD_WITHIN)
        or left + keeping.again + SLACK > promised.duration
    ):
        return None
    return replace(after, keeping=replace(keeping, until=promised.end))


def not_after_recall(part: Part, asked: PartSpec) -> PartSpec:
    """What is asked for, with an end no later than the one that the site has recalled it to.

    Its coordinator could not know of that when it put an end on record. The terms take their
    number here, for later ones follow on them; the earlier end is agreed on next.
    """
    end = part.window.end
    if part.recalled_end is None or asked.window.end <= end or asked.window.start >= end:
        return asked
    return replace(asked, window=Window(asked.window.start, end))


def put_aside_as_agreed(
    part: Part, decision: Decision, asked: PartSpec, view: LedgerView, policy: Policy, now: datetime
) -> Part:
    """The part with the end that its coordinator has put on record for all sites, no later than the
    one that it has. What it has is kept from then on, for as long as there is disk for it, and at
    least until what it had was to end."""
    terms, keeping, end = _terms(part), part.keeping, asked.window.end
    assert keeping is not None
    after = replace(
        part,
        spec=asked,
        terms=part.terms + 1,
        tx=decision.tx,
        digest=decision.digest,
        price=until(part.price, end),
        recalled_end=None,
    )
    if terms.cancellable:
        return replace(after, end_reason=PREEMPTED)
    promised = keeping.promised
    paces, reserved = paces_of(view, policy), promised.end if promised is not None else part.ends
    # It is heard of late, and memory is saved from now on: as far as that is counted already, for
    # others may have been promised what comes after. What is late counts as late.
    save = max(now - end, timedelta()) + paces.save(part.spec, part.placed)
    counted = part.window.end + (keeping.save if keeping.until is not None else timedelta())
    last = end + min(terms.keep_for, policy.queue.longest_wait)
    if promised is not None:
        last = reserved  # for which there is room on record since it was held
    after = replace(
        after,
        keeping=replace(
            keeping,
            save=min(save, counted - end),
            again=paces.restore(part.spec, part.placed),
            until=min(last, reserved),
        ),
    )
    return _longest(after, last, view, policy) if last > reserved else after


def held_again(
    part: Part,
    spec: PartSpec,
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
) -> tuple[Keeping, Stretch]:
    """What one that is put aside takes in a later window, on the hosts that have what was saved.
    NoCapacity where there is no room, or not all is saved; FieldInvalid for any other terms."""
    _check_goes_on(part, spec)
    site = policy.site
    if not is_saved(part, view.seen.get(part.uid, {})):
        raise NoCapacity((_says(site, "what it had in memory is still being saved"),))
    alive = {facts.host for facts in view.fleet.alive(now=now)}
    if silent := [each for each in part.hosts() if each not in alive]:
        raise NoCapacity((_says(site, f"{silent[0]} has it, and is silent"),))
    paces = paces_of(view, policy)
    keeping = _goes_on(part, spec, paces, policy)
    after = replace(part, spec=spec, keeping=keeping)
    before = demands_of(counted_till(part, now), policy.admission)
    more = more_of(before, demands_of(after, policy.admission), since=spec.window.start)
    if short := shortfalls_of(site, calendar_of(view, policy), more):
        raise NoCapacity(short)
    runs = Window(spec.window.start + keeping.restore, spec.window.end)
    price = asked_for(replace(spec, window=runs), view, policy, now=now, kind=kind_said(spec))
    return keeping, price


def went_on(
    part: Part,
    amend: Amend,
    decision: Decision,
    receipts: tuple[OpenedReceipt, ...],
    account: Account | None,
    *,
    now: datetime,
) -> Part:
    """The part after a decision on the window that is held for it."""
    check(part, decision, receipts, amend)
    if decision.outcome is Outcome.ABORT:
        return part.let_go(AmendState.RELEASED)
    if not part.bound:
        raise DecisionInvalid(f"{part.name} is HELD for {amend.tx}, it was never prepared")
    amend.move(AmendState.APPLIED)
    price = part.price if amend.price is None else (*part.price, amend.price)
    after = replace(
        part,
        spec=amend.spec,
        keeping=amend.keeping,
        terms=amend.replaces + 1,
        tx=amend.tx,
        digest=amend.digest,
        participants=amend.participants,
        decide_by=amend.decide_by,
        endpoints=amend.endpoints,
        remotes=remotes_of(part, receipts, part.path.site),
        charged=charged_when_on(part, account, now=amend.spec.window.start),
        price=shortened(price, account),
        recalled_end=None,
        amend=None,
    )
    if now >= part.ends:
        # Its hosts went by the end that they knew: nothing of it is left to go on with.
        return after.ending(now=now, reason=WORKSPACE_FAILED)
    return after


def _terms(part: Part) -> Recallable:
    assert part.spec.recallable is not None
    return part.spec.recallable


def _is_kept(terms: Recallable) -> bool:
    """Where it is put aside."""
    return terms.may_be_put_aside and not terms.cancellable


def _goes_on(part: Part, spec: PartSpec, paces: Paces, policy: Policy) -> Keeping:
    """Where going on takes longer than its coordinator was told, so much of it is missed."""
    terms = spec.recallable
    assert terms is not None
    save, restore = (of(part.spec, part.placed) for of in (paces.save, paces.restore))
    restore = min(restore, max(spec.window.duration - LEAST, timedelta()))
    return Keeping(
        mib_s=policy.queue.pool_mib_s,
        save=save if _is_kept(terms) else timedelta(),
        restore=restore,
        promised=terms.promised,
    )


def _check_goes_on(part: Part, spec: PartSpec) -> None:
    was, terms = part.spec, _terms(part)
    if not terms.put_aside:
        raise FieldInvalid(
            "spec.window", "of a part that may be recalled, and was not put aside, is not moved"
        )
    gets = spec.recallable
    if gets is None or gets.put_aside:
        raise FieldInvalid("spec.recallable", "is that of a part that is put aside; it is to go on")
    if gets.deadline != terms.deadline or gets.promised not in (terms.promised, None):
        raise FieldInvalid(
            "spec.recallable", "has another deadline, or promise, than was agreed on"
        )
    if spec.window.start < was.window.end:
        raise FieldInvalid("spec.window.start_time", "is in the window before; give a later one")
    if replace(spec, window=was.window, recallable=terms) != was:
        raise FieldInvalid("spec", "goes on as it was; only its window may be another")


def _longest(part: Part, last: datetime, view: LedgerView, policy: Policy) -> Part:
    """Kept until `last`, or as long as there is disk, and its tenant may have it: what it takes
    until now is counted."""
    calendar, keeping = calendar_of(view, policy), part.keeping
    assert keeping is not None
    assert keeping.until is not None
    host_of = hosts_of(part.placed)
    wanted: dict[str, int] = {}
    for each in with_room_for_memory(part.spec, keeping.mib_s).workspaces:
        key = host_key(host_of[each.label], "disk_mib")
        wanted[key] = wanted.get(key, 0) + each.disk_mib
    wanted |= counted_for(part.path.tenant, policy.admission, wanted)

    def free(at: datetime) -> bool:
        window = Window(reserved, at)
        return all(calendar.free(key, window) >= amount for key, amount in wanted.items())

    reserved = low = keeping.until
    high = last
    if free(high):
        low = high
    while high - low > _NEARLY:
        middle = low + (high - low) / 2
        low, high = (middle, high) if free(middle) else (low, middle)
    return replace(part, keeping=replace(keeping, until=low))


def _says(site: str, message: str) -> Shortfall:
    return Shortfall(site=site, resource="hosts", message=f"{site}: {message}")
