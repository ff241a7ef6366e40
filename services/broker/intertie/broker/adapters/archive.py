"""What is over, kept aside: below `archive/` of the site's etcd, compressed, until its tombstone
goes. Read when it is asked for, and by nobody else."""

import asyncio
import zlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

from intertie.broker.adapters import keys
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.ledger import Versioned
from intertie.broker.domain.part import Part
from intertie.common.etcd.client import Entry, Etcd
from intertie.common.etcd.records import RecordUnreadable, decode, encode
from intertie.common.names import PartName

T = TypeVar("T", Part, ClusterRecord)

MANY = 200
"""Records, from which on they are read beside the event loop."""


def packed(record: Part | ClusterRecord) -> bytes:
    return zlib.compress(encode(record))


def unzipped(octets: bytes) -> bytes:
    """A record as it was among those that may be written."""
    try:
        return zlib.decompress(octets)
    except zlib.error as error:
        raise RecordUnreadable(f"a record in the archive: {error}") from error


def unpacked(kind: type[T], octets: bytes) -> T:
    return decode(kind, unzipped(octets))


class Archive:
    """Every record of it comes with the revision 0: among those that may be written there is none
    of its name."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd

    async def part(self, name: PartName) -> Versioned[Part] | None:
        entry = await self._etcd.get(keys.archived_part_key(name))
        return _versioned(Part, entry) if entry else None

    async def cluster(self, tenant: str, cluster_id: str) -> Versioned[ClusterRecord] | None:
        """The last one that had the name."""
        found = await self._all(ClusterRecord, keys.archived_clusters_key(tenant, cluster_id))
        return max(found, key=lambda each: each.value.create_time, default=None)

    async def parts(self, tenant: str = "") -> tuple[Versioned[Part], ...]:
        return await self._all(Part, _within(keys.ARCHIVED_PARTS, tenant))

    async def clusters(self, tenant: str = "") -> tuple[Versioned[ClusterRecord], ...]:
        """The last one of each name."""
        last: dict[str, Versioned[ClusterRecord]] = {}
        for each in await self._all(ClusterRecord, _within(keys.ARCHIVED_CLUSTERS, tenant)):
            before = last.get(each.value.name)
            if before is None or before.value.create_time < each.value.create_time:
                last[each.value.name] = each
        return tuple(last.values())

    async def _all(self, kind: type[T], prefix: str) -> tuple[Versioned[T], ...]:
        entries = (await self._etcd.range(prefix)).entries
        if len(entries) < MANY:
            return tuple(_read(kind, entries))
        return await asyncio.to_thread(lambda: tuple(_read(kind, entries)))


def beside(
    here: Iterable[Versioned[T]], archived: Iterable[Versioned[T]]
) -> tuple[Versioned[T], ...]:
    """Both in the order of names; of a name that has both, what is here."""
    found = {each.value.name: each for each in archived}
    found |= {each.value.name: each for each in here}
    return tuple(found[name] for name in sorted(found))


def _within(prefix: str, tenant: str) -> str:
    return f"{prefix}{tenant}/" if tenant else prefix


def _read(kind: type[T], entries: Iterable[Entry]) -> Iterator[Versioned[T]]:
    for entry in entries:
        yield _versioned(kind, entry)


def _versioned(kind: type[T], entry: Entry) -> Versioned[T]:
    return Versioned(value=unpacked(kind, entry.value), revision=0)
