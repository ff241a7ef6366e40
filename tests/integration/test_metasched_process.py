"""The meta-scheduler as the process that runs: settings from a file, signals, a kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.client.changes import Changed, Snapshot
from intertie.common import errors
from intertie.common.rpc.client import to_domain_error
from intertie.metasched.settings import MetaschedSettings
from tests.fakes.site_brokers import CLOCK, Federation, create
from tests.integration.pki import TestDomain
from tests.integration.test_metasched import NAME, two_groups
from tests.integration.test_replicas import Client

pytestmark = pytest.mark.etcd


@pytest.fixture
async def here(two_sites: Federation) -> Federation:
    await two_sites.kill()
    return two_sites


def as_toml(settings: MetaschedSettings) -> str:
    lines = [f'name = "{settings.name}"', "[listen]"]
    lines += [f'addresses = ["{settings.listen.addresses[0]}"]', "[tls]"]
    lines += [f'certificate = "{settings.tls.certificate}"', f'key = "{settings.tls.key}"']
    for trust in settings.trust:
        lines += ["[[trust]]", f'domain = "{trust.domain}"', f'roots = "{trust.roots}"']
    lines += ["[etcd]", f'endpoints = ["{settings.etcd.endpoints[0]}"]']
    lines += [f'prefix = "{settings.etcd.prefix}"']
    for site in settings.sites:
        lines += ["[[sites]]", f'name = "{site.name}"', f"addresses = {list(site.addresses)}"]
        lines += [f'server_name = "{site.server_name}"', f'trust_domain = "{site.trust_domain}"']
    lines += ["[commit]", "decide_within_s = 15", "rpc_timeout_s = 5"]
    return "\n".join(lines) + "\n"


@asynccontextmanager
async def running(
    here: Federation, folder: Path, **env: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    config = folder / "metasched.toml"
    await asyncio.to_thread(config.write_text, as_toml(here.settings))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from intertie.metasched.main import main; main()",
        "--config",
        str(config),
        env={**os.environ, **env},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def created(
    here: Federation, spec: cluster_pb2.ClusterSpec | None = None
) -> cluster_pb2.Cluster:
    """Asks until somebody leads and answers, always with the same request id."""
    stub = here.clusters()
    async with asyncio.timeout(30):
        while True:
            try:
                return await stub.Create(create("c1", spec or two_groups()))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise AssertionError(str(to_domain_error(error))) from error
                await CLOCK.sleep(0.2)


async def test_it_serves_until_it_is_told_to_stop(here: Federation, tmp_path: Path) -> None:
    async with running(here, tmp_path) as process:
        cluster = await created(here)
        assert cluster.state == cluster_pb2.Cluster.SCHEDULED
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            assert await process.wait() == 0
    async with running(here, tmp_path):
        again = await created(here)
        assert again.uid == cluster.uid


async def _to_its_end(stream: AsyncIterator[object]) -> None:
    async for _ in stream:
        pass


async def test_open_watches_do_not_hold_up_the_end(here: Federation, tmp_path: Path) -> None:
    """The bug: a stream that nobody ends took all of the 10 s that calls are given."""
    async with running(here, tmp_path) as process:
        await created(here)
        request = clusters_pb2.WatchClusterRequest(name=NAME)
        watching = aiter(here.clusters().Watch(request))
        assert (await anext(watching)).name == NAME
        of_all = clusters_pb2.WatchClustersRequest(parent="-/tenants/demo")
        following = aiter(here.clusters().WatchAll(of_all))
        assert (await anext(following)).HasField("snapshot_begin")
        process.send_signal(signal.SIGTERM)
        for stream in (watching, following):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asyncio.wait_for(_to_its_end(stream), 6)
            assert isinstance(to_domain_error(caught.value), errors.NotLeading)
        async with asyncio.timeout(4):
            assert await process.wait() == 0


async def test_who_follows_all_clusters_goes_on_after_kill_9(
    here: Federation, meta: TestDomain, tmp_path: Path
) -> None:
    """The process that takes its place has heard of nothing; what was, it takes from etcd."""
    active, over = cluster_pb2.Cluster.ACTIVE, cluster_pb2.Cluster.CANCELLED
    told: list[Changed] = []

    async def until(state: int) -> None:
        async for event in events:
            assert not isinstance(event, Snapshot), "it goes on where it was"
            if isinstance(event, Changed):
                told.append(event)
                if event.cluster.state == state:
                    return

    async with (
        asyncio.timeout(150),
        Client(meta, "metasched", here.address) as clusters,
        aclosing(clusters.watch_all()) as events,
    ):
        async with running(here, tmp_path) as process:
            begun = await anext(events)  # once it is up
            assert isinstance(begun, Snapshot)
            assert begun.clusters == ()
            await created(here)
            await until(active)
            await clusters.delete("c1")
            process.kill()
            await process.wait()
        async with running(here, tmp_path):
            await until(over)
    assert len({each.token for each in told}) == len(told)
    ended = [each.cluster.HasField("end_requested_time") for each in told]
    assert ended == sorted(ended), "in order"
    assert ended.count(True) >= 2, "also what was asked for before it was killed"


async def test_kill_9_between_prepare_and_decision_leaves_nothing_of_that_attempt(
    here: Federation, tmp_path: Path
) -> None:
    async with running(here, tmp_path, INTERTIE_FAULT_PAUSE="after_prepare:60") as process:
        call = asyncio.ensure_future(created(here))
        async with asyncio.timeout(30):
            while [len(await here.parts(site)) for site in here.sites] != [1, 1]:
                await CLOCK.sleep(0.1)
        process.kill()
        await process.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    async with running(here, tmp_path):
        states = await here.until_settled(40)
        assert all(each <= {"RELEASED", "EXPIRED"} for each in states.values())
        await created(here)
        stub = here.clusters()
        listed = await stub.List(clusters_pb2.ListClustersRequest(parent="-/tenants/demo"))
        assert len(listed.clusters) == 1


async def test_settings_that_cannot_be_used_are_told_in_one_line(tmp_path: Path) -> None:
    config = tmp_path / "metasched.toml"
    await asyncio.to_thread(config.write_text, 'name = "meta"\nmispelt = 1\n')
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from intertie.metasched.main import main; main()",
        "--config",
        str(config),
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    assert process.returncode == 1
    assert b"mispelt: is not a setting" in told
    assert b"Traceback" not in told
