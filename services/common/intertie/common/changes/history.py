"""The changes of late, once for all who read them: a reader has a position in it, and no more."""

from collections.abc import Callable, Iterable, Sequence

from intertie.common.changes.positions import Position

MOST = 8192
MOST_WEIGHT = 24 << 20


class Shown:
    """A cluster as it was at one moment. Its message is made when it is first asked for, and what
    it is made of is kept only until then."""

    __slots__ = ("_make", "_octets", "name", "tenant", "uid", "weight")

    def __init__(
        self, *, name: str, uid: str, tenant: str, weight: int, make: Callable[[], bytes]
    ) -> None:
        """`weight`: octets of the records that it is made of."""
        self.name = name
        self.uid = uid
        self.tenant = tenant
        self.weight = weight
        self._make: Callable[[], bytes] | None = make
        self._octets = b""

    def octets(self) -> bytes:
        if self._make is not None:
            self._octets = self._make()
            self._make = None
        return self._octets


class Event:
    """What became of one cluster at one revision."""

    __slots__ = ("gone", "last", "revision", "shown")

    def __init__(self, revision: int, shown: Shown, *, gone: bool = False) -> None:
        self.revision = revision
        self.shown = shown
        """As it is from then on; of one that is gone, as it was last."""
        self.gone = gone
        self.last = False
        """Of its revision."""

    @property
    def at(self) -> Position:
        return Position(self.revision, self.shown.name)

    @property
    def behind(self) -> Position:
        return Position.behind(self.revision) if self.last else self.at


class History:
    """Bounded by number and weight. What it begins with moves on; what is older is forgotten for
    every reader."""

    def __init__(self, begin: int, *, most: int = MOST, most_weight: int = MOST_WEIGHT) -> None:
        """`begin`: the revision behind which it begins."""
        self.head = begin
        """Up to it, everything was taken."""
        self.begin = Position.behind(begin)
        """Whoever is not before it has missed nothing."""
        self.full = False
        """Something was forgotten: there is no sense in beginning earlier."""
        self._most = most
        self._most_weight = most_weight
        self._events: dict[int, Event] = {}
        self._first = 0
        self._weight = 0

    @property
    def end(self) -> Position:
        return Position.behind(self.head)

    def take(self, revision: int, events: Sequence[Event]) -> None:
        """All events of a revision that is later than any before, in the order of names."""
        if revision <= self.head:
            raise ValueError(f"revision {revision} after {self.head}")
        for number, each in enumerate(events, start=self._first + len(self._events)):
            self._events[number] = each
            self._weight += each.shown.weight
        if events:
            events[-1].last = True
        self.head = revision
        while len(self._events) > self._most or self._weight > self._most_weight:
            self._forget()

    def _forget(self) -> None:
        oldest = self._events.pop(self._first)
        self._first += 1
        self._weight -= oldest.shown.weight
        self.begin = oldest.behind
        self.full = True

    def covers(self, position: Position) -> bool:
        return position >= self.begin

    def after(self, position: Position, tenant: str, *, most: int) -> list[Event]:
        """The first ones behind a position that it covers, of one tenant, or of all."""
        found: list[Event] = []
        end = self._first + len(self._events)
        for number in range(self._index(position), end):
            event = self._events[number]
            if not tenant or event.shown.tenant == tenant:
                found.append(event)
                if len(found) == most:
                    break
        return found

    def _index(self, position: Position) -> int:
        low, high = self._first, self._first + len(self._events)
        while low < high:
            middle = (low + high) // 2
            if self._events[middle].at > position:
                high = middle
            else:
                low = middle + 1
        return low


def first_positions(events: Iterable[Event]) -> dict[str, Position]:
    """From where to look, for each tenant that something happened to; empty for those who read
    of all."""
    found: dict[str, Position] = {}
    for each in events:
        for tenant in (each.shown.tenant, ""):
            found.setdefault(tenant, Position(each.revision))
    return found
