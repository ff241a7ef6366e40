"""What agents say of parts, through a real etcd."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import pytest

from intertie.api.nodeagent.v1 import records_pb2
from intertie.common.errors import EtcdUnavailable
from intertie.common.etcd.client import Compare, Etcd, Op, TxnResult
from intertie.nodeagent.adapters.etcd_records import EtcdRecords
from intertie.nodeagent.domain.failures import RecordsUnreadable
from intertie.nodeagent.domain.report import SeenPart
from tests.unit.nodeagent.parts import NOW

pytestmark = pytest.mark.etcd

UID = "0123456789ab"
KEY = f"seen/n1/parts/{UID}"


def said(generation: int) -> SeenPart:
    name = "sites/north/tenants/demo/parts/p1"
    return SeenPart(name=name, uid=UID, generation=generation, obeyed_generation=generation)


async def on_record(etcd: Etcd) -> int | None:
    entry = await etcd.get(KEY)
    if entry is None:
        return None
    return records_pb2.SeenPart.FromString(entry.value).obeyed_generation


def delay(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Awaitable[TxnResult]]]:
    """The next transaction gets no answer, and is on its way until it is called."""
    txn = etcd.txn
    late: list[Callable[[], Awaitable[TxnResult]]] = []

    async def lost(compare: Sequence[Compare], then: Sequence[Op]) -> TxnResult:
        monkeypatch.setattr(etcd, "txn", txn)
        late.append(lambda: txn(compare, then))
        raise EtcdUnavailable("no answer in time")

    monkeypatch.setattr(etcd, "txn", lost)
    return late


async def test_a_write_that_was_given_up_does_not_come_after_a_newer_one(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a site went by a guest that did not run yet, and had it go on before it was saved."""
    records = EtcdRecords(etcd, "n1")
    await records.write_seen(said(1), now=NOW)
    late = delay(etcd, monkeypatch)
    with pytest.raises(RecordsUnreadable):
        await records.write_seen(said(2), now=NOW + timedelta(seconds=1))
    await records.write_seen(said(3), now=NOW + timedelta(seconds=2))
    await late[0]()
    assert await on_record(etcd) == 3
    await records.write_seen(said(4), now=NOW + timedelta(seconds=3))
    assert await on_record(etcd) == 4


async def test_nor_after_a_deletion(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    records = EtcdRecords(etcd, "n1")
    await records.write_seen(said(1), now=NOW)
    late = delay(etcd, monkeypatch)
    with pytest.raises(RecordsUnreadable):
        await records.write_seen(said(2), now=NOW)
    await records.delete_seen(UID)
    await late[0]()
    assert await on_record(etcd) is None


async def test_one_that_came_late_but_first_is_written_over(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = EtcdRecords(etcd, "n1")
    late = delay(etcd, monkeypatch)
    with pytest.raises(RecordsUnreadable):
        await records.write_seen(said(1), now=NOW)
    await late[0]()
    await records.write_seen(said(2), now=NOW)
    assert await on_record(etcd) == 2
    await EtcdRecords(etcd, "n1").write_seen(said(3), now=NOW)
    await records.write_seen(said(4), now=NOW)
    assert await on_record(etcd) == 4
    await records.delete_seen(UID)
    assert await on_record(etcd) is None
