"""What a fake and the real thing both pass runs on the same real etcd as integration tests."""

from collections.abc import AsyncIterator

import pytest

from intertie.common.etcd.client import Etcd
from tests.contract.ledgers import InEtcd, InMemory, Kind
from tests.integration.conftest import (
    etcd,
    etcd_prefix,
    etcd_server,
    own_etcd,
    own_etcd_server,
)
from tests.integration.etcd_server import EtcdServer

__all__ = ["etcd", "etcd_prefix", "etcd_server", "own_etcd", "own_etcd_server"]


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.etcd)])
async def kind(request: pytest.FixtureRequest) -> AsyncIterator[Kind]:
    """Either ledger."""
    if request.param == "memory":
        yield InMemory()
    else:
        server: EtcdServer = request.getfixturevalue("etcd_server")
        prefix: str = request.getfixturevalue("etcd_prefix")
        client = await Etcd.connect(server.settings(prefix))
        yield await InEtcd.of(client)
        await client.close()
