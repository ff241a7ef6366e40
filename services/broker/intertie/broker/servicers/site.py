"""The Hosts and Sites APIs."""

from collections.abc import AsyncIterator
from typing import Any

from intertie.api.broker.v1 import site_pb2, site_pb2_grpc
from intertie.broker import site_proto
from intertie.broker.usecases.hosts import Inventory
from intertie.common.errors import FieldInvalid, NotFound
from intertie.common.names import HostName
from intertie.common.rpc.pages import page_of

Context = Any


class HostsServicer(site_pb2_grpc.HostsServicer):
    def __init__(self, site: str, inventory: Inventory) -> None:
        self._site = site
        self._inventory = inventory

    async def List(
        self, request: site_pb2.ListHostsRequest, context: Context
    ) -> site_pb2.ListHostsResponse:
        check_site(request.parent, "parent", self._site)
        page, following = page_of(
            await self._inventory.hosts(),
            lambda each: each.facts.host,
            size=request.page_size,
            token=request.page_token,
            scope=f"sites/{self._site}/hosts",
        )
        return site_pb2.ListHostsResponse(
            hosts=[site_proto.host_to_proto(each) for each in page], next_page_token=following
        )

    async def Get(self, request: site_pb2.GetHostRequest, context: Context) -> site_pb2.Host:
        name = HostName.parse(request.name)
        check_site(f"sites/{name.site}", "name", self._site)
        return site_proto.host_to_proto(await self._inventory.host(name))

    async def Watch(
        self, request: site_pb2.WatchHostsRequest, context: Context
    ) -> AsyncIterator[site_pb2.Host]:
        check_site(request.parent, "parent", self._site)
        async for each in self._inventory.watch():
            yield site_proto.host_to_proto(each)


class SitesServicer(site_pb2_grpc.SitesServicer):
    def __init__(self, site: str, inventory: Inventory) -> None:
        self._site = site
        self._inventory = inventory

    async def Get(self, request: site_pb2.GetSiteRequest, context: Context) -> site_pb2.Site:
        check_site(request.name, "name", self._site)
        return site_proto.site_to_proto(await self._inventory.site())


def check_site(name: str, field: str, site: str) -> None:
    """`sites/{site}` for this site, or `sites/-` for whichever is asked."""
    kind, _, place = name.partition("/")
    if kind != "sites" or not place or "/" in place:
        raise FieldInvalid(field, f"{name!r} must read sites/SITE")
    if place not in ("-", site):
        raise NotFound(name)
