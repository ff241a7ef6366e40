"""A site with a part that it may put aside, of a lease over several sites."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from intertie.broker.domain.giving_way import draft_before_others, writes_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.records import Change
from intertie.common.intervals import Window
from intertie.common.names import ClusterName, PartName
from intertie.common.part_spec import PartSpec, Recallable
from intertie.common.spec import LeaseTerms, normalise
from intertie.common.values import replace
from tests.fakes.clock import START
from tests.unit.broker.line import name_of, reports_of
from tests.unit.broker.renegotiation import META, Site
from tests.unit.broker.samples import POLICY, part_spec, workspace
from tests.unit.broker.standing import group, spec

HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
SAVE = RESTORE = 12 * SECOND
"""Of four times 128 MiB on a host, at 50 MiB/s, and the margin."""
NAME = PartName("north", "demo", "t1")


def terms(count: int = 8, *, window: Window | None = None, **recallable: Any) -> PartSpec:
    """All that the site has."""
    may = {"keep_for": 2 * HOUR, **recallable}
    asked = part_spec(
        *(workspace(index=each) for each in range(count)),
        window=window or Window(START, START + HOUR),
    )
    return replace(asked, recallable=Recallable(**may))


class Recalling(Site):
    """With a part, committed, and others beside it."""

    async def running(self, **recallable: Any) -> Recalling:
        """With a part that fills it."""
        return await self.with_part(terms(**recallable))

    async def with_part(self, asked: PartSpec) -> Recalling:
        self.alive()
        self.standing = replace(self.standing, name=str(NAME))
        await self.hold(asked, "t1", replaces=None)
        await self.resolve(self.commit_of("t1", 0))
        return self

    async def hold_other(self, asked: PartSpec, name: str = "t2") -> Part:
        """A part beside it, held and no more."""
        self.alive()
        path = PartName("north", "demo", name)
        part, _ = await self._hold_part(self.order(asked, name, name=path, replaces=None), META)
        return part

    async def urgent(self, count: int = 4, start_in: timedelta | None = None) -> None:
        """A lease of the site that does not wait is admitted."""
        self.alive()
        now, view = self.clock.now(), await self.ledger.view()
        lease = LeaseTerms(start_time=now + start_in if start_in else None, duration=HOUR)
        asked = normalise(spec(group(count=count), lease=lease), now=now)
        found = draft_before_others(
            ClusterName.parse(name_of("urgent")), "urgent", asked, view, POLICY, now=now
        )
        assert found.aside
        await self.ledger.commit(Change(writes=tuple(writes_of(found.aside, now=now))))

    async def agreed(self, end: Any = None, tx: str = "s1", base: int = 0) -> Part:
        part = await self.part()
        may = part.spec.recallable
        assert may is not None
        asked = replace(
            part.spec,
            window=Window(part.window.start, end or part.window.end),
            recallable=replace(may, put_aside=not may.cancellable),
        )
        return await self.shrink(asked, tx, base)

    def saved(self, part: Part) -> None:
        for report in reports_of(part).values():
            self.ledger.see(report)

    async def suspended(self, **recallable: Any) -> Part:
        """A minute after it was put aside, and saved."""
        await self.running(**recallable)
        await self.clock.advance(600)
        await self.urgent()
        part = await self.agreed()
        await self.clock.advance(60)
        self.alive()
        self.saved(part)
        return await self.part()

    def on(self, part: Part, **changes: Any) -> PartSpec:
        may = part.spec.recallable
        assert may is not None
        now = self.clock.now()
        window = Window(now, now + RESTORE + 50 * MINUTE)
        return replace(
            part.spec, **{"window": window, "recallable": replace(may, put_aside=False), **changes}
        )


def in_advance(start: timedelta, count: int = 4) -> PartSpec:
    """Of a lease over several sites that does not wait."""
    window = Window(START + start, START + start + HOUR)
    return part_spec(*(workspace(index=each) for each in range(count)), window=window)
