"""What a site that is not configured means: to whoever has a part there, and to whoever asks."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from intertie.api.broker.v1 import part_pb2, parts_pb2, site_pb2
from intertie.common.errors import NoCapacity, NotFound, SiteUnreachable
from intertie.common.intervals import Window
from intertie.common.names import PartName
from intertie.common.part_spec import PartSpec, Recallable
from intertie.metasched.adapters.broker_client import Broker, BrokerSites
from intertie.metasched.domain.ports import HoldOrder
from tests.fakes.clock import START

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


@pytest.mark.parametrize("knows", [True, False])
async def test_a_site_that_does_not_go_by_a_deadline_is_not_held_to_one(knows: bool) -> None:
    """An earlier release would put such a part aside as any that waits."""

    async def hold(request: parts_pb2.HoldPartRequest, **_: Any) -> parts_pb2.HoldPartResponse:
        spec = request.spec
        if not knows:
            spec.recallable.ClearField("deadline")
        return parts_pb2.HoldPartResponse(part=part_pb2.Part(name=str(PART), spec=spec))

    stubs = SimpleNamespace(parts=SimpleNamespace(Hold=hold))
    sites = BrokerSites({"gone": cast(Broker, stubs)}, timeout_s=1)
    hour = timedelta(hours=1)
    order = HoldOrder(
        part=PART,
        spec=PartSpec(
            cluster="c",
            cluster_uid="u",
            window=Window(START, START + hour),
            recallable=Recallable(keep_for=timedelta(), deadline=START + 2 * hour),
        ),
        tx="t1",
        digest="d",
        coordinator="meta",
        participants=("gone",),
        decide_by=START + hour,
        now=START,
        owner="alice",
    )
    if knows:
        await sites.prepare(order)
        return
    with pytest.raises(NoCapacity) as refused:
        await sites.prepare(order)
    assert [each.resource for each in refused.value.shortfalls] == ["policy"]
