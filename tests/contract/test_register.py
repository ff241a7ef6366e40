"""What the register promises, held by etcd and by the memory that unit tests run on."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from intertie.common.clock import SystemClock
from intertie.common.errors import NotLeading, StaleWrite
from intertie.common.etcd.client import DeleteKey, Etcd, Put
from intertie.common.etcd.election import Election
from intertie.common.intervals import Window
from intertie.common.spec import Allocation, ClusterSpec, Environment, Group
from intertie.common.values import replace
from intertie.metasched.adapters.etcd_clusters import EtcdClusters
from intertie.metasched.adapters.etcd_register import EtcdRegister
from intertie.metasched.domain.cluster import ClusterRecord, ClusterState
from intertie.metasched.domain.commit import (
    Receipt,
    Settled,
    TxRecord,
    abort_of,
    commit_of,
)
from intertie.metasched.domain.plan import LinkPlan, Plan
from intertie.metasched.domain.ports import RequestRecord
from intertie.metasched.domain.site_plan import SitePlan
from tests.fakes.etcd import MemoryElection, MemoryEtcd
from tests.integration.etcd_server import EtcdServer

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAME = "metascheds/meta/tenants/demo/clusters/c1"
TX = TxRecord(
    tx="t1",
    cluster=NAME,
    cluster_uid="u1",
    coordinator="spiffe://meta.meta.intertie/metasched",
    owner="alice",
    digest="b2:1",
    parts={"north": "sites/north/tenants/demo/parts/t1"},
    create_time=NOW,
    decide_by=NOW + timedelta(seconds=20),
)
PLAN = Plan(
    window=Window(NOW, NOW + timedelta(hours=1)),
    sites=(SitePlan(site="north", counts={"w": 1}, packing=({"w": 1},), cost=0.5),),
    links=(
        LinkPlan(
            from_site="north",
            to_site="south",
            network="lan",
            mbit_s=5,
            latency=timedelta(milliseconds=5),
        ),
    ),
    images={"w": "b3:1"},
    reasons=("it holds all",),
)
CLUSTER = ClusterRecord(
    name=NAME,
    uid="u1",
    spec=ClusterSpec(
        groups=(
            Group(
                name="w",
                count=1,
                environment=Environment(image="guest"),
                allocation=Allocation(vcpus=1, memory_mib=1, disk_mib=1),
            ),
        )
    ),
    owner="alice",
    state=ClusterState.PLANNED,
    plan=PLAN,
    tx="t1",
    parts=TX.parts,
    request_key="caller/r1",
    create_time=NOW,
)
REQUEST = RequestRecord(digest="b2:2", cluster=NAME, cluster_uid="u1", create_time=NOW)
RECEIPT = Receipt(body=b"\0\xff", signature=b"s", certificate=b"c")
ABORT = abort_of("t1", by="south", reason="in doubt", now=NOW)
COMMIT = commit_of(TX, {"north": RECEIPT}, now=NOW)


class Leader(Election):
    """Leads by a key that it writes itself, without a lease to lose."""

    def __init__(self, etcd: Etcd, identity: str) -> None:
        super().__init__(etcd, "metasched", identity, SystemClock())
        self._store, self._who = etcd, identity

    async def win(self) -> None:
        await self._store.txn([], [DeleteKey(self._key)])
        done = await self._store.txn([], [Put(self._key, self._who.encode())])
        self._created = done.revision
        self._leads.set()


@dataclass
class Replica:
    register: EtcdRegister
    clusters: EtcdClusters
    election: Leader | MemoryElection


Replicas = Callable[[str], Replica]


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.etcd)])
async def replicas(
    request: pytest.FixtureRequest, etcd_server: EtcdServer, etcd_prefix: str
) -> AsyncIterator[Replicas]:
    """Makes replicas over one store; none leads yet."""
    if request.param == "memory":
        memory = MemoryEtcd()
        yield lambda name: _replica(memory, MemoryElection(memory, name))
        return
    etcd = await Etcd.connect(etcd_server.settings(etcd_prefix))
    yield lambda name: _replica(etcd, Leader(etcd, name))
    await etcd.close()


def _replica(etcd: Etcd, election: Leader | MemoryElection) -> Replica:
    return Replica(EtcdRegister(etcd, election), EtcdClusters(etcd, election), election)


async def test_the_register(replicas: Replicas) -> None:
    """One walk through everything: an etcd a promise would take longer than all promises."""
    one, two = replicas("one"), replicas("two")
    with pytest.raises(NotLeading):
        await one.register.begin(TX, CLUSTER, read_at=0, request=REQUEST)
    await one.election.win()

    # A transaction is begun with its cluster and its request, all or nothing, once.
    read_at = await one.register.begin(TX, CLUSTER, read_at=0, request=REQUEST)
    assert await two.register.transactions() == (TX,)
    stored = await two.clusters.get(NAME)
    assert stored is not None
    assert (stored.record, stored.read_at) == (CLUSTER, read_at)
    assert await two.clusters.request("caller/r1") == REQUEST
    other = replace(TX, tx="t2")
    with pytest.raises(StaleWrite):
        await one.register.begin(other, CLUSTER, read_at=0, request=None)
    with pytest.raises(StaleWrite):
        await one.register.begin(other, CLUSTER, read_at=read_at, request=REQUEST)
    assert await one.register.transaction("t2") is None

    # COMMIT needs the cluster as it was last read.
    asked = CLUSTER.ending(now=NOW, reason="CANCELLED")
    newer = await one.clusters.save(asked, read_at=read_at)
    scheduled = replace(CLUSTER, state=ClusterState.SCHEDULED)
    with pytest.raises(StaleWrite):
        await one.register.commit(COMMIT, scheduled, read_at=read_at)
    assert await two.register.decision("t1") is None

    # Of several replicas only the leader commits; a deposed one does not know and cannot.
    await two.election.win()
    with pytest.raises(NotLeading) as told:
        await one.register.commit(COMMIT, scheduled, read_at=newer)
    assert told.value.leader == await two.election.leader()
    await two.register.commit(COMMIT, scheduled, read_at=newer)
    assert await one.register.decision("t1") == COMMIT

    # The first decision stands, whoever asks for another.
    assert await one.register.abort(ABORT) == COMMIT
    with pytest.raises(StaleWrite):
        await two.register.commit(replace(COMMIT, digest="other"), scheduled, read_at=newer + 1)
    assert await two.register.decision("t1") == COMMIT

    # Any replica may race to ABORT what nobody knows; then nobody begins or commits it.
    unknown = replace(ABORT, tx="t3")
    assert await one.register.abort(unknown) == unknown
    assert (await one.register.abort(replace(unknown, reason="later"))) == unknown
    at = (await two.clusters.listed())[0].read_at
    with pytest.raises(StaleWrite):
        await two.register.begin(replace(TX, tx="t3"), CLUSTER, read_at=at, request=None)
    with pytest.raises(StaleWrite):
        await two.register.commit(replace(COMMIT, tx="t3"), scheduled, read_at=at)

    # What is settled is forgotten; its decision is not.
    with pytest.raises(NotLeading):
        await one.register.settle(TX, now=NOW)
    await two.register.settle(TX, now=NOW)
    assert await two.register.transactions() == ()
    assert await two.register.decision("t1") == COMMIT


async def test_a_decision_is_forgotten_with_what_was_settled_and_not_before(
    replicas: Replicas,
) -> None:
    one, two = replicas("one"), replicas("two")
    await one.election.win()
    until = NOW + timedelta(hours=1)
    read_at = await one.register.begin(
        replace(TX, until=until), CLUSTER, read_at=0, request=REQUEST
    )
    await one.register.commit(
        COMMIT, replace(CLUSTER, state=ClusterState.SCHEDULED), read_at=read_at
    )
    assert await one.register.settled() == ()
    settled = Settled(tx="t1", cluster_uid="u1", settle_time=NOW, until=until)
    with pytest.raises(StaleWrite):  # it is on record, and nobody has said that it is settled
        await one.register.forget(settled)
    await one.register.settle(replace(TX, until=until), now=NOW)
    assert await one.register.settled() == (settled,)
    with pytest.raises(StaleWrite):
        await one.register.forget(replace(settled, settle_time=until))
    await two.election.win()
    with pytest.raises(NotLeading):
        await one.register.forget(settled)
    assert await two.register.decision("t1") == COMMIT
    await two.register.forget(settled)
    assert await two.register.decision("t1") is None
    assert await two.register.settled() == ()


async def test_of_an_older_release_a_decision_stays_for_ever(replicas: Replicas) -> None:
    one = replicas("one")
    await one.election.win()
    await one.register.begin(TX, CLUSTER, read_at=0, request=REQUEST)
    await one.register.abort(ABORT)
    await one.register.settle(TX, now=NOW)
    assert await one.register.settled() == ()
    assert await one.register.decision("t1") == ABORT


async def test_clusters_and_requests(replicas: Replicas) -> None:
    one = replicas("one")
    await one.election.win()
    read_at = await one.register.begin(TX, CLUSTER, read_at=0, request=REQUEST)
    active = replace(CLUSTER, state=ClusterState.ACTIVE)
    with pytest.raises(StaleWrite):
        await one.clusters.save(active, read_at=read_at - 1)
    saved = await one.clusters.save(active, read_at=read_at)
    assert [each.record for each in await one.clusters.listed("demo")] == [active]
    assert await one.clusters.listed("dem") == ()
    (stored,) = await one.clusters.listed()
    assert stored.read_at == saved
    with pytest.raises(StaleWrite):
        await one.clusters.delete(replace(stored, read_at=read_at))
    await one.clusters.delete(stored)
    assert await one.clusters.get(NAME) is None
    assert await one.clusters.requests() == {}
