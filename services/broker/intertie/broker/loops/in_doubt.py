"""Asks the register about what is prepared and past the time to decide: parts, and other terms for
them."""

import asyncio

import structlog

from intertie.broker.domain.decision import Outcome
from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import Ledger, Registers
from intertie.broker.usecases.resolve_part import ResolvePart
from intertie.common.clock import Clock
from intertie.common.errors import DomainError, EtcdUnavailable, NotLeading

log = structlog.get_logger(__name__)

AT_ONCE = 16
"""Questions to one coordinator's register."""


class InDoubt:
    def __init__(
        self, ledger: Ledger, registers: Registers, resolve: ResolvePart, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._registers = registers
        self._resolve = resolve
        self._clock = clock

    async def sweep(self, touched: frozenset[str] | None = None) -> None:
        """A silent register keeps its own parts waiting; one that fails over one part, none."""
        now = self._clock.now()
        lines: dict[str, asyncio.Semaphore] = {}
        asking = []
        for found in (await self._ledger.view()).undecided():
            part = found.value
            if part.amend is not None and part.amend_in_doubt(now=now):
                tx = part.amend.tx
            elif part.in_doubt(now=now):
                tx = part.tx
            else:
                continue
            line = lines.setdefault(part.coordinator, asyncio.Semaphore(AT_ONCE))
            asking.append(self._ask_in_turn(part, tx, line))
        failures = await asyncio.gather(*asking, return_exceptions=True)
        for failure in failures:
            if failure is not None:
                raise failure

    async def _ask_in_turn(self, part: Part, tx: str, line: asyncio.Semaphore) -> None:
        async with line:
            await self._ask(part, tx)

    async def _ask(self, part: Part, tx: str) -> None:
        """A part stays PREPARED for as long as its register does not answer: only a decision
        moves it."""
        try:
            decision = await self._registers.resolve(
                part.coordinator, tx, f"{part.path.site} was left in doubt"
            )
            if decision.outcome is not Outcome.OPEN:
                await self._resolve.read_from_register(part.path, decision)
        except (EtcdUnavailable, NotLeading):
            raise
        except DomainError as error:
            log.warning(
                "in_doubt.unresolved",
                part=part.name,
                tx=tx,
                reason=error.reason,
                problem=str(error),
            )
        else:
            log.info("in_doubt.asked", part=part.name, outcome=decision.outcome.name)
