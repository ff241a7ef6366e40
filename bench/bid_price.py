"""Whom to admit where not all can be: a price of what is scarce, learned from the load so far."""

from __future__ import annotations

from bisect import insort

FIRST = 20
"""So many requests are seen before anything is said of the load."""
FALL, RISE = 0.97, 1.001
"""Of the share of the capacity that can be filled, for each that was worth its price and had no
plan, and for each that had one: about one in thirty has none."""


class BidPrice:
    """Every request is worth something, and takes so much of the capacity for so long. Where all
    of those that were seen together take less than can be filled, all are let in. Else the ones
    that take the least for what they are worth are, so many that they can be: the price is what
    the last of them takes. Only what was asked for before counts, with how long it was asked for,
    as every lease says.
    """

    def __init__(self, capacity: float) -> None:
        self._capacity = capacity
        self._share = 1.0
        self._seen: list[tuple[float, float]] = []
        """By what they take for what they are worth, and what they take: capacity times hours."""
        self._first_h = self._last_h = 0.0

    def see(self, *, now_h: float, takes: float, worth: float) -> None:
        """A request, whether it is let in or not; `takes` at the least, times hours."""
        if not self._seen:
            self._first_h = now_h
        self._last_h = now_h
        insort(self._seen, (takes / worth if worth else 0.0, takes))

    def admits(self, *, takes: float, worth: float) -> bool:
        """Whether it is worth what it takes."""
        most = self._most()
        return most is None or takes <= most * worth

    def told(self, *, planned: bool) -> None:
        """What became of one that was admitted."""
        self._share = min(self._share * (RISE if planned else FALL), 1.0)

    def _most(self) -> float | None:
        """What may be taken for 1; None where there is room for all."""
        hours = self._last_h - self._first_h
        if len(self._seen) < FIRST or hours <= 0:
            return None
        # Between n arrivals are n - 1 spans.
        left = self._capacity * self._share * hours * len(self._seen) / (len(self._seen) - 1)
        for ratio, takes in self._seen:
            left -= takes
            if left < 0:
                return ratio
        return None
