"""Writes down what parts had, in batches: each period once, when it has ended."""

from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import Any

import structlog

from intertie.broker.domain.account import Account, UsageBatch, UsageHead
from intertie.broker.domain.agenda import Agenda
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import Ledger, Scribe, UsageRecords
from intertie.broker.domain.records import Change, Unchanged, Write
from intertie.broker.domain.usage import (
    Usage,
    chained,
    charge_during,
    due_of,
    is_final,
    labels_of,
    next_period,
    price_during,
    refunded,
    refunds_since,
)
from intertie.broker.domain.used import known_of, used_in, written_after
from intertie.common.clock import Clock
from intertie.common.usage_chain import name_of_certificate

log = structlog.get_logger(__name__)

AT_ONCE = 40
"""Records in a transaction: three operations each, of 128."""
BATCH_BYTES = 1 << 18
COUNT_BYTES = 200
"""At most, of what an account says of one workspace."""
PAUSE_S = 0.05
"""Between two batches, so that at midnight, when something of every part is due, admissions find
room between them."""
LOOKED_AT_ONCE = 500
"""Parts, when all are looked at, before others have their turn."""
LOOK_AGAIN_S = 600.0
"""All parts are looked at this often, should what was touched have been missed."""


class Accounting:
    def __init__(
        self, ledger: Ledger, records: UsageRecords, scribe: Scribe, site: str, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._records = records
        self._scribe = scribe
        self._site = site
        self._clock = clock
        self._agenda = Agenda()
        self._looked_at: Any = None
        """The mapping of parts that the agenda is made from: a book keeps one for as long as it
        holds."""
        self._looked_s = 0.0

    async def sweep(self, touched: frozenset[str] | None = None) -> None:
        """What was touched goes on the agenda; what is due is written. All parts are looked at
        only with a new book, and now and then."""
        view = await self._ledger.view()
        stale = self._clock.monotonic() - self._looked_s >= LOOK_AGAIN_S
        if view.parts is not self._looked_at or stale:
            await self._look_at_all(view)
        self._agenda.look(view, touched or ())
        while await self._write_batch():
            await self._clock.sleep(PAUSE_S)

    async def _look_at_all(self, view: LedgerView) -> None:
        self._looked_at = None
        self._agenda.forget()
        names = iter(list(view.parts))
        while some := list(islice(names, LOOKED_AT_ONCE)):
            self._agenda.look(view, some)
            if len(some) == LOOKED_AT_ONCE:
                await self._clock.sleep(0)
        self._looked_at, self._looked_s = view.parts, self._clock.monotonic()

    async def _write_batch(self) -> bool:
        """Whether more may be due."""
        if not self._agenda.due(now=self._clock.now(), most=1):
            return False
        head = await self._records.head()
        view, now = await self._ledger.view(), self._clock.now()
        names = self._agenda.due(now=now, most=AT_ONCE)
        self._agenda.look(view, names)
        due = self._agenda.due(now=now, most=AT_ONCE)
        change = self._change(head, view, due, now)
        if change is None:
            return bool(names) and not due
        await self._ledger.commit(change)
        assert change.usage is not None
        log.info(
            "accounting.written",
            records=len(change.usage.entries),
            last=change.usage.head.number,
        )
        self._agenda.look(await self._ledger.view(), due)
        return True

    def _change(
        self,
        head: Versioned[UsageHead] | None,
        view: LedgerView,
        names: Iterable[str],
        now: datetime,
    ) -> Change | None:
        """A record for the next period of each, as many as go together. What they are decided on
        is compared: the part, how far it was written down, and where the chain ended."""
        number = head.value.number if head else 0
        writes: list[Write] = []
        unchanged: list[Unchanged] = []
        tenants: list[str] = []
        bodies: list[bytes] = []
        size = 0
        for name in names:
            part, account = view.parts[name], view.accounts.get(name)
            period = next_period(part.value, account.value if account else None)
            seen = view.seen.get(part.value.uid, {})
            due = due_of(part.value, account.value if account else None, seen)
            if period is None or due is None or now < due:
                continue
            known = known_of(part.value, seen)
            before = account.value if account else None
            written = before.used if before else ()
            usage = Usage(
                number=number + 1,
                part=part.value,
                period=period,
                final=is_final(part.value, period),
                used=tuple(
                    used_in(period, labels_of(charge_during(part.value, period)), written, known)
                ),
                price=price_during(part.value, period, first=account is None),
                refunds=refunds_since(part.value, before, period),
            )
            body = self._scribe.write(usage)
            size += len(body) + COUNT_BYTES * max(len(known), len(written))
            if bodies and size > BATCH_BYTES:
                break
            number += 1
            after = Account(
                name=name,
                until=period.end,
                number=number,
                used=written_after(written, known),
                refunded=refunded(part.value, before, period),
            )
            writes.append(Write(record=after, read_at=account.revision if account else 0))
            unchanged.append(Unchanged(kind=Part, name=name, read_at=part.revision))
            tenants.append(part.value.path.tenant)
            bodies.append(body)
        if not bodies:
            return None
        batch = batch_of(self._site, self._scribe, head, tenants, bodies, now=now)
        return Change(writes=tuple(writes), unchanged=tuple(unchanged), usage=batch)


def batch_of(
    site: str,
    scribe: Scribe,
    head: Versioned[UsageHead] | None,
    tenants: list[str],
    bodies: list[bytes],
    *,
    now: datetime,
) -> UsageBatch:
    """Bodies of records, each with its tenant, as the next links of the site's chain."""
    entries = chained(site, head.value if head else None, tenants, bodies)
    last = entries[-1]
    unsigned = UsageHead(number=last.number, hash=last.hash, certificate="")
    checkpoint = scribe.sign(unsigned, now=now)
    certificate = name_of_certificate(checkpoint.certificate)
    return UsageBatch(
        head_read_at=head.revision if head else 0,
        head=UsageHead(number=last.number, hash=last.hash, certificate=certificate),
        entries=entries,
        bodies=tuple(bodies),
        checkpoint=checkpoint,
        certificate_is_new=head is None or head.value.certificate != certificate,
    )
