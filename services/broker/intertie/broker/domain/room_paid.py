"""What a lease has of the site because others give way for it."""

from collections.abc import Sequence
from datetime import datetime

from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView, calendar_of, free_hosts
from intertie.broker.domain.price import Room, rooms_kept
from intertie.broker.domain.stretch import Stretch
from intertie.common.calendar import Calendar
from intertie.common.intervals import Window
from intertie.common.part_spec import PartSpec
from intertie.common.quantities import Vector
from intertie.common.tariff import taken_by


def asks_for_room(policy: Policy) -> bool:
    """Whether others' room costs anything here: else nobody need look at what is free without."""
    tariff = policy.pricing.tariff
    return any(each.ask_for_room_made for each in (tariff.rates, *tariff.kinds.values()))


def free_together(
    calendar: Calendar, view: LedgerView, policy: Policy, window: Window, *, now: datetime
) -> Vector:
    """What all hosts have free over the window, each at its own busiest. With the calendar as it
    is, that is what a lease can have while nobody gives way for it: offers and prices go by it."""
    total = Vector()
    for free in free_hosts(calendar, view, policy, window, now=now).values():
        total = total + free.at_least_zero()
    return total


def rooms_of_more(
    agreed: Sequence[Stretch],
    before: PartSpec,
    spec: PartSpec,
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
) -> tuple[tuple[Window, Room], ...]:
    """What others make room for where they give way to other terms of a part: until its old end,
    what they made before and what it takes more than is free; after that, all that is not free
    then, whatever was before. `view` is from before they do."""
    calendar = calendar_of(view, policy)

    def beyond(taken: Vector, window: Window) -> Room:
        free = free_together(calendar, view, policy, window, now=now)
        return max(taken.vcpus - free.vcpus, 0), max(taken.memory_mib - free.memory_mib, 0)

    old, end = before.window.end, spec.window.end
    rooms = list(rooms_kept(agreed, before, spec))
    if (start := max(now, before.window.start)) < min(old, end):
        during = Window(start, min(old, end))
        rooms.append((during, beyond(taken_by(spec) - taken_by(before), during)))
    if end > old:
        then = Window(old, end)
        rooms.append((then, beyond(taken_by(spec), then)))
    return tuple(rooms)
