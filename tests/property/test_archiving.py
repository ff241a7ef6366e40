"""Whatever fails on the way: what is over is shown until it may be forgotten, is in one place, and
leaves the keys that passes read."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from intertie.broker.domain.archiving import KEPT
from intertie.broker.domain.part import Part, PartState
from intertie.common.errors import EtcdUnavailable
from intertie.common.intervals import Window
from tests.fakes.accounts import START, Accounts
from tests.fakes.clock import turns
from tests.unit.broker.samples import part, part_spec, workspace

STEP = timedelta(minutes=10)

Leases = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 12), st.integers(0, 24)), min_size=1, max_size=5
)
"""(start, length, cancelled at), in steps."""
Troubles = st.lists(
    st.sampled_from(["", "", "", "lose", "break", "lead", "unwritten"]), max_size=40
)


def lease(number: int, start: int, length: int) -> Part:
    window = Window(START + start * STEP, START + (start + length) * STEP)
    return part(f"c{number}", spec=part_spec(workspace(), window=window), confirm_time=START)


class Trial:
    def __init__(self, leases: list[tuple[int, int, int]]) -> None:
        self.site = Accounts()
        self.leases = {
            f"c{number}": (lease(number, start, length), START + cancelled * STEP)
            for number, (start, length, cancelled) in enumerate(leases)
        }
        self.until = {
            name: max(START, each.window.end) + KEPT for name, (each, _) in self.leases.items()
        }

    async def run(self, troubles: list[str]) -> None:
        for each, _ in self.leases.values():
            await self.site.write(each)
        unwritten = 0
        for step in range(200):
            now = self.site.clock.now()
            trouble = troubles[step] if step < len(troubles) else ""
            await self._end()
            self.site.ledger.loses_answer = trouble == "lose"
            self.site.ledger.broken = trouble == "break"
            if trouble == "lead":
                self.site.another_leads()
            # For a while nothing is written down.
            unwritten = 4 if trouble == "unwritten" else max(unwritten - 1, 0)
            sweeps = [self.site.accounting.sweep, self.site.retention.sweep]
            for sweep in sweeps[unwritten > 0 :]:
                with suppress(EtcdUnavailable):
                    await sweep()
            self.site.ledger.loses_answer = self.site.ledger.broken = False
            await self._check()
            await self.site.clock.advance(STEP.total_seconds())
            assert self.site.clock.now() == now + STEP
            await turns(1)

    async def _end(self) -> None:
        now = self.site.clock.now()
        for first, cancelled in self.leases.values():
            found = await self.site.ledger.part(first.path)
            if found is None or found.value.over or now < min(cancelled, first.window.end):
                continue
            asked = found.value
            if now < first.window.end:
                asked = asked.ending(now=now, reason="CANCELLED")
            await self.site.write(asked.move(PartState.ENDED, now=now, reason="WINDOW_OVER"))

    async def _check(self) -> None:
        """Each is at exactly one place until it may go, and after it at none."""
        now = self.site.clock.now()
        ledger = self.site.ledger
        view = await ledger.view()
        for name, (first, _) in self.leases.items():
            here = first.name in view.parts
            aside = f"archive/parts/demo/{name}" in ledger.archived
            assert here + aside <= 1
            assert aside == (first.name in view.tombs)
            if now < self.until[name]:
                assert here or aside, f"{name} is lost"
                assert (await ledger.part(first.path)) is not None
        assert len(await ledger.parts()) == len(view.parts) + len(ledger.archived)

    async def after(self) -> None:
        view = await self.site.ledger.view()
        assert (dict(view.parts), dict(view.tombs), dict(view.accounts)) == ({}, {}, {})
        assert self.site.ledger.archived == {}
        # Nothing was put aside before all of it was written down.
        records = await self.site.written()
        finals = [each.part for each in records if each.final]
        began = [
            first.name
            for first, cancelled in self.leases.values()
            if cancelled > first.window.start
        ]
        assert sorted(set(finals)) == sorted(began)


@settings(max_examples=60, deadline=None)
@given(Leases, Troubles)
def test_nothing_is_lost_or_there_twice_and_all_of_it_leaves(
    leases: list[tuple[int, int, int]], troubles: list[str]
) -> None:
    async def trial() -> None:
        each = Trial(leases)
        await each.run(troubles)
        await each.after()

    asyncio.run(trial())
