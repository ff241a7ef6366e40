"""Sites and their hosts: all that a meta-scheduler knows, or the one site of a broker."""

from __future__ import annotations

from collections.abc import Sequence

from intertie.api.broker.v1 import site_pb2_grpc
from intertie.api.broker.v1.site_pb2 import (
    GetSiteRequest,
    Host,
    ListHostsRequest,
    Site,
)
from intertie.api.metasched.v1 import sites_pb2_grpc
from intertie.api.metasched.v1.sites_pb2 import KnownSite, ListKnownSitesRequest
from intertie.client.connection import Connection
from intertie.common.errors import NotFound
from intertie.common.names import HostName, check_label


class Sites:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._one = connection.stub(site_pb2_grpc.SitesStub)
        self._known = connection.stub(sites_pb2_grpc.KnownSitesStub)

    async def list(self) -> list[KnownSite]:
        if self._connection.endpoint.kind == "metasched":
            answer = await self._connection.call(self._known.List, ListKnownSitesRequest())
            return list(answer.sites)
        site: Site = await self._connection.call(self._one.Get, GetSiteRequest(name="sites/-"))
        return [KnownSite(site=site, reachable=True)]

    async def get(self, name: str) -> KnownSite:
        full_name = name if "/" in name else f"sites/{check_label(name, 'site')}"
        for known in await self.list():
            if known.site.name == full_name:
                return known
        raise NotFound(full_name)


class Hosts:
    def __init__(self, connection: Connection, sites: Sites) -> None:
        self._connection = connection
        self._sites = sites
        self._one = connection.stub(site_pb2_grpc.HostsStub)
        self._known = connection.stub(sites_pb2_grpc.KnownSitesStub)

    async def list(self, site: str | None = None) -> list[Host]:
        """Hosts of `site`, or of every site that can be reached."""
        if site:
            return [*await self._of((await self._sites.get(site)).site.name)]
        hosts: list[Host] = []
        for known in await self._sites.list():
            if known.reachable:
                hosts.extend(await self._of(known.site.name))
        return hosts

    async def get(self, name: str) -> Host:
        """By `north/n1` or in full."""
        if name.count("/") == 1:
            site, _, host = name.partition("/")
            name = f"sites/{site}/hosts/{host}"
        wanted = HostName.parse(name)
        for host_found in await self.list(wanted.site):
            if host_found.name == str(wanted):
                return host_found
        raise NotFound(str(wanted))

    async def _of(self, site: str) -> Sequence[Host]:
        at_metasched = self._connection.endpoint.kind == "metasched"
        method = self._known.ListHosts if at_metasched else self._one.List
        request = ListHostsRequest(parent=site)
        hosts = []
        while True:
            page = await self._connection.call(method, request)
            hosts.extend(page.hosts)
            if not page.next_page_token:
                return hosts
            request.page_token = page.next_page_token
