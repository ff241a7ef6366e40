"""What was reserved at a site, from clusters that end to the command that verifies: real etcd."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from intertie.api.broker.v1 import usage_pb2, usage_pb2_grpc
from intertie.api.cluster.v1 import clusters_pb2, clusters_pb2_grpc
from intertie.api.types.v1 import used_pb2
from intertie.broker.adapters import keys
from intertie.broker.adapters.etcd_ledger import EtcdLedger
from intertie.broker.adapters.etcd_usage import EtcdUsage
from intertie.broker.adapters.scribe import SigningScribe
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.records import Change, Write
from intertie.broker.loops.accounting import AT_ONCE, Accounting
from intertie.broker.loops.retention import Retention
from intertie.broker.usecases.forwarding import Forwarding
from intertie.client import usage_chain
from intertie.common import followed
from intertie.common.clock import SystemClock
from intertie.common.errors import NotLeading, RoleDenied
from intertie.common.etcd.client import DeleteKey, Etcd, Put
from intertie.common.intervals import Window
from intertie.common.rpc.identity import Trust
from intertie.common.rpc.signing import Signer
from intertie.common.rpc.terms_proto import timestamp_to_proto
from intertie.common.settings import TlsSettings
from tests.contract.ledgers import Leads
from tests.fakes.room import FakeRoom
from tests.fakes.site_brokers import Federation
from tests.fakes.site_brokers import create as create_over_two
from tests.integration.broker_site import LARGE_HOST, Site, cluster_spec, create, site
from tests.integration.command import say
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain, trust_in
from tests.integration.refusals import refusal
from tests.integration.renewal import Renewed, renew_certificate, renew_key
from tests.integration.test_metasched import two_groups
from tests.unit.broker.samples import POLICY, part, part_spec, workspace

pytestmark = pytest.mark.etcd

CLOCK = SystemClock()
WRITTEN_S = 60
"""The loop rests for 2 s and looks each 10 s."""


def usage(at: Site, tls: TlsSettings) -> usage_pb2_grpc.UsageAsyncStub:
    return usage_pb2_grpc.UsageStub(at.dial(tls))


async def ended(at: Site, tenant: str, *names: str) -> None:
    """Clusters of a tenant that are created and, a moment later, deleted."""
    stub = at.clusters(at.domain.user(tenant, "alice"))
    made = []
    for name in names:
        request = create(name, cluster_spec(count=1, pair_mbit_s=0), f"r-{name}")
        request.parent = f"-/tenants/{tenant}"
        made.append(await stub.Create(request))
    await asyncio.sleep(0.1)
    for each in made:
        await stub.Delete(clusters_pb2.DeleteClusterRequest(name=each.name))


async def written(at: Site, many: int) -> list[usage_pb2.UsageRecord]:
    stub = usage(at, at.domain.operator("olga"))
    request = usage_pb2.ListUsageRequest(parent="sites/-/tenants/-")
    async with asyncio.timeout(WRITTEN_S):
        while len(found := list((await stub.List(request)).records)) < many:
            await CLOCK.sleep(0.2)
    return found


async def audited(at: Site, tls: TlsSettings, tenant: str, trust: Trust) -> usage_chain.Verdict:
    stub = usage(at, tls)
    request = usage_pb2.ListUsageEntriesRequest(parent=f"sites/north/tenants/{tenant}", page_size=2)
    audit = usage_chain.Audit(trust)
    while True:
        page = await stub.ListEntries(request)
        audit.take(page)
        if not page.next_page_token:
            return audit.end()
        request.page_token = page.next_page_token


async def test_what_a_tenant_had_is_shown_to_it_and_to_operators_and_to_nobody_else(
    here: Site, south: TestDomain
) -> None:
    await ended(here, "demo", "one", "two")
    await ended(here, "other", "three")
    records = await written(here, 3)
    assert [each.number for each in records] == [1, 2, 3]
    assert {each.cluster.rpartition("/")[2]: each.tenant for each in records} == {
        "one": "demo",
        "two": "demo",
        "three": "other",
    }
    for each in records:
        assert each.final
        assert each.end_reason == "CANCELLED"
        assert each.owner == f"spiffe://north.site.intertie/tenant/{each.tenant}/user/alice"
        span = each.period.end_time.ToDatetime() - each.period.start_time.ToDatetime()
        assert timedelta() < span < timedelta(seconds=WRITTEN_S)
        assert (each.reserved.hosts.vcpus, each.reserved.hosts.memory_mib) == (1, 128)

    alice, bob = here.domain.user("demo", "alice"), here.domain.user("other", "bob")
    request = usage_pb2.ListUsageRequest(parent="sites/-/tenants/demo")
    assert len((await usage(here, alice).List(request)).records) == 2
    for tls in (
        bob,
        here.domain.service("agent/n1"),
        south.operator("sam"),
        south.user("demo", "a"),
    ):
        for call in (
            usage(here, tls).List(request),
            usage(here, tls).ListEntries(usage_pb2.ListUsageEntriesRequest(parent=request.parent)),
        ):
            assert isinstance(await refusal(call), RoleDenied)
    all_of_them = usage_pb2.ListUsageRequest(parent="sites/-/tenants/-")
    assert isinstance(await refusal(usage(here, alice).List(all_of_them)), RoleDenied)

    trust = trust_in(here.domain)
    assert (await audited(here, bob, "other", trust)).shown == 1
    whole = await audited(here, here.domain.operator("olga"), "-", trust)
    assert (whole.records, whole.shown) == (3, 3)
    assert whole.last is not None
    assert whole.last.signer == "spiffe://north.site.intertie/broker"
    with pytest.raises(usage_chain.ChainBroken, match="not good"):
        await audited(here, bob, "other", trust_in(south))


async def test_what_was_used_is_written_down_once_its_hosts_have_told_their_last(
    here: Site,
) -> None:
    """They tell more when they have nothing of it any more, and take that away at once."""
    now = timestamp_to_proto(CLOCK.now() + timedelta(minutes=1))
    here.agents.used = {"worker-0": used_pb2.Used(read_time=now, disk_bytes=70, sent_bytes=8)}
    stub = here.clusters()
    made = await stub.Create(create("one", cluster_spec(count=2, pair_mbit_s=0), "r-one"))
    await until_ready(stub, made.name)
    last = used_pb2.Used(read_time=now, disk_bytes=100, sent_bytes=9)
    last.read_time.seconds += 1
    last.cpu_time.FromSeconds(5)
    last.suspended_time.FromMilliseconds(1500)
    here.agents.used = {"worker-0": last}
    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=made.name))
    [record] = await written(here, 1)
    assert record.final
    known, unknown = record.used
    assert (known.workspace, known.used, known.unknown) == ("worker-0", last, False)
    assert (unknown.workspace, unknown.unknown) == ("worker-1", True)
    assert not unknown.used.HasField("read_time"), "which is not nothing"


async def until_ready(stub: clusters_pb2_grpc.ClustersAsyncStub, name: str) -> None:
    async with asyncio.timeout(20):
        async for each in stub.Watch(clusters_pb2.WatchClusterRequest(name=name)):
            if each.workspaces and all(ws.ready for ws in each.workspaces):
                return


def write_config(path: Path, at: Site) -> None:
    lines = []
    for name, tls in (
        ("demo", at.domain.user("demo", "alice")),
        ("olga", at.domain.operator("olga")),
    ):
        lines.append(
            f"""
[endpoints.{name}]
kind = "site"
address = "{at.address}"
server_name = "{at.domain.server_name("broker")}"
certificate = "{tls.certificate}"
key = "{tls.key}"
roots = "{at.domain.trust.roots}"
tenant = "demo"
"""
        )
    path.write_text("".join(lines))


async def test_the_command_lists_verifies_and_exports_and_finds_what_was_done_to_records(
    here: Site, tmp_path: Path
) -> None:
    config, chain, kept = tmp_path / "client.toml", tmp_path / "chain", tmp_path / "checkpoint"
    write_config(config, here)
    await ended(here, "demo", "one", "two", "three")
    await written(here, 3)

    listed = await say(config, "usage", "list")
    assert listed.code == 0, listed.err
    head, *rows, total = listed.out.splitlines()
    assert head.split()[:5] == ["NUMBER", "TENANT", "CLUSTER", "FROM", "UNTIL"]
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert total.split()[0] == "total"
    plain = json.loads((await say(config, "-o", "json", "usage", "list")).out)
    assert {each["cluster"].rpartition("/")[2] for each in plain} == {"one", "two", "three"}
    today = datetime.now(UTC).date()
    later = await say(config, "usage", "list", "--since", f"{today + timedelta(days=2)}")
    assert len(later.out.splitlines()) == 1

    good = await say(config, "usage", "verify", "--keep-checkpoint", str(kept))
    assert good.code == 0, good.err
    assert "north: all 3 records are as they were written" in good.err
    assert json.loads((await say(config, "-o", "json", "usage", "verify")).out)["records"] == 3

    exported = await say(config, "usage", "export")
    assert exported.code == 0, exported.err
    first, *lines = exported.out.splitlines()
    assert first == "APEL-cloud-message: v0.4"
    assert lines.count("%%") == 3
    assert {"SiteName: north", "LocalGroupId: demo", "Status: completed", "CpuCount: 1"} <= set(
        lines
    )

    whole = await say(config, "--endpoint", "olga", "usage", "export", "--all-tenants",
                      "--form", "chain")  # fmt: skip
    chain.write_text(whole.out)
    offline = await say(config, "usage", "verify", "--file", str(chain))
    assert offline.code == 0, offline.err
    pages = [json.loads(line) for line in whole.out.splitlines()]
    octets = bytearray(base64.b64decode(pages[0]["entries"][1]["record"]))
    octets[-1] ^= 1
    pages[0]["entries"][1]["record"] = base64.b64encode(octets).decode()
    chain.write_text("\n".join(map(json.dumps, pages)) + "\n")
    edited = await say(config, "usage", "verify", "--file", str(chain))
    assert (edited.code, "record 2 was edited" in edited.err) == (1, True), edited.err

    record = keys.usage_record_key("demo", 3)
    entry = await here.etcd.get(record)
    assert entry is not None
    await here.etcd.txn([], [DeleteKey(record)])
    dropped = await say(config, "usage", "verify")
    assert (dropped.code, "error: record 3 is missing" in dropped.err) == (1, True), dropped.err
    await here.etcd.txn([], [Put(record, entry.value)])
    assert (await say(config, "usage", "verify")).code == 0

    # All that there is of the last records is taken away, and the end put back to before.
    signed = await EtcdUsage(here.etcd).checkpoints(1, 9)
    await here.etcd.txn(
        [],
        [
            *(DeleteKey(keys.entry_key(number)) for number in (1, 2, 3)),
            *(DeleteKey(keys.usage_record_key("demo", number)) for number in (1, 2, 3)),
            *(DeleteKey(keys.checkpoint_key(each.number)) for each in signed),
            DeleteKey(keys.USAGE_HEAD),
        ],
    )
    assert (await say(config, "usage", "verify")).code == 0, "a chain that was never begun"
    cut = await say(config, "usage", "verify", "--since-checkpoint", str(kept))
    assert (cut.code, "record 1 is missing: the chain is cut off" in cut.err) == (1, True), cut.err
    kept.write_text("{}")
    wrong = await say(config, "usage", "verify", "--since-checkpoint", str(kept))
    assert (wrong.code, "is no checkpoint" in wrong.err) == (1, True), wrong.err


def lease(number: int) -> Part:
    """At noon, yesterday."""
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    start = noon - timedelta(days=1)
    window = Window(start, start + timedelta(hours=1))
    made = part(
        f"t{number}",
        spec=part_spec(workspace(), window=window),
        create_time=window.start,
    )
    return made.move(PartState.ENDED, now=window.end)


class Interrupted(SystemClock):
    """The leader is gone while it rests between two batches, and another one leads."""

    def __init__(self, etcd: Etcd) -> None:
        self.etcd = etcd
        self.rests = 0

    async def sleep(self, seconds: float) -> None:
        await super().sleep(0)
        self.rests += 1
        if self.rests == 2:
            await depose(self.etcd)


async def depose(etcd: Etcd) -> int:
    await etcd.txn([], [DeleteKey("election/broker")])
    return (await etcd.txn([], [Put("election/broker", b"next")])).revision


async def test_a_leader_that_is_killed_between_batches_leaves_nothing_out_and_nothing_twice(
    etcd: Etcd, north: TestDomain
) -> None:
    many = 4 * AT_ONCE
    records, scribe = EtcdUsage(etcd), SigningScribe("north", Signer.load(north.service("broker")))
    term = await depose(etcd)
    first = EtcdLedger(etcd, Leads(term), POLICY, CLOCK)
    made = [lease(number) for number in range(many)]
    await asyncio.gather(*(first.commit(Change(writes=(Write(record=each),))) for each in made))
    asleep = EtcdLedger(etcd, Leads(term), POLICY, CLOCK)
    assert len((await asleep.view()).parts) == many
    clock = Interrupted(etcd)
    with pytest.raises(NotLeading):
        await Accounting(first, records, scribe, "north", clock).sweep()
    before = await records.entries(after=0, most=1000)
    assert 0 < len(before) < many

    next_term = await etcd.get("election/broker")
    assert next_term is not None
    second = EtcdLedger(etcd, Leads(next_term.create_revision), POLICY, CLOCK)
    retention = Retention(second, Forwarding(second, None, CLOCK, FakeRoom()), LateClock())
    await retention.sweep()
    kept = {each.value.name for each in await second.parts()}
    assert len(kept) == many - len(before), "what is not written down is not forgotten"
    await Accounting(second, records, scribe, "north", CLOCK).sweep()
    with pytest.raises(NotLeading):
        await Accounting(asleep, records, scribe, "north", CLOCK).sweep()

    stored = await records.records("demo", after=0, most=1000)
    found = [usage_pb2.UsageRecord.FromString(each.body) for each in stored]
    assert sorted(each.part for each in found) == sorted(each.name for each in made)
    by_name = {each.name: each.window for each in made}
    for each in found:
        window = by_name[each.part]
        assert each.period.start_time.ToDatetime(tzinfo=UTC) == window.start
        assert each.period.end_time.ToDatetime(tzinfo=UTC) == window.end
    assert (await records.entries(after=0, most=1000))[: len(before)] == before
    await retention.sweep()
    assert await second.parts() == ()
    assert dict((await second.view()).accounts) == {}


class LateClock(SystemClock):
    """Two days later."""

    def now(self) -> datetime:
        return super().now() + timedelta(days=2)


async def test_what_ends_as_the_leader_fails_is_written_by_the_next_and_once(
    tmp_path: Path,
    etcd_server: EtcdServer,
    etcd_prefix: str,
    north: TestDomain,
    south: TestDomain,
) -> None:
    """Both replicas tell the same of it."""
    settings = etcd_server.settings(etcd_prefix)
    names = [f"c{number}" for number in range(6)]
    async with (
        site(tmp_path / "one", settings, north, (south,), hosts={"n1": LARGE_HOST}) as first,
        site(
            tmp_path / "two", settings, north, (south,), hosts={"n1": LARGE_HOST}, lead=False
        ) as second,
    ):
        await ended(first, "demo", *names)
        first.broker.election._lease = 0  # as one that is killed: nobody renews its key
        records = await written(second, len(names))
        assert sorted(each.cluster.rpartition("/")[2] for each in records) == names
        # Whoever wrote them leads: the other, or the same one in another term.
        leader = first if first.broker.election.is_leader else second
        await leader.until_leading()
        await ended(leader, "demo", "after")
        told = [await written(each, len(names) + 1) for each in (first, second)]
        assert told[0] == told[1]
        assert told[0][: len(names)] == records
        for replica in (first, second):
            olga = replica.domain.operator("olga")
            verdict = await audited(replica, olga, "-", trust_in(north))
            assert verdict.records == len(names) + 1


async def test_each_site_of_a_co_allocation_writes_down_its_own_part(
    two_sites: Federation,
) -> None:
    """From when it was decided, for the user that it was asked for, links included."""
    stub = two_sites.clusters()
    made = await stub.Create(create_over_two("c1", two_groups()))
    await asyncio.sleep(0.1)
    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=made.name))
    found: dict[str, usage_pb2.UsageRecord] = {}
    for name in two_sites.sites:
        async with two_sites.operating(name) as line:
            records = usage_pb2_grpc.UsageStub(line)
            request = usage_pb2.ListUsageRequest(parent=f"sites/{name}/tenants/-")
            async with asyncio.timeout(WRITTEN_S):
                while not (page := await records.List(request)).records:
                    await CLOCK.sleep(0.2)
            [found[name]] = page.records
    [part] = await two_sites.parts("north")
    north, south = found["north"], found["south"]
    assert part.name == north.part
    for each in (north, south):
        assert (each.tenant, each.cluster, each.final) == ("demo", made.name, True)
        assert each.owner == "spiffe://meta.meta.intertie/tenant/demo/user/alice"
    assert (north.reserved.hosts.vcpus, south.reserved.hosts.vcpus) == (1, 2)
    assert [(each.peer, each.egress_mbit_s) for each in north.reserved.links] == [("south", 40)]
    assert [(each.peer, each.egress_mbit_s) for each in south.reserved.links] == [("north", 40)]
    assert [(each.group, list(each.indices)) for each in south.workspaces] == [("worker", [0, 1])]
    decided = north.period.start_time.ToDatetime()
    assert decided >= part.spec.window.start_time.ToDatetime()


async def test_a_site_whose_certificate_was_renewed_has_one_chain_of_both(
    tmp_path: Path,
    etcd_server: EtcdServer,
    etcd_prefix: str,
    south: TestDomain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(followed, "LOOK_S", 0.0)
    north = Renewed(tmp_path / "pki", "north.site.intertie")
    settings = etcd_server.settings(etcd_prefix)
    async with site(tmp_path / "site", settings, north.live, (south,)) as at:
        await ended(at, "demo", "one")
        await written(at, 1)
        olga = at.domain.operator("olga")
        fresh = north.live.service("broker")
        again = TestDomain(north.live.name, north.live.folder)
        renewed = again.issue(
            "spiffe://north.site.intertie/broker", dns=("broker.north.site.intertie", "localhost")
        )
        assert fresh.certificate == renewed.certificate
        renew_certificate(at.settings.tls, renewed)
        renew_key(at.settings.tls, renewed)
        await ended(at, "demo", "two")
        await written(at, 2)
        stub = usage(at, olga)
        page = await stub.ListEntries(usage_pb2.ListUsageEntriesRequest(parent="sites/-/tenants/-"))
        assert len(page.certificates) == 2
        verdict = await audited(at, olga, "-", trust_in(north.live))
        assert (verdict.records, verdict.checkpoints) == (2, 2)
