"""The book's calendar as it would be with some parts otherwise."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from intertie.broker.domain.admission_policy import AdmissionPolicy
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.overlay import demand_key
from intertie.broker.domain.part import Part
from intertie.common.calendar import Calendar, Demand


@contextmanager
def counted_as(
    calendar: Calendar, parts: Mapping[str, Part], instead: Mapping[str, Part], by: AdmissionPolicy
) -> Iterator[None]:
    """The book's calendar as it would be with some parts otherwise; as it was, afterwards. Nothing
    else is decided meanwhile. Each part counts by its record: of none are other terms on their
    way."""
    before = {name: demands_of(parts[name], by) for name in instead}
    after = {name: demands_of(part, by) for name, part in instead.items()}
    _count(calendar, before, after)
    try:
        yield
    finally:
        _count(calendar, after, before)


def _count(
    calendar: Calendar,
    before: Mapping[str, Sequence[Demand]],
    after: Mapping[str, Sequence[Demand]],
) -> None:
    for name, demands in after.items():
        for number in range(len(before[name])):
            calendar.remove(demand_key(name, number))
        for demand in demands:
            calendar.add(demand)
