"""Windows that a request does not allow, in which it is looked at all the same: later ones, and
shorter ones."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from intertie.common.intervals import Window
from intertie.metasched.domain.candidates import MOST_WINDOWS, TICK

SHORTER = 32
"""Parts of its duration that are tried, but for the whole."""
CLOSEST = timedelta(seconds=60)
"""Later starts are whole minutes."""


def later_than(
    windows: Sequence[Window], *, slot: timedelta, horizon: timedelta
) -> tuple[Window, ...]:
    """As long as the first of them, from after the last start up to the horizon ahead of that: as
    many as a site answers for in one call, no nearer to one another than a slot."""
    latest = max(each.start for each in windows)
    return _from(_steps(latest, latest + horizon, slot), windows[0].duration)


def between(before: datetime, window: Window) -> tuple[Window, ...]:
    """As long as the window, at whole minutes between that moment and its own start."""
    return _from(_steps(before, window.start - TICK, CLOSEST), window.duration)


def shorter_than(window: Window) -> tuple[Window, ...]:
    """From the same start, the longest first."""
    whole = window.duration
    return _lasting(window.start, [whole * part / SHORTER for part in range(SHORTER - 1, 0, -1)])


def between_durations(longer: Window, shorter: Window) -> tuple[Window, ...]:
    """The same, between the two, to the second or nearer."""
    steps, gap = MOST_WINDOWS, longer.duration - shorter.duration
    spans = [longer.duration - gap * step / steps for step in range(1, steps)]
    return tuple(
        each
        for each in _lasting(longer.start, spans)
        if shorter.duration < each.duration < longer.duration
    )


def _steps(after: datetime, until: datetime, least: timedelta) -> list[datetime]:
    """Whole minutes, evenly: later than the one, and no later than the other."""
    step = max((until - after) / (MOST_WINDOWS - 1), least)
    moments = (_whole(after + number * step) for number in range(1, MOST_WINDOWS))
    return [each for each in moments if after < each <= until]


def _from(starts: Iterable[datetime], duration: timedelta) -> tuple[Window, ...]:
    return tuple(Window(start, start + duration) for start in dict.fromkeys(starts))


def _lasting(start: datetime, spans: Iterable[timedelta]) -> tuple[Window, ...]:
    whole = dict.fromkeys(span // TICK * TICK for span in spans)
    return tuple(Window(start, start + span) for span in whole if span)


def _whole(moment: datetime) -> datetime:
    """The next whole minute, if it is none."""
    down = moment.replace(second=0, microsecond=0)
    return down if down == moment else down + CLOSEST
