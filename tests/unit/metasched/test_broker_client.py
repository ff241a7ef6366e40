"""What a site that is not configured means: to whoever has a part there, and to whoever asks."""

from __future__ import annotations

import pytest

from intertie.api.broker.v1 import site_pb2
from intertie.common.errors import NotFound, SiteUnreachable
from intertie.common.names import PartName
from intertie.metasched.adapters.broker_client import BrokerSites

PART = PartName.parse("sites/gone/tenants/demo/parts/t1")


async def test_a_part_at_a_site_that_is_configured_no_more_is_not_taken_for_over() -> None:
    """A bug: it was NOT_FOUND, as of a part that has ended, while its guests ran on."""
    sites = BrokerSites({}, timeout_s=1)
    with pytest.raises(SiteUnreachable):
        await sites.part(PART)
    with pytest.raises(SiteUnreachable):
        await sites.release(PART, "CANCELLED")


async def test_a_site_that_a_caller_names_wrongly_is_not_found() -> None:
    sites = BrokerSites({}, timeout_s=1)
    with pytest.raises(NotFound):
        await sites.describe("gone")
    with pytest.raises(NotFound):
        await sites.hosts(site_pb2.ListHostsRequest(parent="sites/gone"))
