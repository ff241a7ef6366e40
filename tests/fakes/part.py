"""Parts of leases in memory, as `tests.fakes.site` has them."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from intertie.common.intervals import Window
from intertie.common.part_spec import PartSpec


class State(Enum):
    PREPARED = "PREPARED"
    CONFIRMED = "CONFIRMED"
    ENDED = "ENDED"
    RELEASED = "RELEASED"


COUNTED = frozenset({State.PREPARED, State.CONFIRMED})
GONE = frozenset({State.RELEASED})


@dataclass(slots=True, kw_only=True)
class FakeAmend:
    """Other terms, PREPARED."""

    tx: str
    digest: str
    replaces: int
    spec: PartSpec
    decide_by: datetime


@dataclass(slots=True, kw_only=True)
class FakePart:
    state: State
    spec: PartSpec
    tx: str
    digest: str
    decide_by: datetime
    end_reason: str = ""
    end_message: str = ""
    ending: bool = False
    terms: int = 0
    amend: FakeAmend | None = None
    recalled_end: datetime | None = None
    keep_until: datetime | None = None

    @property
    def ends(self) -> datetime:
        return self.keep_until or self.spec.window.end

    def vcpus(self) -> int:
        """Of each workspace the more of what is in force and what is prepared."""
        most: dict[str, int] = {}
        for spec in (self.spec, *((self.amend.spec,) if self.amend else ())):
            for each in spec.workspaces:
                most[each.label] = max(most.get(each.label, 0), each.allocation.vcpus)
        return sum(most.values())

    def overlaps(self, window: Window) -> bool:
        specs = [self.spec, *([self.amend.spec] if self.amend else [])]
        spans = [each.window for each in specs]
        spans += [
            each.recallable.promised
            for each in specs
            if each.recallable is not None and each.recallable.promised is not None
        ]
        return any(each.overlaps(window) for each in spans)

    def keep(self) -> None:
        """It was put aside: until when, or that it is over."""
        terms = self.spec.recallable
        assert terms is not None
        if terms.cancellable:
            self.end_reason = "PREEMPTED"
        else:
            promised = terms.promised
            self.keep_until = promised.end if promised else self.spec.window.end + terms.keep_for
