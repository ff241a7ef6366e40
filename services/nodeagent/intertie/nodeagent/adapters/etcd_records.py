"""The site's records: reads what is wanted of this host, writes what it has seen."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime

import structlog
from google.protobuf.message import DecodeError

from intertie.api.nodeagent.v1 import records_pb2 as pb
from intertie.common.errors import EtcdUnavailable, FieldInvalid
from intertie.common.etcd.client import Compare, DeleteKey, Etcd, EtcdRefused, Op, Put
from intertie.nodeagent.convert import (
    facts_to_proto,
    measured_to_proto,
    part_from_proto,
    seen_to_proto,
    share_from_proto,
    share_to_proto,
    standing_from_proto,
)
from intertie.nodeagent.domain.failures import RecordsUnreadable
from intertie.nodeagent.domain.measured import Measured
from intertie.nodeagent.domain.meters import Promise
from intertie.nodeagent.domain.reconcile import Listing
from intertie.nodeagent.domain.report import HostFacts, SeenPart
from intertie.nodeagent.domain.standing import Hold, Standing
from intertie.nodeagent.domain.traffic_plan import IncastShare

log = structlog.get_logger(__name__)


_INCAST = "incast/"


class EtcdRecords:
    """`wanted/{host}/`, `seen/{host}/` and `incast/` in the site's etcd, as serialized messages."""

    def __init__(self, etcd: Etcd, host: str) -> None:
        self._etcd = etcd
        self._host = host
        self._wanted = f"wanted/{host}/"
        self._standing = f"wanted/{host}/host"
        self._seen = f"seen/{host}/"
        self._share = f"{_INCAST}{host}/share"
        self._refused: dict[str, bytes] = {}
        self._revision = 0
        self._written_at: dict[str, int] = {}
        """Of keys of parts, the revision of the last write, as far as that is known; 0: none is."""

    async def wanted(self) -> Listing:
        try:
            snapshot = await self._etcd.range(self._wanted)
        except (EtcdUnavailable, EtcdRefused) as error:
            raise RecordsUnreadable(f"wanted records: {error}") from error
        self._revision = snapshot.revision
        parts, unreadable, standing = [], {}, Standing()
        for entry in snapshot.entries:
            whole = entry.key == self._standing
            try:
                if whole:
                    standing = standing_from_proto(pb.WantedHost.FromString(entry.value))
                else:
                    parts.append(part_from_proto(pb.WantedPart.FromString(entry.value)))
            except (DecodeError, FieldInvalid) as error:
                if whole:
                    standing = Standing(hold=Hold.HELD)
                else:
                    unreadable[entry.key.rpartition("/")[2]] = str(error)
                if self._refused.get(entry.key) != entry.value:
                    self._refused[entry.key] = entry.value
                    log.error("records.unreadable", key=entry.key, problem=str(error))
        return Listing(parts=tuple(parts), unreadable=unreadable, standing=standing)

    async def hints(self) -> AsyncIterator[None]:
        async for _ in self._hints(self._wanted, self._revision + 1 if self._revision else 0):
            yield

    async def _hints(self, prefix: str, start: int) -> AsyncIterator[None]:
        changes = self._etcd.watch(prefix, start)
        try:
            async for _ in changes:
                yield
        except EtcdUnavailable:
            return
        finally:
            await changes.aclose()

    async def seen_uids(self) -> frozenset[str]:
        try:
            snapshot = await self._etcd.range(f"{self._seen}parts/")
        except (EtcdUnavailable, EtcdRefused) as error:
            raise RecordsUnreadable(f"seen records: {error}") from error
        return frozenset(entry.key.rpartition("/")[2] for entry in snapshot.entries)

    async def write_seen(self, part: SeenPart, *, now: datetime) -> None:
        message = seen_to_proto(part, now=now)
        await self._write_next(Put(f"{self._seen}parts/{part.uid}", message.SerializeToString()))

    async def delete_seen(self, part_uid: str) -> None:
        key = f"{self._seen}parts/{part_uid}"
        await self._write_next(DeleteKey(key))
        self._written_at.pop(key, None)

    async def write_facts(self, facts: HostFacts, *, now: datetime) -> None:
        message = facts_to_proto(facts, now=now)
        await self._write(Put(f"{self._seen}facts", message.SerializeToString()))

    async def write_measured(self, found: Mapping[Promise, Measured], *, at: datetime) -> None:
        message = measured_to_proto(self._host, found, at=at)
        await self._write(Put(f"{self._seen}measured", message.SerializeToString()))

    async def write_share(self, share: IncastShare, *, at: datetime) -> None:
        message = share_to_proto(self._host, share, at=at)
        await self._write(Put(self._share, message.SerializeToString()))

    async def delete_share(self) -> None:
        await self._write(DeleteKey(self._share))

    async def shares(self) -> Mapping[str, tuple[int, IncastShare]]:
        try:
            snapshot = await self._etcd.range(_INCAST)
        except (EtcdUnavailable, EtcdRefused) as error:
            raise RecordsUnreadable(f"shares of other hosts: {error}") from error
        found = {}
        for entry in snapshot.entries:
            # By the key: etcd lets a host write below its own name only.
            host = entry.key.removeprefix(_INCAST).partition("/")[0]
            try:
                share = share_from_proto(pb.IncastShare.FromString(entry.value))
            except (DecodeError, FieldInvalid) as error:
                log.warning("share.unreadable", host=host, problem=str(error))
            else:
                found[host] = (entry.mod_revision, share)
        return found

    async def share_hints(self) -> AsyncIterator[None]:
        async for _ in self._hints(_INCAST, 0):
            yield

    async def _write_next(self, op: Op) -> None:
        """After what is there. A write whose answer was lost may be on its way for as long as it
        likes: it must not come after this one, for the site would go by a guest of before."""
        while True:
            at = await self._last_written(op.key)
            try:
                result = await self._etcd.txn([Compare.mod(op.key, at)], [op])
            except (EtcdUnavailable, EtcdRefused) as error:
                self._written_at.pop(op.key, None)
                raise RecordsUnreadable(f"{op.key}: {error}") from error
            if result.succeeded:
                self._written_at[op.key] = result.revision if isinstance(op, Put) else 0
                return
            self._written_at.pop(op.key, None)  # it has come by now

    async def _last_written(self, key: str) -> int:
        if key not in self._written_at:
            try:
                entry = await self._etcd.get(key)
            except (EtcdUnavailable, EtcdRefused) as error:
                raise RecordsUnreadable(f"{key}: {error}") from error
            self._written_at[key] = entry.mod_revision if entry is not None else 0
        return self._written_at[key]

    async def _write(self, op: Op) -> None:
        """Unguarded: nobody else writes this host's keys, and every value is complete."""
        try:
            await self._etcd.txn([], [op])
        except (EtcdUnavailable, EtcdRefused) as error:
            raise RecordsUnreadable(f"{op.key}: {error}") from error
