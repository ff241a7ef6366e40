"""Who of those that wait over several sites starts in one round.

First come those that the backfilling lets start one after another, each by the best plan that
those before it leave. Then each that has found no room is looked at once more, in line: where one
of those that start could be placed otherwise and be as well off, and there is room for both then,
both start. So nobody starts later for it, nor do fewer; and nobody is worse off for somebody who
is behind.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from intertie.common.leasing.lease import Lease
from intertie.metasched.domain.rooms import Rooms
from intertie.metasched.domain.taken import Taken

MOST_SOLVED = 24
"""Problems that are solved in a round to find who else could start; what was begun is ended."""


@dataclass(frozen=True, slots=True)
class Start:
    lease: Lease
    leaves: tuple[Taken, ...] = ()
    """What those that start after it are to get. None where all start anyway, one after another."""


def round_of(line: Sequence[Lease], begun: Sequence[Lease], rooms: Rooms) -> list[Start]:
    """Those that start now, in line: `begun`, and who can beside them. `rooms`: of which `begun`
    have what they get."""
    starting = list(begun)
    left, owed = MOST_SOLVED, False
    for lease in line:
        if lease in begun or not starting:
            continue
        before, kept = rooms.solved, rooms.keeps(lease)
        # Who is last in line is moved first.
        others = [each for each in reversed(line) if each in starting]
        # What was kept for one that starts now may have been all that it lacked.
        joined = len(starting) > len(begun)
        if (joined and rooms.take_now(lease)) or rooms.take_beside(lease, others, left):
            starting.append(lease)
            owed = owed or kept
        elif owed and not kept:
            # What was kept for one that starts now is for the next one.
            owed = not _is_kept(lease, rooms)
        left -= rooms.solved - before
        if left <= 0:
            break
    starts = [each for each in line if each in starting]
    if len(starting) == len(begun):
        return [Start(each) for each in starts]
    plans = [rooms.taken_now(each) for each in starts]
    return [
        Start(each, tuple(plan for plan in plans[at + 1 :] if plan is not None))
        for at, each in enumerate(starts)
    ]


def _is_kept(lease: Lease, rooms: Rooms) -> bool:
    """Its earliest start from here on, if there is any within sight."""
    span_s = lease.left_s(0)
    at_s = rooms.earliest(lease, span_s, rooms.now_s)
    if at_s is None:
        return False
    rooms.hold(lease, at_s, at_s + span_s)
    return True
