"""A broker's server whose answers a test sets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.pki import TestDomain
from tests.integration.rpc_service import Clusters, serving


@pytest.fixture
def servicer() -> Clusters:
    return Clusters()


@pytest.fixture
async def broker(
    north: TestDomain, south: TestDomain, meta: TestDomain, servicer: Clusters
) -> AsyncIterator[str]:
    """Its address."""
    async with serving(north.service("broker"), [north, south, meta], servicer) as address:
        yield address
