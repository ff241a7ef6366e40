"""Real etcd on loopback, and certificates of two sites and a meta-scheduler."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from intertie.common.etcd.client import Etcd
from tests.fakes.site_brokers import Federation, federation
from tests.integration.broker_site import Site, site
from tests.integration.cli_place import Place, place_in
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def etcd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """Shared by the tests of a run: leave it running, with its history.

    Kill or compact one of your own (`own_etcd_server`, `own_etcd`).
    """
    yield from _started(EtcdServer(tmp_path_factory.mktemp("etcd")))


@pytest.fixture
def own_etcd_server(tmp_path: Path) -> Iterator[EtcdServer]:
    """For a test that kills and restarts it."""
    yield from _started(EtcdServer(tmp_path))


@pytest.fixture
async def own_etcd(own_etcd_server: EtcdServer) -> AsyncIterator[Etcd]:
    """For a test that compacts it."""
    client = await Etcd.connect(own_etcd_server.settings("/test"))
    yield client
    await client.close()


def _started(server: EtcdServer) -> Iterator[EtcdServer]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def etcd_prefix() -> str:
    """No other test's keys are under it."""
    return f"/test/{next(_numbers)}"


@pytest.fixture
async def etcd(etcd_server: EtcdServer, etcd_prefix: str) -> AsyncIterator[Etcd]:
    client = await Etcd.connect(etcd_server.settings(etcd_prefix))
    yield client
    await client.close()


@pytest.fixture(scope="session")
def north(tmp_path_factory: pytest.TempPathFactory) -> TestDomain:
    return TestDomain.create(tmp_path_factory.mktemp("pki"), "north.site.intertie")


@pytest.fixture(scope="session")
def south(tmp_path_factory: pytest.TempPathFactory) -> TestDomain:
    return TestDomain.create(tmp_path_factory.mktemp("pki"), "south.site.intertie")


@pytest.fixture(scope="session")
def meta(tmp_path_factory: pytest.TempPathFactory) -> TestDomain:
    return TestDomain.create(tmp_path_factory.mktemp("pki"), "meta.meta.intertie")


@pytest.fixture
async def two_sites(
    tmp_path: Path,
    etcd_server: EtcdServer,
    etcd_prefix: str,
    north: TestDomain,
    south: TestDomain,
    meta: TestDomain,
) -> AsyncIterator[Federation]:
    """With a meta-scheduler over them that leads."""
    async with federation(tmp_path, etcd_server, etcd_prefix, north, south, meta) as up:
        yield up


@pytest.fixture
async def here(
    tmp_path: Path,
    etcd_server: EtcdServer,
    etcd_prefix: str,
    north: TestDomain,
    south: TestDomain,
) -> AsyncIterator[Site]:
    """A site with its broker; the south may call it."""
    async with site(tmp_path / "site", etcd_server.settings(etcd_prefix), north, (south,)) as up:
        yield up


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with place_in(tmp_path) as made:
        yield made
