"""The decision register, and the transactions that are not settled, in etcd."""

from collections.abc import Sequence
from datetime import datetime

from intertie.common.errors import StaleWrite
from intertie.common.etcd.client import Compare, DeleteKey, Etcd, Op, Put
from intertie.common.etcd.election import Election
from intertie.common.etcd.records import check_size, decode, encode
from intertie.metasched.adapters.etcd_clusters import cluster_key, request_key, written_by_leader
from intertie.metasched.domain.cluster import ClusterRecord
from intertie.metasched.domain.commit import Decision, LeftPart, Settled, TxRecord
from intertie.metasched.domain.ports import RequestRecord

_SETTLED = "settled/"
_LEFT = "left/"


class EtcdRegister:
    """Every write but an ABORT compares the leader's election key. An ABORT need not: it
    compares that nothing is decided, and any replica may answer a site in doubt."""

    def __init__(self, etcd: Etcd, election: Election) -> None:
        self._etcd = etcd
        self._election = election

    async def transaction(self, tx: str) -> TxRecord | None:
        entry = await self._etcd.get(_tx_key(tx))
        return decode(TxRecord, entry.value) if entry else None

    async def transactions(self) -> tuple[TxRecord, ...]:
        snapshot = await self._etcd.range("txs/")
        return tuple(decode(TxRecord, each.value) for each in snapshot.entries)

    async def decision(self, tx: str) -> Decision | None:
        entry = await self._etcd.get(_decision_key(tx))
        return decode(Decision, entry.value) if entry else None

    async def begin(
        self,
        tx: TxRecord,
        cluster: ClusterRecord,
        *,
        read_at: int,
        request: RequestRecord | None,
    ) -> int:
        key = cluster_key(cluster.name)
        compare = [
            Compare.mod(key, read_at),
            Compare.absent(_tx_key(tx.tx)),
            Compare.absent(_decision_key(tx.tx)),
        ]
        then: list[Op] = [Put(key, encode(cluster)), Put(_tx_key(tx.tx), encode(tx))]
        if request is not None:
            compare.append(Compare.absent(request_key(cluster.request_key)))
            then.append(Put(request_key(cluster.request_key), encode(request)))
        check_size(each.value for each in then if isinstance(each, Put))
        return await self._write(compare, then)

    async def begin_amend(
        self,
        tx: TxRecord,
        cluster: ClusterRecord,
        *,
        read_at: int,
        key: str = "",
        request: RequestRecord | None = None,
        decision: Decision | None = None,
    ) -> int:
        at = cluster_key(cluster.name)
        compare = [
            Compare.mod(at, read_at),
            Compare.absent(_tx_key(tx.tx)),
            Compare.absent(_decision_key(tx.tx)),
        ]
        then = _amending(tx, cluster, decision)
        if request is not None:
            compare.append(Compare.absent(request_key(key)))
            then.append(Put(request_key(key), encode(request)))
        check_size(each.value for each in then if isinstance(each, Put))
        return await self._write(compare, then)

    def check_amend(
        self,
        tx: TxRecord,
        cluster: ClusterRecord,
        decision: Decision | None,
        *,
        spare_bytes: int = 0,
    ) -> None:
        then = _amending(tx, cluster, decision)
        check_size((each.value for each in then if isinstance(each, Put)), spare=spare_bytes)

    async def commit(
        self,
        decision: Decision,
        cluster: ClusterRecord,
        *,
        read_at: int,
        left: Sequence[LeftPart] = (),
    ) -> None:
        key = cluster_key(cluster.name)
        await self._write(
            [
                Compare.absent(_decision_key(decision.tx)),
                Compare.mod(key, read_at),
            ],
            [
                Put(_decision_key(decision.tx), encode(decision)),
                Put(key, encode(cluster)),
                *(Put(f"{_LEFT}{each.part}", encode(each)) for each in left),
            ],
        )

    async def left(self) -> tuple[LeftPart, ...]:
        snapshot = await self._etcd.range(_LEFT)
        return tuple(decode(LeftPart, each.value) for each in snapshot.entries)

    async def forget_left(self, part: str) -> None:
        await self._write([], [DeleteKey(f"{_LEFT}{part}")])

    async def abort(self, decision: Decision) -> Decision:
        key = _decision_key(decision.tx)
        result = await self._etcd.txn([Compare.absent(key)], [Put(key, encode(decision))])
        if result.succeeded:
            return decision
        first = await self.decision(decision.tx)
        if first is None:
            raise StaleWrite(
                key
            )  # none is deleted while it may be raced for: somebody else's hands
        return first

    async def settle(self, tx: TxRecord, *, now: datetime) -> None:
        """StaleWrite unless the decision is there: without one the transaction is open, and
        forgetting it would leave its parts to nobody."""
        key = _decision_key(tx.tx)
        entry = await self._etcd.get(key)
        if entry is None:
            raise StaleWrite(key)
        then: list[Op] = [DeleteKey(_tx_key(tx.tx))]
        if tx.until is not None:
            settled = Settled(tx=tx.tx, cluster_uid=tx.cluster_uid, settle_time=now, until=tx.until)
            then.append(Put(_settled_key(tx.tx), encode(settled)))
        await self._write([Compare.created(key, entry.create_revision)], then)

    async def settled(self) -> tuple[Settled, ...]:
        snapshot = await self._etcd.range(_SETTLED)
        return tuple(decode(Settled, each.value) for each in snapshot.entries)

    async def forget(self, settled: Settled) -> None:
        key = _settled_key(settled.tx)
        await self._write(
            [Compare.value(key, encode(settled)), Compare.absent(_tx_key(settled.tx))],
            [DeleteKey(_decision_key(settled.tx)), DeleteKey(key)],
        )

    async def _write(self, compare: list[Compare], then: list[Op]) -> int:
        return await written_by_leader(self._etcd, self._election, compare, then)


def _amending(tx: TxRecord, cluster: ClusterRecord, decision: Decision | None) -> list[Op]:
    then: list[Op] = [Put(cluster_key(cluster.name), encode(cluster))]
    then.append(Put(_tx_key(tx.tx), encode(tx)))
    if decision is not None:
        then.append(Put(_decision_key(tx.tx), encode(decision)))
    return then


def _tx_key(tx: str) -> str:
    return f"txs/{tx}"


def _decision_key(tx: str) -> str:
    return f"decision/{tx}"


def _settled_key(tx: str) -> str:
    return f"{_SETTLED}{tx}"
