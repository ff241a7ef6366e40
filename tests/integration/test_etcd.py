"""The wrapper around etcd, its elections and roles, against the real thing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from intertie.common import followed
from intertie.common.clock import SystemClock
from intertie.common.errors import EtcdUnavailable, NotLeading
from intertie.common.etcd.client import Compare, DeleteKey, Etcd, EtcdRefused, Op, Put
from intertie.common.etcd.election import LEASE_TTL_S, Election
from intertie.common.etcd.roles import provision
from intertie.common.settings import EtcdSettings, SettingsInvalid
from testbed.pki import Authority
from tests.integration.etcd_server import EtcdServer

pytestmark = pytest.mark.etcd


async def put(etcd: Etcd, key: str, value: bytes = b"x") -> int:
    return (await etcd.txn([], [Put(key, value)])).revision


async def test_of_two_writers_that_read_the_same_revision_one_wins(etcd: Etcd) -> None:
    revision = await put(etcd, "a")
    entry = await etcd.get("a")
    assert entry is not None
    assert (entry.key, entry.mod_revision, entry.create_revision) == ("a", revision, revision)
    first, second = await asyncio.gather(
        etcd.txn([Compare.mod("a", revision)], [Put("a", b"1")]),
        etcd.txn([Compare.mod("a", revision)], [Put("a", b"2")]),
    )
    assert [first.succeeded, second.succeeded].count(True) == 1


async def test_every_kind_of_compare(etcd: Etcd) -> None:
    revision = await put(etcd, "a", b"1")
    await put(etcd, "a", b"2")
    cases = {
        Compare.absent("b"): True,
        Compare.absent("a"): False,
        Compare.mod("b", 0): True,
        Compare.value("a", b"2"): True,
        Compare.value("a", b"1"): False,
        Compare.created("a", revision): True,
        Compare.created("a", revision + 1): False,
    }
    for compare, holds in cases.items():
        assert (await etcd.txn([compare], [])).succeeded is holds, compare


async def test_nothing_of_a_transaction_is_done_when_a_compare_fails(etcd: Etcd) -> None:
    await put(etcd, "a")
    then: list[Op] = [Put("b", b"1"), DeleteKey("a")]
    assert not (await etcd.txn([Compare.absent("a")], then)).succeeded
    assert await etcd.get("a")
    assert await etcd.get("b") is None


async def test_a_range_of_many_pages_is_one_snapshot(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intertie.common.etcd.client._PAGE", 10)
    await etcd.txn([], [Put(f"p/{k:03}", b"old") for k in range(95)])
    await put(etcd, "q/outside")
    snapshot = await etcd.range("p/")
    assert [entry.key for entry in snapshot.entries] == [f"p/{k:03}" for k in range(95)]
    assert snapshot.revision >= snapshot.entries[-1].mod_revision


async def test_what_a_range_leaves_out_is_not_in_it_and_all_else_is_of_one_revision(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intertie.common.etcd.client._PAGE", 10)
    names = [f"{place}{k:02}" for place in ("a/", "m/", "m0", "m", "z/") for k in range(15)]
    await etcd.txn([], [Put(each, b"old") for each in names])
    get = etcd._kv.get
    asked = 0

    async def written_over(*args: Any, **kwargs: Any) -> Any:
        nonlocal asked
        asked += 1
        answer = await get(*args, **kwargs)
        await etcd.txn([], [Put("z/14", str(asked).encode()), Put(f"b{asked}", b"new")])
        return answer

    monkeypatch.setattr(etcd._kv, "get", written_over)
    snapshot = await etcd.range("", without=("m/",))
    assert [each.key for each in snapshot.entries] == sorted(
        each for each in names if not each.startswith("m/")
    )
    assert {each.value for each in snapshot.entries} == {b"old"}
    assert asked > 2


async def test_some_entries_are_those_from_a_key_to_a_key(etcd: Etcd) -> None:
    await etcd.txn([], [Put(f"p/{k}", b"") for k in range(10)])
    for first, last, most, found in (
        ("p/2", "p/5", 100, "2345"),
        ("p/2", "p/5", 3, "234"),
        ("p/55", "p/7", 100, "67"),
        ("p/9", "q", 100, "9"),
        ("p/5", "p/2", 100, ""),
    ):
        entries = await etcd.some(first, last, most=most)
        assert [each.key for each in entries] == [f"p/{k}" for k in found]


async def test_a_prefix_keeps_clients_apart(etcd_server: EtcdServer, etcd: Etcd) -> None:
    other = await Etcd.connect(etcd_server.settings("/elsewhere"))
    try:
        await put(etcd, "mine")
        assert await other.get("mine") is None
        assert all(entry.key != "mine" for entry in (await other.range("")).entries)
    finally:
        await other.close()


async def test_too_many_operations_are_refused_before_they_are_sent(etcd: Etcd) -> None:
    with pytest.raises(ValueError, match="128"):
        await etcd.txn([], [Put(f"k{k}", b"") for k in range(129)])


async def test_a_watch_hints_at_changes_from_a_revision_on(etcd: Etcd) -> None:
    start = await put(etcd, "w/before")
    await put(etcd, "w/a")
    changes = etcd.watch("w/", start + 1)
    async with asyncio.timeout(10):
        assert (await anext(changes)).keys == ("w/a",)
        await etcd.txn([], [DeleteKey("w/a")])
        assert (await anext(changes)).keys == ("w/a",)
    await changes.aclose()


async def test_a_watch_on_a_compacted_revision_ends(own_etcd: Etcd) -> None:
    start = await put(own_etcd, "w/a")
    last = await put(own_etcd, "w/a")
    await own_etcd._kv.compact(last)
    async with asyncio.timeout(10):
        hints = [change async for change in own_etcd.watch("w/", start)]
    assert len(hints) == 1


async def test_calls_fail_while_etcd_is_down_and_work_again_after(
    own_etcd_server: EtcdServer,
) -> None:
    etcd = await Etcd.connect(own_etcd_server.settings("/a"))
    try:
        revision = await put(etcd, "a")
        own_etcd_server.kill()
        with pytest.raises(EtcdUnavailable):
            await put(etcd, "a")
        own_etcd_server.start()
        async with asyncio.timeout(10):
            await eventually(lambda: put(etcd, "a"))
        entry = await etcd.get("a")
        assert entry is not None
        assert entry.create_revision == revision
    finally:
        await etcd.close()


@asynccontextmanager
async def running(*elections: Election) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(election.run()) for election in elections]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_replica_leads_and_another_follows_at_once(etcd: Etcd) -> None:
    one = Election(etcd, "e", "one", SystemClock())
    other = Election(etcd, "e", "other", SystemClock())
    async with asyncio.timeout(30), running(one) as [first]:
        await one.wait_until_leading()
        async with running(other):
            assert await other.leader() == "one"
            with pytest.raises(NotLeading):
                other.leader_guard()
            guard = one.leader_guard()
            assert (await etcd.txn([guard], [])).succeeded
            first.cancel()
            began = time.monotonic()
            await other.wait_until_leading()
            # At once, not when the lease runs out.
            assert time.monotonic() - began < LEASE_TTL_S
            assert not (await etcd.txn([guard], [])).succeeded
            assert await one.leader() == "other"


async def test_a_leader_that_lost_its_key_writes_nothing_and_campaigns_again(etcd: Etcd) -> None:
    election = Election(etcd, "e", "one", SystemClock())
    async with running(election), asyncio.timeout(30):
        await election.wait_until_leading()
        guard = election.leader_guard()
        await etcd.txn([], [DeleteKey("election/e")])
        assert not (await etcd.txn([guard], [Put("a", b"")])).succeeded
        await election.wait_until_deposed()
        await election.wait_until_leading()
        assert (await etcd.txn([election.leader_guard()], [])).succeeded


async def test_leadership_ends_and_comes_back_with_etcd(own_etcd_server: EtcdServer) -> None:
    etcd = await Etcd.connect(own_etcd_server.settings("/a"))
    election = Election(etcd, "e", "one", SystemClock())
    try:
        async with running(election), asyncio.timeout(40):
            await election.wait_until_leading()
            own_etcd_server.kill()
            await election.wait_until_deposed()
            own_etcd_server.start()
            await election.wait_until_leading()
    finally:
        await etcd.close()


async def test_roles_confine_an_agent_to_its_own_host(tmp_path: Path) -> None:
    server = _TlsEtcdServer(tmp_path)
    server.start()
    clients = []
    try:
        for user in ("root", "broker", "agent-n1"):
            clients.append(await Etcd.connect(server.settings_of(user)))
        root, broker, agent = clients
        await provision(root, ["n1", "n10"])
        await provision(root, ["n1", "n10"])

        await put(broker, "wanted/n1/parts/a")
        await put(broker, "parts/demo/a")
        assert len((await agent.range("wanted/n1/")).entries) == 1
        await put(agent, "seen/n1/facts")
        async with asyncio.timeout(5):
            changes = agent.watch("wanted/n1/", 1)
            await anext(changes)
            await changes.aclose()
        with pytest.raises(EtcdRefused):
            await put(agent, "wanted/n1/parts/a")
        with pytest.raises(EtcdRefused):
            await put(agent, "seen/n10/facts")
        with pytest.raises(EtcdRefused):
            await agent.range("wanted/n10/")
        await put(broker, "incast/n10/share")
        await put(agent, "incast/n1/share")
        assert len((await agent.range("incast/")).entries) == 2
        with pytest.raises(EtcdRefused):
            await put(agent, "incast/n10/share")
        with pytest.raises(EtcdRefused):
            await agent.get("parts/demo/a")
        election = Election(broker, "broker", "one", SystemClock())
        async with running(election), asyncio.timeout(10):
            await election.wait_until_leading()
    finally:
        for client in clients:
            await client.close()
        server.kill()


async def test_a_name_stands_for_the_addresses_of_a_cluster(tmp_path: Path) -> None:
    server = _TlsEtcdServer(tmp_path)
    server.start()
    settings = server.settings_of("root")
    port = server.endpoint.rpartition(":")[2]
    client = await Etcd.connect(settings.model_copy(update={"endpoints": (f"localhost:{port}",)}))
    try:
        async with asyncio.timeout(20):
            await eventually(lambda: put(client, "a"))
        assert await client.get("a") is not None
    finally:
        await client.close()
        server.kill()


async def test_a_client_follows_its_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What watches goes on; what is asked after a renewal is asked with the new certificate."""
    monkeypatch.setattr(followed, "LOOK_S", 0.0)
    server = _TlsEtcdServer(tmp_path)
    server.start()
    settings = server.settings_of("root")
    client = await Etcd.connect(settings)
    line: Any = client._channel
    shown = set()
    try:
        async with asyncio.timeout(20):
            await eventually(lambda: put(client, "a"))
            for turn in range(3):
                fresh_key = server.renew_certificate("root")
                await put(client, f"half-{turn}")
                server.write_key("root", fresh_key)
                await put(client, f"whole-{turn}")
                shown.add(line.line().made_of[1])
            found = (await client.range("")).entries
        assert len(found) == 7
        assert len(shown) == 3
        server.write_key("root", b"")
        with pytest.raises(SettingsInvalid, match="no PEM private key"):
            await Etcd.connect(settings)
    finally:
        await client.close()
        server.kill()


class _TlsEtcdServer(EtcdServer):
    """Asks for client certificates, as a site's does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._pki = folder / "pki"
        authority = Authority(self._pki)
        authority.create("etcd authority")
        for name, dns in {"server": ("etcd.north.site.intertie",), "root": (), "broker": (),
                          "agent-n1": ()}.items():  # fmt: skip
            self.renew(name, dns)

    def renew(self, name: str, dns: tuple[str, ...] = ()) -> None:
        Authority(self._pki).issue(
            name,
            common_name=name,
            spiffe=f"spiffe://north.site.intertie/{name}",
            dns=dns,
            addresses=("127.0.0.1",),
        )

    def renew_certificate(self, name: str) -> bytes:
        """Without its key, which it returns."""
        path = self._pki / f"{name}.key"
        old = path.read_bytes()
        self.renew(name)
        fresh = path.read_bytes()
        assert fresh != old
        path.write_bytes(old)
        return fresh

    def write_key(self, name: str, key: bytes) -> None:
        (self._pki / f"{name}.key").write_bytes(key)

    scheme = "https"

    def options(self) -> list[str]:
        return [
            f"--cert-file={self._pki}/server.pem",
            f"--key-file={self._pki}/server.key",
            f"--trusted-ca-file={self._pki}/ca.pem",
            "--client-cert-auth",
            "--enable-grpc-gateway=false",
        ]

    def settings_of(self, user: str) -> EtcdSettings:
        return EtcdSettings(
            endpoints=(self.endpoint,),
            ca=self._pki / "ca.pem",
            certificate=self._pki / f"{user}.pem",
            key=self._pki / f"{user}.key",
            server_name="etcd.north.site.intertie",
            prefix="/intertie/north",
        )


async def eventually(attempt: Callable[[], object]) -> None:
    """Repeats while etcd does not answer."""
    while True:
        try:
            await attempt()  # type: ignore[misc]
        except EtcdUnavailable:
            await asyncio.sleep(0.1)
        else:
            return


async def test_keys_come_in_pages_of_one_revision(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intertie.common.etcd.client._PAGE_OF_KEYS", 3)
    written = {}
    for number in range(8):
        done = await etcd.txn([], [Put(f"k/{number}", b"x" * 100)])
        written[f"k/{number}"] = done.revision
    await etcd.txn([], [Put("other", b"")])
    found: dict[str, int] = {}
    pages = []
    async for page in etcd.keys("k/"):
        pages.append(page)
        found.update(page.keys)
        # What comes, goes and is written over meanwhile is of later revisions.
        await etcd.txn([], [Put("k/7", b"y"), Put(f"k/9{len(pages)}", b""), DeleteKey("k/5")])
    assert found == written
    assert [len(each.keys) for each in pages] == [3, 3, 2]
    assert len({each.revision for each in pages}) == 1
    now = dict([pair async for page in etcd.keys("k/") for pair in page.keys])
    assert "k/5" not in now
    assert now["k/7"] > written["k/7"]
