"""What was agreed that a part costs: stretch by stretch, each with the terms and the rates of its
time. What is past stays as it was agreed.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from intertie.broker.domain.account import Account
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.load import load_of
from intertie.broker.domain.stretch import Stretch
from intertie.broker.domain.tariff import kind_of
from intertie.common.intervals import Window
from intertie.common.part_spec import PartSpec, Transfer
from intertie.common.price import PriceTerm
from intertie.common.quantities import Vector
from intertie.common.tariff import (
    RATES,
    Rates,
    RoomMade,
    hours_of,
    part_hour,
    room_made,
    room_of,
    rooms_together,
    taken_by,
)
from intertie.common.values import replace

MOST = 100
"""Stretches of a part, some 40 kB, of which those count that no record has yet or not."""


def asked_for(
    spec: PartSpec,
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
    kind: str = "",
    free: Vector | None = None,
) -> Stretch:
    """What the site asks for the part if it is agreed on now; its disks have their caps. `view` has
    not got it yet: it makes itself no dearer. `free`: where others make room for it, what there is
    while nobody does."""
    kind = kind or kind_of(spec.window, now=now)
    rates = policy.pricing.rates(
        kind, spec.window, lambda: load_of(view, policy, spec.window, now=now)
    )
    room = room_made(rates, taken_by(spec), free) if free is not None else None
    return stretch_of(spec.window, kind, rates, spec, room)


def stretch_of(
    window: Window, kind: str, rates: Rates, spec: PartSpec, room: RoomMade | None = None
) -> Stretch:
    """What is asked for the part over the window, at these rates; `room` is of an hour."""
    hour = part_hour(rates, spec) + (room.amount if room is not None else 0.0)
    return Stretch(window=window, kind=kind, rates=rates, hour=hour, room=room)


def asked_for_rest(
    agreed: Sequence[Stretch],
    before: PartSpec,
    spec: PartSpec,
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
) -> tuple[Stretch, ...]:
    """What is asked now for other terms from now on, in the place of those before; its kind of
    lease stays, and so does what others have made room for."""
    rest = replace(spec, window=Window(max(spec.window.start, now), spec.window.end))
    asked = asked_for(rest, view, policy, now=now, kind=agreed[-1].kind if agreed else "")
    return with_rooms((asked,), spec, rooms_kept(agreed, before, spec))


Room = tuple[int, int]
"""vCPUs and MiB of memory that others make room for."""


def rooms_kept(
    agreed: Sequence[Stretch], before: PartSpec, spec: PartSpec
) -> tuple[tuple[Window, Room], ...]:
    """What a part with other terms still has of the room that others made for it, at any time: of
    less than before, that is what it has no more first."""
    less = (taken_by(before) - taken_by(spec)).at_least_zero()
    return tuple(
        (
            each.window,
            (max(each.room.vcpus - less.vcpus, 0), max(each.room.memory_mib - less.memory_mib, 0)),
        )
        for each in agreed
        if each.room is not None
    )


def with_rooms(
    asked: Sequence[Stretch], spec: PartSpec, rooms: Sequence[tuple[Window, Room]]
) -> tuple[Stretch, ...]:
    """What is asked for the part, all of it at the same rates, with all that others make room for
    at each time."""
    first, whole = asked[0], Window(asked[0].window.start, asked[-1].window.end)
    inside = {
        moment
        for window, _ in rooms
        for moment in (window.start, window.end)
        if whole.start < moment < whole.end
    }
    cuts: list[tuple[datetime, Room]] = []
    """Each with the moment at which it begins."""
    for moment in sorted({whole.start, *inside}):
        there = [room for window, room in rooms if window.contains(moment)]
        room = sum(vcpus for vcpus, _ in there), sum(memory for _, memory in there)
        if not cuts or cuts[-1][1] != room:
            cuts.append((moment, room))
    ends = [*(moment for moment, _ in cuts[1:]), whole.end]
    return tuple(
        stretch_of(Window(begin, end), first.kind, first.rates, spec, room_of(first.rates, *room))
        for (begin, room), end in zip(cuts, ends, strict=True)
    )


def sent_for(transfers: Iterable[Transfer], rates: Rates, kind: str) -> tuple[Stretch, ...]:
    """What the site's half of the link costs for each of them, whichever way it goes."""
    return tuple(
        Stretch(
            window=each.window,
            kind=kind,
            rates=rates,
            hour=rates.hour(Vector(), link_mbit_s=each.mbit_s),
        )
        for each in transfers
    )


def from_now_on(spec: PartSpec, *, now: datetime) -> PartSpec:
    """Of a part that joins a cluster that stands: nobody pays for what was before."""
    window = Window(min(max(spec.window.start, now), spec.window.end), spec.window.end)
    return replace(spec, window=window)


def applied(
    agreed: Sequence[Stretch], spec: PartSpec, asked: Iterable[Stretch], *, now: datetime
) -> tuple[Stretch, ...]:
    """With other terms in force from now on, as they were asked for: the past stays at the old
    price, but for what is after an end that is heard of late. A part of a release that knew no
    prices gets one for what is to come."""
    start = max(spec.window.start, min(now, spec.window.end))
    found = list(until(agreed, start))
    for each in asked:
        end = min(each.window.end, spec.window.end)
        if start < end:
            found.append(replace(each, window=Window(start, end)))
            start = end
    return tuple(found)


def amended(
    agreed: Sequence[Stretch],
    before: PartSpec,
    spec: PartSpec,
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
) -> tuple[Stretch, ...]:
    """With other terms that are asked for and in force at once."""
    asked = asked_for_rest(agreed, before, spec, view, policy, now=now)
    return applied(agreed, spec, asked, now=now)


def at_agreed_rates(
    agreed: Sequence[Stretch], before: PartSpec, spec: PartSpec, *, now: datetime
) -> tuple[Stretch, ...]:
    """With terms that take nothing more than those before, for which nobody was asked, or that
    their owner has not asked for: at the rates there are."""
    if not agreed:
        return ()
    last = replace(agreed[-1], window=spec.window)
    asked = with_rooms((last,), spec, rooms_kept(agreed, before, spec))
    return applied(agreed, spec, asked, now=now)


def shortened(agreed: Sequence[Stretch], account: Account | None) -> tuple[Stretch, ...]:
    """As many as a part is to carry: the oldest are made one, at the mean of their rates, as long
    as all of them is written down. What they cost together, and what any time costs that no record
    has yet, stays as it is."""
    rest = tuple(agreed)
    written = account.until if account else None
    while len(rest) > MOST and written is not None and rest[1].window.end <= written:
        rest = (_together(*rest[:2]), *rest[2:])
    return rest


def sent_shortened(sent: Sequence[Stretch], account: Account | None) -> tuple[Stretch, ...]:
    """As many as a part is to carry, likewise: what the oldest cost stays as it is."""
    rest = tuple(sorted(sent, key=lambda each: (each.window.end, each.window.start)))
    written = account.until if account else None
    while len(rest) > MOST and written is not None and rest[1].window.end <= written:
        rest = (_of_both(*rest[:2]), *rest[2:])
    return rest


def _of_both(one: Stretch, other: Stretch) -> Stretch:
    """They may lie apart, or at the same time."""
    start = min(one.window.start, other.window.start)
    window = Window(start, other.window.end)
    return replace(other, window=window, hour=amount_of((one, other)) / hours_of(window))


def _together(one: Stretch, other: Stretch) -> Stretch:
    window = Window(one.window.start, other.window.end)
    shares = [(each, each.window.duration / window.duration) for each in (one, other)]
    rates = {name: sum(getattr(each.rates, name) * part for each, part in shares) for name in RATES}
    return Stretch(
        window=window,
        kind=other.kind,
        rates=Rates(**rates),
        hour=sum(each.hour * part for each, part in shares),
        room=rooms_together(each.room and each.room.times(part) for each, part in shares),
    )


def until(agreed: Iterable[Stretch], end: datetime) -> tuple[Stretch, ...]:
    """With nothing to pay from then on."""
    return tuple(
        replace(each, window=Window(each.window.start, min(each.window.end, end)))
        for each in agreed
        if each.window.start < end
    )


def amount_of(agreed: Iterable[Stretch], within: Window | None = None) -> float:
    """What they cost; of one that is cut by `within`, what is in it."""
    return sum(each.hour * hours_of(cut) for each in agreed if (cut := each.cut(within)))


def terms_of(
    agreed: Iterable[Stretch], site: str, within: Window | None = None
) -> tuple[PriceTerm, ...]:
    """As it is told; of one that is cut by `within`, what is in it."""
    return tuple(
        PriceTerm(
            site=site,
            window=cut,
            kind=each.kind,
            amount=each.hour * hours_of(cut),
            room=each.room and each.room.times(hours_of(cut)),
        )
        for each in sorted(agreed, key=lambda each: each.window.start)
        if (cut := each.cut(within))
    )
