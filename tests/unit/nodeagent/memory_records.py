"""Records and the state on disk of a host, in memory."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Mapping
from datetime import datetime

from intertie.common.values import replace
from intertie.nodeagent.domain.failures import RecordsUnreadable
from intertie.nodeagent.domain.measured import Measured
from intertie.nodeagent.domain.meters import Promise
from intertie.nodeagent.domain.reconcile import Kept, Listing
from intertie.nodeagent.domain.report import HostFacts, SeenPart
from intertie.nodeagent.domain.sign_of_life import SignOfLife
from intertie.nodeagent.domain.traffic_plan import IncastShare


class MemoryRecords:
    def __init__(self) -> None:
        self.listing = Listing()
        self.readable = True
        self.broken = False
        self.seen: dict[str, SeenPart] = {}
        self.told: list[HostFacts] = []
        self.measured: list[tuple[datetime, dict[Promise, Measured]]] = []
        self.share: IncastShare | None = None
        self.share_writes = 0
        self.others: dict[str, tuple[int, IncastShare]] = {}

    async def wanted(self) -> Listing:
        if not self.readable:
            raise RecordsUnreadable("away")
        return self.listing

    async def hints(self) -> AsyncIterator[None]:
        for _ in ():
            yield

    async def seen_uids(self) -> frozenset[str]:
        self._check()
        return frozenset(self.seen)

    async def write_seen(self, part: SeenPart, *, now: datetime) -> None:
        self._check()
        self.seen[part.uid] = part

    async def delete_seen(self, part_uid: str) -> None:
        self._check()
        self.seen.pop(part_uid, None)

    async def write_facts(self, facts: HostFacts, *, now: datetime) -> None:
        self._check()
        self.told.append(facts)

    async def write_measured(self, found: Mapping[Promise, Measured], *, at: datetime) -> None:
        self._check()
        self.measured.append((at, dict(found)))

    async def write_share(self, share: IncastShare, *, at: datetime) -> None:
        self._check()
        self.share = share
        self.share_writes += 1

    async def delete_share(self) -> None:
        self._check()
        self.share = None

    async def shares(self) -> Mapping[str, tuple[int, IncastShare]]:
        self._check()
        return dict(self.others)

    async def share_hints(self) -> AsyncIterator[None]:
        for _ in ():
            yield

    def _check(self) -> None:
        if not self.readable:
            raise RecordsUnreadable("away")
        if self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class MemoryState:
    def __init__(self) -> None:
        self.kept: Kept | None = None
        self.contact: datetime | None = None
        self.life: SignOfLife | None = None
        self.full = False

    def load(self) -> Kept | None:
        return self.kept

    def save(self, kept: Kept) -> None:
        self._check()
        self.kept = replace(kept, parts=dict(kept.parts))

    def load_contact(self) -> datetime | None:
        return self.contact

    def save_contact(self, moment: datetime) -> None:
        self._check()
        self.contact = moment

    def load_sign_of_life(self) -> SignOfLife | None:
        return self.life

    def save_sign_of_life(self, last: SignOfLife) -> None:
        self._check()
        self.life = last

    def _check(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
