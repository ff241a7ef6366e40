"""Leases that wait and whose start was refused: when each is tried again."""

from dataclasses import dataclass

from intertie.common.clock import Clock
from intertie.common.errors import (
    EtcdUnavailable,
    LedgerFull,
    NoCapacity,
    NotLeading,
    Shortfall,
    StaleWrite,
)
from intertie.metasched.domain.planned import PlanUnsound
from intertie.metasched.domain.waiting import NOT_AS_OFFERED
from intertie.metasched.usecases.coallocate import Overtaken, Refused

FIRST_S = 2.0
LONGEST_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    length_s: float
    until_s: float
    """Monotonic."""
    why: str
    short: tuple[Shortfall, ...]
    """What sites said was short when they refused it last."""


class Pauses:
    """A start that is refused leaves records at its sites and in the register, and what sites offer
    need not say why. Each refusal doubles the pause before the next, up to 5 minutes. In memory:
    the next leader tries each at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._of: dict[str, Pause] = {}
        """By the cluster's uid."""

    def refused(self, uid: str, error: Exception) -> None:
        """But not where it only lost to another writer, or the store gave no answer."""
        if _says_nothing_of_it(error):
            return
        now, last = self._clock.monotonic(), self._of.get(uid)
        # Where it was not tried for so long, this is another story.
        self._of = {
            each: pause for each, pause in self._of.items() if now < pause.until_s + LONGEST_S
        }
        length_s = min(2 * last.length_s, LONGEST_S) if last and uid in self._of else FIRST_S
        self._of[uid] = Pause(
            length_s=length_s, until_s=now + length_s, why=_why(error), short=_short(error)
        )

    def begun(self, uid: str) -> None:
        self._of.pop(uid, None)

    def of(self, uid: str) -> Pause | None:
        """None: it may be tried now."""
        pause = self._of.get(uid)
        return pause if pause is not None and self._clock.monotonic() < pause.until_s else None


def _says_nothing_of_it(error: Exception) -> bool:
    away = isinstance(error, EtcdUnavailable) and not isinstance(error, LedgerFull)
    return away or isinstance(error, StaleWrite | NotLeading | Overtaken)


def _why(error: Exception) -> str:
    if isinstance(error, Refused | NoCapacity):
        return NOT_AS_OFFERED
    if isinstance(error, LedgerFull):
        # Without its figures: a record that tells of them would be written with each.
        return "the store of its meta-scheduler is short of room"
    if isinstance(error, PlanUnsound):
        return "its meta-scheduler could not plan it"
    return str(error)


def _short(error: Exception) -> tuple[Shortfall, ...]:
    errors = error.refusals.values() if isinstance(error, Refused) else (error,)
    found = [each for one in errors if isinstance(one, NoCapacity) for each in one.shortfalls]
    return tuple(dict.fromkeys(found))
