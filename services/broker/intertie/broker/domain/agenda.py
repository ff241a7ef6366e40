"""Which part is to be written down next, and when: known without looking at all of them."""

import heapq
from collections.abc import Iterable
from datetime import datetime

from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.usage import due_of


class Agenda:
    """By the moment at which each part's next period is to be written down."""

    def __init__(self) -> None:
        self._due: dict[str, datetime] = {}
        self._heap: list[tuple[datetime, str]] = []
        """With entries that hold no more, which are passed over."""

    def forget(self) -> None:
        self._due, self._heap = {}, []

    def look(self, view: LedgerView, names: Iterable[str]) -> None:
        """At parts that may have changed. What is no part is passed over."""
        for name in names:
            part, account = view.parts.get(name), view.accounts.get(name)
            due = None
            if part is not None:
                seen = view.seen.get(part.value.uid, {})
                due = due_of(part.value, account.value if account else None, seen)
            if due is None:
                self._due.pop(name, None)
            elif self._due.get(name) != due:
                self._due[name] = due
                heapq.heappush(self._heap, (due, name))

    def due(self, *, now: datetime, most: int) -> list[str]:
        """Names, the longest due first. They stay on the agenda until they are looked at again
        and are not due any more."""
        found: list[tuple[datetime, str]] = []
        while self._heap and self._heap[0][0] <= now and len(found) < most:
            entry = heapq.heappop(self._heap)
            if self._due.get(entry[1]) == entry[0] and entry not in found:
                found.append(entry)
        for entry in found:
            heapq.heappush(self._heap, entry)
        return [name for _, name in found]

    def __len__(self) -> int:
        return len(self._due)
