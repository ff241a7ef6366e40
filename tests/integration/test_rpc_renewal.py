"""Certificates, keys and roots that are replaced while services serve and call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from intertie.api.cluster.v1 import clusters_pb2, clusters_pb2_grpc
from intertie.api.types.v1 import attach_pb2
from intertie.client.config import Endpoint
from intertie.client.connection import open_connection
from intertie.common import errors, followed
from intertie.common.clock import SystemClock
from intertie.common.rpc.client import channel, following_channel
from intertie.common.rpc.credentials import Credentials
from intertie.common.rpc.identity import Identities
from intertie.common.rpc.signing import verify
from intertie.common.settings import SettingsInvalid, TlsSettings
from tests.integration.pki import TestDomain, trust_in
from tests.integration.refusals import refusal
from tests.integration.renewal import Renewed, renew_certificate, renew_key, replace
from tests.integration.rpc_service import (
    GET,
    NAME,
    Clusters,
    calling,
    opening_of,
    serving,
)

ROTATIONS = 20
CALLS = 3
"""Of every caller, between one step of a rotation and the next."""
NORTH = "north.site.intertie"


@pytest.fixture(autouse=True)
def _look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for the second after which files are looked at again."""
    monkeypatch.setattr(followed, "LOOK_S", 0.0)


@pytest.fixture
def north(tmp_path: Path) -> Renewed:
    return Renewed(tmp_path, NORTH)


class Caller:
    """Calls again and again until it is told to stop."""

    def __init__(self, call: Callable[[], Awaitable[Any]]) -> None:
        self._call = call
        self.done = 0
        self.failed: list[Exception] = []
        self._called = asyncio.Event()
        self._going = True

    async def run(self) -> None:
        while self._going:
            try:
                await self._call()
            except Exception as error:
                self.failed.append(error)
                await asyncio.sleep(0.01)
            self.done += 1
            self._called.set()

    async def some_more(self) -> None:
        until = self.done + CALLS
        while self.done < until:
            self._called.clear()
            await self._called.wait()

    def stop(self) -> None:
        self._going = False


@asynccontextmanager
async def going(*callers: Caller) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each.run()) for each in callers]
    try:
        yield
    finally:
        for each in callers:
            each.stop()
        await asyncio.gather(*tasks)


async def test_twenty_rotations_fail_no_call(north: Renewed) -> None:
    """Each replaces the authority, the server's pair and the caller's; callers that keep their
    channel, make a new one for each call, or hold a stream, notice nothing."""
    server, alice = north.live.service("broker"), north.live.user("demo", "alice")
    credentials = Credentials(alice, (north.live.trust,), SystemClock())
    async with serving(server, [north.live], Clusters()) as address:
        line = following_channel(address, credentials, f"broker.{NORTH}")
        connection = open_connection(endpoint(address, north.live, alice), SystemClock())
        stub = clusters_pb2_grpc.ClustersStub(line)
        of_sdk = connection.stub(clusters_pb2_grpc.ClustersStub)
        stream: Any = stub.Attach()
        await stream.write(opening_of(f"{NAME}/workspaces/w-0"))
        assert (await stream.read()).opened

        async def anew() -> None:
            """Without waiting for a second try: the first handshake must do."""
            once = following_channel(address, credentials, f"broker.{NORTH}")
            async with once:
                await clusters_pb2_grpc.ClustersStub(once).Get(GET)

        async def echoed() -> None:
            await stream.write(attach_pb2.AttachRequest(data=b"x"))
            assert (await stream.read()).data == b"x"

        callers = [
            Caller(lambda: stub.Get(GET)),
            Caller(lambda: stub.Get(GET)),
            Caller(lambda: of_sdk.Get(GET)),
            Caller(anew),
            Caller(echoed),
        ]

        async def everybody() -> None:
            await asyncio.gather(*(each.some_more() for each in callers))

        seen = set()
        async with going(*callers), asyncio.timeout(120):
            for _ in range(ROTATIONS):
                north.begin()
                await everybody()
                new_server = north.now.service("broker")
                new_alice = north.now.user("demo", "alice")
                renew_certificate(server, new_server)
                renew_key(alice, new_alice)
                await everybody()
                renew_key(server, new_server)
                renew_certificate(alice, new_alice)
                await everybody()
                north.end()
                await everybody()
                seen.add(credentials.signer.certificate)
        assert [each.failed for each in callers] == [[] for _ in callers]
        assert len(seen) == ROTATIONS
        stream.cancel()
        await line.close()
        await connection.close()


def endpoint(address: str, domain: TestDomain, user: TlsSettings) -> Endpoint:
    return Endpoint(
        name="north",
        kind="site",
        addresses=(address,),
        server_name=domain.server_name("broker"),
        certificate=user.certificate,
        key=user.key,
        roots=domain.trust.roots,
        tenant="demo",
    )


async def test_a_removed_root_opens_no_connection_and_ends_those_that_stand(
    north: Renewed,
) -> None:
    server = north.live.service("broker")
    async with serving(server, [north.live], Clusters()) as address:
        alice = north.live.user("demo", "alice")
        async with calling(address, alice, north.live) as standing:
            await standing.Get(GET)
            north.begin()
            fresh = north.now.service("broker")
            renew_certificate(server, fresh)
            renew_key(server, fresh)
            await standing.Get(GET)
            north.end()
            refused = await refusal(standing.Get(GET))
            assert isinstance(refused, errors.IdentityUnknown)
            assert "trusted root" in refused.problem
        async with calling(address, alice, north.live) as late:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await late.Get(GET, timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        async with calling(address, north.now.user("demo", "alice"), north.live) as known:
            assert (await known.Get(GET)).name == NAME


def half(tls: TlsSettings, domain: TestDomain) -> None:
    tls.certificate.write_bytes(tls.certificate.read_bytes()[:300])


def empty_key(tls: TlsSettings, domain: TestDomain) -> None:
    tls.key.write_bytes(b"")


def no_file(tls: TlsSettings, domain: TestDomain) -> None:
    tls.key.unlink()


def anothers_key(tls: TlsSettings, domain: TestDomain) -> None:
    tls.key.write_bytes(domain.service("imagestore").key.read_bytes())


def anothers_name(tls: TlsSettings, domain: TestDomain) -> None:
    other = domain.service("imagestore")
    tls.certificate.write_bytes(other.certificate.read_bytes())
    tls.key.write_bytes(other.key.read_bytes())


def of_a_stranger(tls: TlsSettings, domain: TestDomain) -> None:
    stranger = TestDomain.create(domain.folder.parent / "evil", NORTH).service("broker")
    tls.certificate.write_bytes(stranger.certificate.read_bytes())
    tls.key.write_bytes(stranger.key.read_bytes())


def half_roots(tls: TlsSettings, domain: TestDomain) -> None:
    domain.trust.roots.write_bytes(domain.trust.roots.read_bytes()[:200])


def empty_roots(tls: TlsSettings, domain: TestDomain) -> None:
    domain.trust.roots.write_bytes(b"")


@pytest.mark.parametrize(
    "spoil",
    [
        half,
        empty_key,
        no_file,
        anothers_key,
        anothers_name,
        of_a_stranger,
        half_roots,
        empty_roots,
    ],
    ids=lambda each: each.__name__,
)
async def test_files_that_cannot_be_used_change_nothing_and_are_warned_of_once(
    north: Renewed, spoil: Callable[[TlsSettings, TestDomain], None]
) -> None:
    server, alice = north.live.service("broker"), north.live.user("demo", "alice")
    async with serving(server, [north.live], Clusters()) as address:
        async with calling(address, alice, north.live) as clusters:
            await clusters.Get(GET)
        good = {
            each: each.read_bytes()
            for each in (server.certificate, server.key, north.live.trust.roots)
        }
        trust, name = trust_in(north.live), north.live.server_name("broker")
        with capture_logs() as logs:
            spoil(server, north.live)
            for _ in range(3):
                async with channel(address, alice, trust, name) as link:
                    assert (await clusters_pb2_grpc.ClustersStub(link).Get(GET)).name == NAME
        warned = [each for each in logs if each["event"] == "credentials.kept"]
        assert len(warned) == 1
        assert warned[0]["log_level"] == "warning"
        assert warned[0]["problem"]
        assert "PRIVATE" not in str(warned)
        for path, content in good.items():
            replace(path, content)
        async with calling(address, alice, north.live) as clusters:
            assert (await clusters.Get(GET)).name == NAME


async def test_what_is_signed_after_a_renewal_is_signed_by_the_new_key(north: Renewed) -> None:
    tls = north.live.service("broker")
    credentials = Credentials(tls, (north.live.trust,), SystemClock())
    before = credentials.signer.sign(b"body")
    fresh = north.live.issue(f"spiffe://{NORTH}/broker")
    assert fresh == tls
    after = credentials.signer.sign(b"body")
    assert after.certificate != before.certificate
    known, now = Identities(credentials.trust), SystemClock().now()
    for made in (before, after):
        assert verify(b"body", made.signature, made.certificate, known, now=now).site == "north"


async def test_a_retired_channel_is_closed_when_its_last_call_is_over(north: Renewed) -> None:
    server, alice = north.live.service("broker"), north.live.user("demo", "alice")
    made: list[grpc.aio.Channel] = []
    credentials = Credentials(alice, (north.live.trust,), SystemClock())
    async with serving(server, [north.live], Clusters()) as address:
        line: Any = following_channel(address, credentials, f"broker.{NORTH}")
        async with line:
            stub = clusters_pb2_grpc.ClustersStub(line)
            watch = stub.Watch(clusters_pb2.WatchClusterRequest(name=NAME))
            await watch.read()
            made.append(line.line().channel)
            north.live.user("demo", "alice")
            await stub.Get(GET)
            assert line.line().channel is not made[0]
            assert made[0].get_state() is grpc.ChannelConnectivity.READY
            watch.cancel()
            for _ in range(500):
                if closed(made[0]):
                    break
                await asyncio.sleep(0.01)
            assert closed(made[0])
            await stub.Get(GET)


def closed(channel: grpc.aio.Channel) -> bool:
    try:
        return channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
    except grpc.aio.UsageError:
        return True


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (half, "no PEM certificate"),
        (empty_key, "no PEM private key"),
        (no_file, "No such file"),
        (anothers_key, "is not that of the certificate"),
        (of_a_stranger, "trusted root"),
        (empty_roots, "trust.roots"),
    ],
)
def test_a_service_does_not_start_on_files_it_cannot_use(
    north: Renewed, spoil: Callable[[TlsSettings, TestDomain], None], says: str
) -> None:
    """The bug: an unreadable or foreign certificate at the start ended brokers, agents and
    meta-schedulers with a traceback."""
    tls = north.live.service("broker")
    spoil(tls, north.live)
    with pytest.raises(SettingsInvalid) as refused:
        Credentials(tls, (north.live.trust,), SystemClock())
    assert says in str(refused.value)
    assert str(tls.certificate if "roots" not in says else north.live.trust.roots) in str(
        refused.value
    )


def test_an_expired_certificate_does_not_start_a_service(north: Renewed) -> None:
    tls = north.live.service("broker")

    class Later(SystemClock):
        def now(self) -> Any:
            return super().now() + timedelta(days=3)

    with pytest.raises(SettingsInvalid, match="is not valid at"):
        Credentials(tls, (north.live.trust,), Later())
