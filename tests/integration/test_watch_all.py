"""All clusters of a tenant, followed: brokers in this process, real etcd, real gRPC.

What streams tell is compared with what etcd itself remembers.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.api.nodeagent.v1 import records_pb2
from intertie.common.changes.history import History
from intertie.common.errors import FieldInvalid, NotLeading, RoleDenied
from intertie.common.etcd.client import DeleteKey, Etcd, Put
from intertie.common.rpc.client import to_domain_error
from tests.fakes.site_brokers import CLOCK, Federation
from tests.integration.broker_site import LARGE_HOST, Site, cluster_spec, create, site
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain
from tests.integration.test_metasched import two_groups
from tests.integration.watching import (
    AGAIN,
    DEMO,
    WITHIN_S,
    Reason,
    Told,
    as_told,
    delete,
    history,
    refusal,
    states_in,
)

pytestmark = pytest.mark.etcd


@pytest.fixture
async def replicas(
    tmp_path: Path, own_etcd_server: EtcdServer, north: TestDomain, south: TestDomain
) -> AsyncIterator[tuple[Site, Site]]:
    """On an etcd of their own; the first one leads."""
    etcd, hosts = own_etcd_server.settings("/test/watch"), {"n1": LARGE_HOST}
    async with (
        site(tmp_path / "one", etcd, north, (south,), hosts=hosts) as first,
        site(tmp_path / "two", etcd, north, (south,), hosts=hosts, lead=False) as second,
    ):
        yield first, second


async def test_nothing_is_missed_over_cut_streams_and_a_fail_over(
    replicas: tuple[Site, Site],
) -> None:
    """200 changes and more, a stream cut at random places and taken up at random at either of two
    replicas, of which the leader loses the lead meanwhile; against etcd's own history."""
    draw = random.Random(41)
    first, _ = replicas
    begun = (await first.etcd.place()).revision
    told = Told()
    names = [f"c{number}" for number in range(48)]
    over = cluster_pb2.Cluster.CANCELLED

    async def leading(act: Callable[[Site], Any]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while True:
                for replica in replicas:
                    try:
                        await act(replica)
                        return
                    except grpc.aio.AioRpcError as error:
                        if error.code() not in AGAIN:
                            raise
                await asyncio.sleep(0.1)

    async def live(name: str) -> None:
        await asyncio.sleep(draw.random() * 4)
        await leading(lambda at: at.clusters().Create(create(name, cluster_spec(count=1), name)))
        await asyncio.sleep(draw.random() * 2)
        await leading(lambda at: delete(at, name))

    async def deposed() -> None:
        await asyncio.sleep(2)
        first.broker.election._lease = 0  # as of a leader that is killed

    work = asyncio.gather(deposed(), *(live(each) for each in names))

    def ended() -> bool:
        known = told.clusters().values()
        return len(known) == len(names) and all(each.state == over for each in known)

    cuts = 0
    while not ended():
        if work.done():
            await work
        await told.read_some(draw.choice(replicas), draw.randint(1, 12), ended)
        cuts += 1
    await work

    last = (await first.etcd.place()).revision
    await first.agents.report(first.broker._clock)  # something after the last
    happened = states_in(await history(first.etcd, begun + 1, last), first.etcd.prefix)
    heard: dict[str, list[Any]] = {}
    for cluster in told.changed:
        passed = heard.setdefault(cluster.name, [])
        if not passed or passed[-1] != as_told(cluster):
            passed.append(as_told(cluster))
    assert heard == happened
    assert sum(map(len, happened.values())) >= 200
    tokens = [each.resume_token for each in told.events if each.WhichOneof("event") == "changed"]
    assert len(tokens) == len(set(tokens)), "nothing is told twice"
    assert told.reasons == [Reason.NO_TOKEN], "and nothing is begun anew"
    assert cuts >= 15


async def test_a_replica_that_begins_after_it_goes_through_what_was(
    replicas: tuple[Site, Site],
) -> None:
    """As after a restart: the second one has followed nothing until it is asked."""
    first, second = replicas
    told = Told()
    await told.read(first, lambda: "snapshot_end" in told.kinds)
    await first.clusters().Create(create("one", cluster_spec(count=1), "one"))
    here = Told()
    await here.read(first, lambda: bool(here.clusters()))
    async with asyncio.timeout(WITHIN_S):
        while True:
            found = await first.clusters().Get(
                clusters_pb2.GetClusterRequest(name=f"{DEMO}/clusters/one")
            )
            if found.state == cluster_pb2.Cluster.ACTIVE:
                break
            await asyncio.sleep(0.1)
    active = cluster_pb2.Cluster.ACTIVE
    await told.read(second, lambda: any(each.state == active for each in told.changed))
    assert told.reasons == [Reason.NO_TOKEN]
    passed = [
        (cluster_pb2.Cluster.State.Name(c.state), c.workspaces[0].ready) for c in told.changed
    ]
    assert passed[0] == ("SCHEDULED", False)
    assert ("SCHEDULED", True) in passed
    assert passed[-1] == ("ACTIVE", True)
    assert told.changed[-1] == found, "the same message as of Get"


async def test_after_a_compaction_an_old_token_gets_a_snapshot(
    replicas: tuple[Site, Site],
) -> None:
    first, second = replicas
    told = Told()
    await told.read(first, lambda: "snapshot_end" in told.kinds)
    await first.clusters().Create(create("one", cluster_spec(count=1), "one"))
    await told.read(first, lambda: bool(told.changed))
    token = told.token
    await first.clusters().Create(create("two", cluster_spec(count=1), "two"))
    await told.read(first, lambda: len(told.clusters()) == 2)
    await first.etcd._kv.compact((await first.etcd.place()).revision)
    late = Told()
    await late.read(second, lambda: "snapshot_end" in late.kinds, token=token)
    assert late.reasons == [Reason.TOO_OLD]
    assert late.kinds[:3] == ["snapshot_begin", "snapshot_clusters", "snapshot_end"]
    assert [each.resume_token != "" for each in late.events[:3]] == [False, False, True]
    assert len(late.clusters()) == 2
    remembered = Told()
    await remembered.read(first, lambda: len(remembered.clusters()) == 2, token=token)
    assert remembered.reasons == [], "who has followed it all along remembers more than etcd"
    await delete(first, "one")
    await late.read(second, lambda: late.changed[-1:] != [] and late.changed[-1].name[-3:] == "one")
    assert late.reasons == [Reason.TOO_OLD]


async def test_a_slow_reader_gets_a_snapshot_and_the_quick_one_every_change(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real flow control: what the reader does not take, gRPC does not send."""
    monkeypatch.setattr(History.__init__, "__kwdefaults__", {"most": 8, "most_weight": 1 << 24})
    quick, slow = Told(), Told()
    made = await here.clusters().Create(create("one", cluster_spec(count=1), "one"))
    here.agents.obedient = False
    stream = here.clusters().WatchAll(clusters_pb2.WatchClustersRequest(parent=DEMO))
    slow.events.append(await anext(taken := aiter(stream)))
    async with quick.reading(here):
        host = made.workspaces[0].host
        (key,) = [each for each in (await here.etcd.range("wanted/")).entries if host in each.key]
        wanted = records_pb2.WantedPart.FromString(key.value)
        for number in range(120):
            seen = here.agents._seen(wanted, host)
            seen.workspaces[0].message = f"{number} " + "x" * 100_000
            await here.agents.put(f"seen/{host}/parts/{wanted.part_uid}", seen)
            await quick.until(lambda: _number(quick.changed[-1:]) == number)  # noqa: B023
        assert quick.reasons == [Reason.NO_TOKEN]
        async with asyncio.timeout(WITHIN_S):
            while _number([*slow.clusters().values()]) != 119:
                slow.events.append(await anext(taken))
    stream.cancel()
    assert slow.reasons == [Reason.NO_TOKEN, Reason.FELL_BEHIND]
    assert slow.kinds[-2:] == ["snapshot_begin", "snapshot_clusters"]
    assert len(slow.changed) < 110


def _number(clusters: list[cluster_pb2.Cluster]) -> int:
    words = clusters[-1].workspaces[0].message.split() if clusters else []
    return int(words[0]) if len(words) == 2 else -1


async def test_an_etcd_that_is_started_again_is_followed_from_where_it_was(
    replicas: tuple[Site, Site], own_etcd_server: EtcdServer
) -> None:
    """Nothing happens unseen between two watches, nor between two connections of one."""
    first, _ = replicas
    told = Told()
    for each in replicas:
        each.agents.obedient = False
    await first.clusters().Create(create("one", cluster_spec(count=1), "one"))
    async with asyncio.timeout(WITHIN_S):
        while not (wanted := (await first.etcd.range("wanted/")).entries):
            await CLOCK.sleep(0.05)
    uid = wanted[0].key.rpartition("/")[2]
    async with told.reading(first, lasting=True):
        await told.until(lambda: bool(told.reasons))  # who begins without etcd is refused
        number = 0
        for _ in range(3):
            await asyncio.to_thread(own_etcd_server.kill)
            await asyncio.to_thread(own_etcd_server.start)
            writer = await Etcd.connect(own_etcd_server.settings("/test/watch"))
            for _ in range(40):  # at once, before the broker's own connection stands again
                part = records_pb2.SeenPart(schema=1, part_uid=uid)
                part.workspaces.add(name="worker-0", message=f"{number} x")
                put = Put(f"seen/n1/parts/{uid}", part.SerializeToString())
                await writer.txn([], [put])
                number += 1
            await writer.close()
        await told.until(lambda: _number(told.changed[-1:]) == number - 1)
        numbers = [_number([each]) for each in told.changed]
        assert [each for each in numbers if each >= 0] == [*range(number)]
        assert told.reasons == [Reason.NO_TOKEN]


async def test_a_replica_that_stops_ends_its_streams_at_once(here: Site) -> None:
    told = Told()
    async with told.reading(here):
        await here.broker.end_streams()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await told.until(lambda: False)
    assert isinstance(to_domain_error(caught.value), NotLeading)
    assert isinstance(await refusal(here, parent=DEMO), NotLeading)


async def test_each_tenant_is_told_of_its_own(here: Site, north: TestDomain) -> None:
    bob, operator = north.user("other", "bob"), north.operator("olga")
    demo, other = Told(), Told(parent="sites/north/tenants/other", tls=bob)
    everything = Told(parent="sites/-/tenants/-", tls=operator)
    async with demo.reading(here), other.reading(here), everything.reading(here):
        await here.clusters().Create(create("mine", cluster_spec(count=1), "1"))
        theirs = create("theirs", cluster_spec(count=1), "2")
        theirs.parent = "-/tenants/other"
        await here.clusters(bob).Create(theirs)
        active = cluster_pb2.Cluster.ACTIVE
        for told, count in ((demo, 1), (other, 1), (everything, 2)):
            await told.until_states([active] * count)
        assert {each.name.split("/")[3] for each in demo.changed} == {"demo"}
        assert {each.name.split("/")[3] for each in other.changed} == {"other"}
        tenants = {each.name.split("/")[3] for each in everything.changed}
        assert tenants == {"demo", "other"}
    for parent in ("-/tenants/other", "sites/-/tenants/-"):
        assert isinstance(await refusal(here, parent=parent), RoleDenied)
    stolen = await refusal(here, bob, parent="-/tenants/other", resume_token=demo.token)
    assert isinstance(stolen, FieldInvalid)
    assert stolen.field == "resume_token"


@pytest.mark.parametrize("token", ["x", "garbage!", "A" * 44, "é", "A" * 100_000])
async def test_a_token_that_is_none_is_refused(here: Site, token: str) -> None:
    found = await refusal(here, parent=DEMO, resume_token=token)
    assert isinstance(found, FieldInvalid)
    assert found.field == "resume_token"
    assert "leave it out" in found.problem


async def test_a_record_that_is_cleared_away_is_told_of(here: Site) -> None:
    told = Told()
    async with told.reading(here):
        made = await here.clusters().Create(create("one", cluster_spec(count=1), "one"))
        await delete(here, "one")
        over = cluster_pb2.Cluster.CANCELLED
        await told.until(lambda: [each.state for each in told.clusters().values()] == [over])
        await here.etcd.txn([], [DeleteKey("clusters/demo/one")])
        await told.until(lambda: told.kinds[-1] == "gone")
        assert told.events[-1].gone.uid == made.uid
        assert told.events[-1].gone.name == made.name
    token = told.token
    await told.read(here, lambda: told.kinds[-1] == "alive", token=token)
    assert told.reasons == [Reason.NO_TOKEN]


async def test_what_is_measured_is_no_change_but_a_broken_promise_is(here: Site) -> None:
    told = Told()
    made = await here.clusters().Create(create("one", cluster_spec(count=1), "one"))
    host = "n1"

    async def measure(value: float, *, broken: bool) -> None:
        record = records_pb2.HostMeasured(schema=1)
        record.measured_time.GetCurrentTime()
        part = record.parts.add(part_uid=uid)
        direction = part.directions.add(kind=cluster_pb2.Guarantee.DISK_IOPS, value=value)
        direction.source = "worker-0"
        direction.backlogged = broken
        if broken:
            direction.below_since.CopyFrom(record.measured_time)
        await here.agents.put(f"seen/{host}/measured", record)

    async def said_again() -> None:
        """The agent has written once more what it sees, which is as it was."""
        key = f"seen/{host}/parts/{uid}"
        async with asyncio.timeout(WITHIN_S):
            before = await here.etcd.get(key)
            while (now := await here.etcd.get(key)) == before:
                await CLOCK.sleep(0.05)
        assert now is not None

    async with told.reading(here):
        active = cluster_pb2.Cluster.ACTIVE
        await told.until(lambda: [c.state for c in told.clusters().values()] == [active])
        host = told.clusters()[made.name].workspaces[0].host
        entries = (await here.etcd.range(f"seen/{host}/parts/")).entries
        uid = entries[0].key.rpartition("/")[2]
        before = len(told.changed)
        for value in (120.0, 110.0, 105.0):
            await measure(value, broken=False)
            await said_again()
        here.agents.obedient = False
        await measure(50.0, broken=True)
        await told.until(lambda: len(told.changed) > before)
        here.agents.obedient = True
        for value in (49.0, 48.0):
            await measure(value, broken=True)
            await said_again()
        here.agents.obedient = False
        await measure(101.0, broken=False)
        await told.until(lambda: len(told.changed) > before + 1)
        values = [
            one.value
            for cluster in told.changed[before:]
            for each in cluster.guarantees
            for one in each.measured
        ]
        assert values == [50.0, 101.0]


async def test_a_meta_scheduler_tells_of_what_its_sites_say(
    two_sites: Federation, meta: TestDomain
) -> None:
    """A stream that is cut and taken up at either replica, against one that is never cut."""
    other = two_sites.another()
    await other.start(lead=False)
    draw = random.Random(7)
    try:
        whole, cut, theirs = Told(), Told(), Told(parent="-/tenants/other")
        theirs.tls = meta.user("other", "bob")
        over = cluster_pb2.Cluster.CANCELLED
        async with whole.reading(two_sites), theirs.reading(other):
            await cut.read(two_sites, lambda: "snapshot_end" in cut.kinds)
            stub = two_sites.clusters()
            await stub.Create(create("c1", two_groups(), "r1"))

            def ended(told: Told) -> bool:
                return [each.state for each in told.clusters().values()] == [over]

            deleted = False
            while not ended(cut):
                at = draw.choice([two_sites, other])
                await cut.read_some(at, draw.randint(1, 3), lambda: ended(cut))
                active = [each.state for each in cut.clusters().values()]
                if active == [cluster_pb2.Cluster.ACTIVE] and not deleted:
                    found = await stub.Get(
                        clusters_pb2.GetClusterRequest(name=cut.changed[-1].name)
                    )
                    assert [(w.state, w.ready) for w in found.workspaces] == [
                        (w.state, w.ready) for w in cut.changed[-1].workspaces
                    ]
                    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=found.name))
                    deleted = True
            await whole.until(lambda: ended(whole))
        assert cut.changed == whole.changed
        assert cut.reasons == whole.reasons == [Reason.NO_TOKEN]
        assert theirs.changed == []
        passed = [cluster_pb2.Cluster.State.Name(each.state) for each in whole.changed]
        assert [*dict.fromkeys(passed)] == ["PLANNED", "SCHEDULED", "ACTIVE", "CANCELLED"]
        ready = [sum(w.ready for w in each.workspaces) for each in whole.changed]
        assert max(ready) == 3
        assert not any("unreachable" in w.message for c in whole.changed for w in c.workspaces)
        left = await two_sites.metasched._etcd.range("seen/")  # type: ignore[union-attr]
        assert len(left.entries) == 1, "with the record, until that goes"
    finally:
        for line in other.channels:
            await line.close()
        await other.kill()
