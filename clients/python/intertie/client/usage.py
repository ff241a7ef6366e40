"""What a tenant had reserved at a site."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime

from intertie.api.broker.v1 import usage_pb2_grpc
from intertie.api.broker.v1.usage_pb2 import (
    ListUsageEntriesRequest,
    ListUsageEntriesResponse,
    ListUsageRequest,
    UsageRecord,
)
from intertie.client.connection import Connection
from intertie.client.errors import NoUsageHere
from intertie.common.names import ANY, check_label

ALL = ANY
"""Every tenant, for who may: an operator of the site."""


class Usage:
    """Records are kept by sites: the endpoint must be one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = connection.stub(usage_pb2_grpc.UsageStub)

    async def list(
        self, tenant: str = "", *, start: datetime | None = None, end: datetime | None = None
    ) -> list[UsageRecord]:
        """Of the endpoint's tenant, another one, or ALL; those that meet the span."""
        request = ListUsageRequest(parent=self._parent(tenant), page_size=1000)
        if start is not None:
            request.start_time.FromDatetime(start)
        if end is not None:
            request.end_time.FromDatetime(end)
        found: list[UsageRecord] = []
        while True:
            page = await self._connection.call(self._stub.List, request)
            found.extend(page.records)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def chain(self, tenant: str = "") -> AsyncGenerator[ListUsageEntriesResponse]:
        """Every page of the site's chain, with the records of the tenant."""
        request = ListUsageEntriesRequest(parent=self._parent(tenant), page_size=500)
        while True:
            page: ListUsageEntriesResponse = await self._connection.call(
                self._stub.ListEntries, request
            )
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _parent(self, tenant: str) -> str:
        endpoint = self._connection.endpoint
        if endpoint.kind != "site":
            raise NoUsageHere(endpoint.name)
        wanted = tenant or endpoint.tenant
        return f"sites/-/tenants/{wanted if wanted == ALL else check_label(wanted, 'tenant')}"
