"""`PeerStores` in memory: what stands at other sites, and what goes wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from intertie.common.errors import DomainError, FieldInvalid
from intertie.imagestore.domain.transfers import PeerStore


class MemoryPeerStores:
    def __init__(self) -> None:
        self.octets: dict[str, bytes] = {}
        """By site."""
        self.faults: dict[str, list[DomainError]] = {}
        """By site: raised one a call, the next instead of any more bytes after `before_fault`."""
        self.before_fault = 0
        self.block_bytes = 1000
        self.gate: asyncio.Event | None = None
        """Nothing comes after the first block before it is set."""
        self.asked: list[tuple[str, int]] = []
        """Site and offset."""
        self.open = 0
        """Streams."""

    def check(self, store: PeerStore) -> None:
        if store.site not in store.server_name:
            raise FieldInvalid("source.server_name", "not of that site")

    async def fetch(
        self, store: PeerStore, signed: bytes, offset: int, *, timeout_s: float
    ) -> AsyncGenerator[bytes, None]:
        self.asked.append((store.site, offset))
        faults = self.faults.get(store.site, [])
        fault = faults.pop(0) if faults else None
        octets = self.octets.get(store.site, b"")
        end = len(octets) if fault is None else min(len(octets), offset + self.before_fault)
        self.open += 1
        try:
            for start in range(offset, end, self.block_bytes):
                if start > offset and self.gate is not None:
                    await self.gate.wait()
                yield octets[start : min(end, start + self.block_bytes)]
            if fault is not None:
                raise fault
        finally:
            self.open -= 1
