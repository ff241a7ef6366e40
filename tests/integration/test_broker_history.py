"""Eight clients against one ledger on real etcd; their history is replayed.

Each client has an admission of its own, so nothing but etcd's transactions keeps them apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from intertie.broker.adapters.etcd_ledger import EtcdLedger
from intertie.broker.domain.decision import Decision, OpenedReceipt, Outcome, Receipt, ReceiptBody
from intertie.broker.domain.fleet import LinkPolicy, Policy
from intertie.broker.domain.planning import Image
from intertie.broker.domain.ports import Caller
from intertie.broker.domain.records import RequestKey
from intertie.broker.loops.expire import Expire
from intertie.broker.loops.reconcile import Reconcile
from intertie.broker.usecases.admission import Admission
from intertie.broker.usecases.create_cluster import CreateCluster, Order
from intertie.broker.usecases.delete_cluster import DeleteCluster
from intertie.broker.usecases.forwarding import Forwarding
from intertie.broker.usecases.get_cluster import GetCluster
from intertie.broker.usecases.hold_part import HoldOrder, HoldPart
from intertie.broker.usecases.prepare_part import PreparePart
from intertie.broker.usecases.release_part import ReleasePart
from intertie.broker.usecases.resolve_part import ResolvePart
from intertie.common.clock import SystemClock
from intertie.common.errors import DomainError, NoCapacity
from intertie.common.etcd.client import Etcd
from intertie.common.etcd.election import Election
from intertie.common.intervals import Window
from intertie.common.names import ClusterName, Parent, PartName
from intertie.common.part_spec import (
    LinkReservation,
    Member,
    PartNetwork,
    PartNic,
    PartSpec,
    PartWorkspace,
)
from intertie.common.spec import (
    Allocation,
    BandwidthTerm,
    ClusterSpec,
    DiskTerm,
    Environment,
    Group,
    LeaseTerms,
    Network,
    PairTerm,
)
from tests.fakes.room import FakeRoom
from tests.integration.etcd_server import EtcdServer
from tests.integration.fake_agents import FakeAgents
from tests.integration.ledger_history import History, history, replay

pytestmark = pytest.mark.etcd

CLIENTS = 8
ROUNDS = 14
MOST_ROUNDS = 200
ENOUGH = {"created": 11, "held": 6, NoCapacity.reason: 6}
"""A history in which nobody was refused, or nothing was made, would show nothing: clients go on
until there is as much."""
CLOCK = SystemClock()
DIGEST = "b3:" + "ab" * 32
COORDINATOR = "spiffe://meta.meta.intertie/metasched"
HOST = {
    "vcpus": 6,
    "memory_mib": 1000,
    "disk_mib": 2000,
    "iops": 1500,
    "throughput_mib_s": 300,
    "uplink_mbit_s": 150,
}
HOSTS = {"n1": HOST, "n2": HOST, "n3": {**HOST, "vcpus": 3}}
LINK = 100
POLICY = Policy(
    site="north",
    hosts=tuple(HOSTS),
    default_disk_cap_iops=200,
    default_disk_cap_mib_s=40,
    links=(LinkPolicy(peer="south", egress_mbit_s=LINK, ingress_mbit_s=LINK),),
)


class OneImage:
    async def find(self, tenant: str, image: str) -> Image | None:
        return Image(digest=DIGEST, size_bytes=1, virtual_size_bytes=1)


class PlainNotary:
    """Signatures are another test's subject."""

    def sign(self, body: ReceiptBody) -> Receipt:
        return Receipt(body=repr(body).encode(), signature=b"", certificate=b"")

    def open(self, receipt: Receipt) -> OpenedReceipt:
        raise AssertionError("only aborts are decided here")


@dataclass
class Client:
    """One caller with an admission, and a connection to etcd, of its own."""

    number: int
    ledger: EtcdLedger
    chance: random.Random
    done: Counter[str]
    """By all clients."""
    kept: list[ClusterName] = field(default_factory=list)
    """Clusters of its own that it has not deleted."""

    def __post_init__(self) -> None:
        images, notary = OneImage(), PlainNotary()
        admission = Admission(self.ledger, CLOCK, FakeRoom())
        forwarding = Forwarding(self.ledger, None, CLOCK, FakeRoom())
        get = GetCluster(self.ledger, forwarding, "north")
        self.create = CreateCluster(
            self.ledger, images, admission, forwarding, POLICY, CLOCK, lambda: "seed"
        )
        self.delete = DeleteCluster(self.ledger, get, forwarding, CLOCK)
        self.hold = HoldPart(self.ledger, images, admission, notary, POLICY, CLOCK, lambda: "seed")
        self.prepare = PreparePart(self.ledger, notary, POLICY, CLOCK)
        self.resolve = ResolvePart(self.ledger, notary, POLICY, CLOCK)
        self.release = ReleasePart(self.ledger, CLOCK)

    async def run(self) -> None:
        steps = (self.a_cluster, self.a_cluster, self.a_part, self.an_end)
        for turn in range(MOST_ROUNDS):
            if turn >= ROUNDS and all(self.done[each] >= least for each, least in ENOUGH.items()):
                return
            step = self.chance.choice(steps)
            try:
                await step(turn)
            except DomainError as error:
                self.done[error.reason] += 1

    async def a_cluster(self, turn: int) -> None:
        """Created, by chance twice at once with the same request id, and by chance deleted."""
        user = Caller(spiffe=f"user-{self.number}", tenant="demo")
        name = ClusterName(Parent("sites/north", "demo"), f"c{self.number}-{turn}")
        key = RequestKey(caller=user.spiffe, request_id=f"c{turn}", digest="same")
        order = Order(name=name, spec=self._spec(), request=key, validate_only=False)
        times = self.chance.choice((1, 1, 2))
        found = await asyncio.gather(
            *(self.create(order, user) for _ in range(times)), return_exceptions=True
        )
        for each in found:
            if isinstance(each, BaseException):
                raise each
        self.done["created"] += 1
        self.kept.append(name)
        if self.chance.random() < 0.6:
            await self.an_end(turn)

    async def an_end(self, turn: int) -> None:
        """Of the last of its clusters that is left."""
        if self.kept:
            user = Caller(spiffe=f"user-{self.number}", tenant="demo")
            await self.delete(self.kept.pop(), "", user)

    async def a_part(self, turn: int) -> None:
        """Held; then prepared, released, or left to expire; what is prepared is aborted."""
        tx = f"t{self.number}-{turn}"
        order = self._hold_order(tx)
        coordinator = Caller(spiffe=COORDINATOR, tenant="")
        await self.hold(order, coordinator)
        await self.hold(order, coordinator)
        self.done["held"] += 1
        match self.chance.randrange(3):
            case 0:
                await self.release(order.name, "", coordinator)
            case 1:
                await self.prepare(order.name, coordinator)
                aborted = Decision(tx=tx, outcome=Outcome.ABORT, decided_by=COORDINATOR)
                await self.resolve(order.name, aborted, coordinator)

    def _spec(self) -> ClusterSpec:
        many = self.chance.randint(1, 3)
        group = Group(
            name="w",
            count=many,
            environment=Environment(image="guest"),
            allocation=Allocation(
                vcpus=self.chance.randint(1, 2),
                memory_mib=100 * self.chance.randint(1, 4),
                disk_mib=100,
                disk=DiskTerm(guarantee_iops=self.chance.choice((0, 300))),
                nic=BandwidthTerm(guarantee_mbit_s=self.chance.choice((0, 10))),
                pairs=(PairTerm(group="w", bandwidth=BandwidthTerm(guarantee_mbit_s=20)),),
            ),
        )
        start = CLOCK.now() + timedelta(minutes=self.chance.choice((1, 30, 60)))
        return ClusterSpec(
            groups=(group,),
            networks=(Network(name="lan", subnet="10.0.0.0/24"),),
            lease=LeaseTerms(start_time=start, duration=timedelta(minutes=45)),
        )

    def _hold_order(self, tx: str) -> HoldOrder:
        now = CLOCK.now()
        start = now + timedelta(minutes=self.chance.choice((1, 30, 60)))
        lan = PartNetwork(
            name="lan",
            subnet="10.0.0.0/24",
            members=(
                Member(
                    workspace="w-0", site="north", mac="02:00:00:00:00:01", address="10.0.0.10/24"
                ),
                Member(
                    workspace="v-0", site="south", mac="02:00:00:00:00:02", address="10.0.0.11/24"
                ),
            ),
        )
        workspace = PartWorkspace(
            group="w",
            index=0,
            environment=Environment(image=DIGEST),
            allocation=Allocation(vcpus=self.chance.randint(1, 3), memory_mib=200, disk_mib=100),
            nics=(PartNic(network="lan", mac="02:00:00:00:00:01", address="10.0.0.10/24"),),
        )
        return HoldOrder(
            name=PartName("north", "demo", tx),
            spec=PartSpec(
                cluster="metascheds/meta/tenants/demo/clusters/x",
                cluster_uid="0123456789ab",
                window=Window(start, start + timedelta(minutes=45)),
                workspaces=(workspace,),
                networks=(lan,),
                links=(
                    LinkReservation(
                        peer="south", network="lan", egress_mbit_s=30, ingress_mbit_s=20
                    ),
                ),
            ),
            tx=tx,
            digest="d",
            ttl=timedelta(seconds=1),
            coordinator=COORDINATOR,
            participants=("north", "south"),
            decide_by=now + timedelta(minutes=5),
            coordinator_time=now,
            owner="somebody",
            request=RequestKey(caller=COORDINATOR, request_id=tx, digest=tx),
        )


@contextlib.asynccontextmanager
async def leading(etcd: Etcd) -> AsyncIterator[Election]:
    election = Election(etcd, "broker", "history", CLOCK)
    task = asyncio.create_task(election.run())
    try:
        async with asyncio.timeout(15):
            await election.wait_until_leading()
        yield election
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def background(ledger: EtcdLedger) -> None:
    expire, reconcile = Expire(ledger, CLOCK), Reconcile(ledger, POLICY, CLOCK)
    for _ in range(100_000):
        with contextlib.suppress(DomainError):
            await ledger.read_again()  # it is not alone, as a leader is
            await expire.sweep()
            await reconcile.sweep()
        await asyncio.sleep(0.05)


async def test_no_history_of_eight_clients_promises_more_than_there_is(
    etcd: Etcd, etcd_server: EtcdServer, etcd_prefix: str
) -> None:
    agents = FakeAgents(etcd, HOSTS, gateway="n1")
    await agents.report(CLOCK)
    done: Counter[str] = Counter()
    connections = [await Etcd.connect(etcd_server.settings(etcd_prefix)) for _ in range(CLIENTS)]
    try:
        async with leading(etcd) as election:
            clients = [
                Client(
                    number,
                    EtcdLedger(connection, election, POLICY, CLOCK),
                    random.Random(number),
                    done,
                )
                for number, connection in enumerate(connections)
            ]
            beside = [
                asyncio.create_task(background(EtcdLedger(etcd, election, POLICY, CLOCK))),
                asyncio.create_task(agents.run(CLOCK)),
            ]
            try:
                await asyncio.gather(*(client.run() for client in clients))
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)
        writes = await history(etcd, etcd_server)
    finally:
        for connection in connections:
            await connection.close()
    assert replay(writes, HOSTS, LINK) == []
    assert all(done[each] >= least for each, least in ENOUGH.items()), done


def test_the_checker_sees_what_is_wrong() -> None:
    part = {
        "name": "p",
        "state": "CONFIRMED",
        "placed": [{"workspace": "w-0", "host": "n1"}],
        "gateway": "",
        "spec": {
            "window": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T01:00:00Z"},
            "workspaces": [
                {
                    "group": "w",
                    "index": 0,
                    "nics": [],
                    "allocation": {
                        "vcpus": 4,
                        "memory_mib": 1,
                        "disk_mib": 1,
                        "disk": {"cap_iops": 1, "cap_mib_s": 1},
                        "nic": {"guarantee_mbit_s": 0},
                    },
                }
            ],
            "networks": [],
            "links": [],
        },
    }
    request = {"answer": "p"}
    good: History = [(1, "parts/demo/p", part), (1, "requests/x/1", request)]
    assert replay(good, HOSTS, LINK) == []
    twice = [*good, (2, "parts/demo/q", part), (2, "requests/x/2", request)]
    assert any("n1 vcpus is promised 8 of 6" in each for each in replay(twice, HOSTS, LINK))
    assert replay([*good, (2, "requests/x/1", request)], HOSTS, LINK)
    back = [*good, (2, "parts/demo/p", {**part, "state": "HELD"})]
    assert any("from CONFIRMED to HELD" in each for each in replay(back, HOSTS, LINK))
