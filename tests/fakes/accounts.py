"""A site's accounting in memory, from parts that end to the pages that somebody verifies."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from intertie.api.broker.v1 import usage_pb2
from intertie.broker.adapters.scribe import SigningScribe
from intertie.broker.domain.book import Book
from intertie.broker.domain.fleet import Fleet
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import Part
from intertie.broker.domain.records import Change, Write
from intertie.broker.loops.accounting import Accounting
from intertie.broker.loops.retention import Retention
from intertie.broker.servicers.usage import UsageServicer
from intertie.broker.usecases.forwarding import Forwarding
from intertie.broker.usecases.list_usage import ListUsage
from intertie.client.usage_chain import Audit, Signed, Verdict
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import MemoryLedger
from tests.fakes.room import FakeRoom
from tests.unit.broker.samples import POLICY
from tests.unit.common_rpc.authority import NOW, MemoryAuthority, trust_in

YEARS = timedelta(days=4000)
AUTHORITY = MemoryAuthority("north.site.intertie", lasts=YEARS)
BROKER = "spiffe://north.site.intertie/broker"
SIGNER = AUTHORITY.issue(BROKER, ends=NOW + YEARS)
START = NOW
"""Noon."""


class AwakeClock(FakeClock):
    """Nobody sleeps: time is what the test says."""

    async def sleep(self, seconds: float) -> None:
        pass


class BookLedger(MemoryLedger):
    """As a leader's: mappings that are the same for as long as the book is."""

    def __init__(self) -> None:
        super().__init__(POLICY)
        self.book = Book()
        self.views = 0

    async def view(self) -> LedgerView:
        self._check()
        self.views += 1
        return self.book.view(Fleet(), await self.seen())

    async def commit(self, change: Change) -> int:
        try:
            revision = await super().commit(change)
        except Exception:
            self.book = Book.of(await super().view())
            raise
        self.book.reserve(change)
        self.book.apply(change, revision)
        return revision


class Accounts:
    def __init__(self) -> None:
        self.clock = AwakeClock(START)
        self.ledger = BookLedger()
        self.chain = self.ledger.usage
        self.retention = Retention(
            self.ledger, Forwarding(self.ledger, None, self.clock, FakeRoom()), self.clock
        )
        self.servicer = UsageServicer("north", ListUsage(self.chain))
        self.another_leads()

    def another_leads(self) -> None:
        """One that knows nothing of what the first did."""
        self.accounting = Accounting(
            self.ledger, self.chain, SigningScribe("north", SIGNER), "north", self.clock
        )

    async def write(self, part: Part) -> None:
        found = await self.ledger.part(part.path)
        write = Write(record=part, read_at=found.revision if found else 0)
        await self.ledger.commit(Change(writes=(write,)))

    async def written(self, tenant: str = "-") -> list[usage_pb2.UsageRecord]:
        found: list[usage_pb2.UsageRecord] = []
        request = usage_pb2.ListUsageRequest(parent=f"sites/north/tenants/{tenant}", page_size=3)
        while True:
            page = await self.servicer.List(request, None)
            found.extend(page.records)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def pages(
        self, tenant: str = "-", *, size: int = 5
    ) -> list[usage_pb2.ListUsageEntriesResponse]:
        found: list[usage_pb2.ListUsageEntriesResponse] = []
        request = usage_pb2.ListUsageEntriesRequest(
            parent=f"sites/north/tenants/{tenant}", page_size=size
        )
        while True:
            page = await self.servicer.ListEntries(request, None)
            found.append(page)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def audit(
        self, tenant: str = "-", *, since: Signed | None = None, **more: Any
    ) -> Verdict:
        audit = Audit(trust_in(AUTHORITY), since)
        for page in await self.pages(tenant, **more):
            audit.take(page)
        return audit.end()
