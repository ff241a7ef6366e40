"""Writes down what is given back of prices: promises that are not kept, leases that end early."""

from collections.abc import Iterable, Mapping
from itertools import islice

import structlog

from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.guarantees import MeasuredPart, measured_of
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import Ledger
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.refunds import with_breaches, with_end
from intertie.common.clock import Clock
from intertie.common.errors import DomainError, EtcdUnavailable, NotLeading, StaleWrite

log = structlog.get_logger(__name__)

BREACHES_S = 10.0
"""Between two looks at what is measured."""
LOOKED_AT_ONCE = 500
LOOK_AGAIN_S = 600.0
"""All parts are looked at this often, should what was touched have been missed."""


class Refunds:
    def __init__(self, ledger: Ledger, policy: Policy, clock: Clock) -> None:
        self._ledger = ledger
        self._policy = policy
        self._clock = clock
        self._looked_at: object = None
        """The mapping of parts of which all were looked at."""
        self._looked_s = 0.0
        self._measured_s = 0.0
        self._name_of: dict[str, str] = {}
        """Of parts that a promise is not kept to, by uid."""

    async def sweep(self, touched: frozenset[str] | None = None) -> None:
        """Ends of parts that were touched, of all with a new book; breaches of all that is
        measured, now and then."""
        view = await self._ledger.view()
        now = self._clock.monotonic()
        if view.parts is not self._looked_at or now - self._looked_s >= LOOK_AGAIN_S:
            await self._ends(list(view.parts))
            self._looked_at, self._looked_s = view.parts, now
        else:
            await self._ends(touched or ())
        if not self._measured_s or now - self._measured_s >= BREACHES_S:
            self._measured_s = now
            await self._breaches()

    async def _ends(self, names: Iterable[str]) -> None:
        rest = iter(names)
        while some := list(islice(rest, LOOKED_AT_ONCE)):
            view = await self._ledger.view()
            for name in some:
                found = view.parts.get(name)
                if found is not None:
                    after = with_end(found.value, self._policy.refunds)
                    await self._write(found.value, after, found.revision)
            if len(some) == LOOKED_AT_ONCE:
                await self._clock.sleep(0)

    async def _breaches(self) -> None:
        measured = await self._ledger.measured()
        below = {uid: told for uid, told in measured.items() if _below(told)}
        view = await self._ledger.view()
        for uid, name in self._names(view, below).items():
            found = view.parts.get(name)
            if found is not None:
                told = measured_of(found.value, below[uid])
                after = with_breaches(found.value, told, self._policy.refunds)
                await self._write(found.value, after, found.revision)

    def _names(self, view: LedgerView, uids: Iterable[str]) -> dict[str, str]:
        """Uids are made of names, so they are looked for only where there are new ones."""
        wanted = set(uids)
        known = {uid: name for uid, name in self._name_of.items() if uid in wanted}
        if wanted.difference(known):
            known |= {
                each.value.uid: name
                for name, each in view.parts.items()
                if each.value.counted and each.value.uid in wanted
            }
        self._name_of = known
        return known

    async def _write(self, before: Part, after: Part, read_at: int) -> None:
        """Who has lost the race looks again. What cannot be written of one keeps nobody from what
        is given back of others."""
        if after is before:
            return
        try:
            await self._ledger.commit(Change(writes=(Write(record=after, read_at=read_at),)))
        except StaleWrite:
            log.debug("refunds.lost_race", part=after.name)
        except (EtcdUnavailable, NotLeading):
            raise
        except DomainError as error:
            log.warning("refunds.not_written", part=after.name, problem=str(error))
        else:
            log.info("refunds.written", part=after.name, items=len(after.refunds))


def _below(told: Mapping[str, MeasuredPart]) -> bool:
    return any(
        each.below_since is not None for report in told.values() for each in report.directions
    )
