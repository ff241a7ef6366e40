"""Records of usage, a page at a time, and the chain that they are links of."""

from collections.abc import Mapping
from datetime import datetime

from intertie.broker.domain.account import ChainEntry, Checkpoint, StoredRecord
from intertie.broker.domain.ports import UsageRecords
from intertie.common.values import Struct

LOOKED_THROUGH = 5000
"""Records, in one call, for those of a span of time."""
READ_AT_ONCE = 500


class Span(Struct, frozen=True, kw_only=True):
    """From `start` to before `end`; None: no bound there."""

    start: datetime | None = None
    end: datetime | None = None

    @property
    def bounded(self) -> bool:
        return self.start is not None or self.end is not None

    def meets(self, record: StoredRecord) -> bool:
        """What is damaged is in every span: nobody is to miss it."""
        period = record.period
        if period is None:
            return True
        return (self.start is None or self.start < period.end) and (
            self.end is None or period.start < self.end
        )


class ChainPage(Struct, frozen=True, kw_only=True):
    entries: tuple[ChainEntry, ...]
    bodies: Mapping[int, bytes]
    """By number: of the tenant that was asked for, as far as they are there."""
    checkpoints: tuple[Checkpoint, ...]
    more: bool


class ListUsage:
    def __init__(self, records: UsageRecords) -> None:
        self._records = records

    async def records(
        self, tenant: str, span: Span, *, after: int, size: int
    ) -> tuple[list[StoredRecord], int]:
        """Those of a tenant, or of all where that is empty, with numbers above `after`; and from
        which number on there may be more, 0 at the end."""
        found: list[StoredRecord] = []
        looked, most = 0, READ_AT_ONCE if span.bounded else size
        while looked < LOOKED_THROUGH:
            some = await self._records.records(tenant, after=after, most=most)
            for each in some:
                after = each.number
                if span.meets(each):
                    found.append(each)
                    if len(found) == size:
                        return found, after
            if len(some) < most:
                return found, 0
            looked += len(some)
        return found, after

    async def chain(self, tenant: str, *, after: int, size: int) -> ChainPage:
        """With the records of a tenant, or of all where that is empty."""
        head = await self._records.head()
        entries = await self._records.entries(after=after, most=size)
        shown = [each for each in entries if tenant in ("", each.tenant)]
        more = len(entries) == size
        last = entries[-1].number if entries else after
        if not more and head is not None:
            # What is written after the entries were read is on no page; what the chain had before
            # shows that its end is missing.
            last = max(last, head.value.number)
        return ChainPage(
            entries=entries,
            bodies=await self._records.bodies(shown) if shown else {},
            checkpoints=await self._records.checkpoints(after + 1, last) if last > after else (),
            more=more,
        )
