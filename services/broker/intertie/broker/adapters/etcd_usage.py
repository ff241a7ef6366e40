"""The site's chain of usage in etcd: read here, at any replica; written with the ledger."""

import asyncio
from collections.abc import Iterable, Mapping

from intertie.broker.adapters import keys
from intertie.broker.domain.account import ChainEntry, Checkpoint, StoredRecord, UsageHead
from intertie.broker.domain.ledger import Versioned
from intertie.broker.usage_proto import period_of
from intertie.common.etcd.client import Entry, Etcd
from intertie.common.etcd.records import RecordUnreadable, decode
from intertie.common.values import Struct, replace

CHECKPOINTS = 1000
"""At most, at once: more than a page has entries."""
_LAST = 10**12 - 1
"""The last number that there is room for in keys."""


class SignedCheckpoint(Struct, frozen=True, kw_only=True):
    """As it is kept: the certificate is kept once, beside all that it signed."""

    body: bytes
    signature: bytes
    certificate: str
    """Its name."""


class EtcdUsage:
    """See domain.ports.UsageRecords."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd
        self._certificates: dict[str, bytes] = {}
        """What a name stands for never changes."""

    async def head(self) -> Versioned[UsageHead] | None:
        entry = await self._etcd.get(keys.USAGE_HEAD)
        if entry is None:
            return None
        return Versioned(value=decode(UsageHead, entry.value), revision=entry.mod_revision)

    async def records(self, tenant: str, *, after: int, most: int) -> tuple[StoredRecord, ...]:
        if not tenant:
            entries = await self.entries(after=after, most=most)
            bodies = await self.bodies(entries)
            found = [(each.number, bodies.get(each.number, b"")) for each in entries]
        else:
            found = _numbered(await self._of_tenant(tenant, after + 1, _LAST, most))
        return tuple(
            StoredRecord(number=number, body=body, period=period_of(body)) for number, body in found
        )

    async def entries(self, *, after: int, most: int) -> tuple[ChainEntry, ...]:
        first, last = keys.entry_key(after + 1), keys.entry_key(_LAST)
        found = await self._etcd.some(first, last, most=most)
        return tuple(map(_entry, found))

    async def bodies(self, entries: Iterable[ChainEntry]) -> Mapping[int, bytes]:
        numbers: dict[str, list[int]] = {}
        for each in entries:
            numbers.setdefault(each.tenant, []).append(each.number)
        found = await asyncio.gather(
            *(
                self._of_tenant(tenant, of_it[0], of_it[-1], of_it[-1] - of_it[0] + 1)
                for tenant, of_it in numbers.items()
            )
        )
        return {number: body for some in found for number, body in _numbered(some)}

    async def checkpoints(self, first: int, last: int) -> tuple[Checkpoint, ...]:
        entries = await self._etcd.some(
            keys.checkpoint_key(first), keys.checkpoint_key(last), most=CHECKPOINTS
        )
        found = []
        for entry in entries:
            signed = _signed(entry)
            found.append(
                Checkpoint(
                    number=keys.number_of(entry.key),
                    body=signed.body,
                    signature=signed.signature,
                    certificate=await self._certificate(signed.certificate),
                )
            )
        return tuple(found)

    async def _of_tenant(self, tenant: str, first: int, last: int, most: int) -> tuple[Entry, ...]:
        start, end = (keys.usage_record_key(tenant, each) for each in (first, last))
        return await self._etcd.some(start, end, most=most)

    async def _certificate(self, name: str) -> bytes:
        """Empty where it is gone."""
        known = self._certificates.get(name)
        if known is None:
            entry = await self._etcd.get(keys.certificate_key(name))
            if entry is None:
                return b""
            known = self._certificates[name] = entry.value
        return known


def _entry(entry: Entry) -> ChainEntry:
    """With nothing but its number where it is damaged: whoever verifies is told which it is."""
    number = keys.number_of(entry.key)
    try:
        return replace(decode(ChainEntry, entry.value), number=number)
    except RecordUnreadable:
        return ChainEntry(number=number, tenant="", digest=b"", hash=b"")


def _signed(entry: Entry) -> SignedCheckpoint:
    """Likewise."""
    try:
        return decode(SignedCheckpoint, entry.value)
    except RecordUnreadable:
        return SignedCheckpoint(body=b"", signature=b"", certificate="")


def _numbered(entries: Iterable[Entry]) -> list[tuple[int, bytes]]:
    return [(keys.number_of(each.key), each.value) for each in entries]
