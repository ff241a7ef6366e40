"""Clients run against what integration tests run against: real etcd, certificates of two sites."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.broker_site import Site, site
from tests.integration.conftest import etcd_prefix, etcd_server, meta, north, south, two_sites
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain

__all__ = ["etcd_prefix", "etcd_server", "here", "meta", "north", "south", "two_sites"]


@pytest.fixture
async def here(
    tmp_path: Path,
    etcd_server: EtcdServer,
    etcd_prefix: str,
    north: TestDomain,
    meta: TestDomain,
) -> AsyncIterator[Site]:
    async with site(tmp_path, etcd_server.settings(etcd_prefix), north, (meta,)) as up:
        yield up
