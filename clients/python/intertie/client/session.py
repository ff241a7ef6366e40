"""A client of one endpoint: what `connect` gives."""

from __future__ import annotations

from typing import Self

from intertie.client.clusters import Clusters
from intertie.client.config import Config, Endpoint
from intertie.client.connection import Connection, open_connection, open_image_store
from intertie.client.images import Images
from intertie.client.sites import Hosts, Sites
from intertie.client.usage import Usage
from intertie.common.clock import Clock, SystemClock


class Client:
    """Use as `async with`, or close it."""

    def __init__(self, config: Config, endpoint: Endpoint, clock: Clock) -> None:
        self.config = config
        self.endpoint = endpoint
        self.clock = clock
        self._opened = [open_connection(endpoint, clock)]
        self.clusters = Clusters(self._opened[0])
        self.sites = Sites(self._opened[0])
        self.hosts = Hosts(self._opened[0], self.sites)
        self.usage = Usage(self._opened[0])

    def images(self, site: str | None = None) -> Images:
        """The image store of the endpoint `site`, or of this one."""
        endpoint = self.config.endpoint(site) if site else self.endpoint
        connection: Connection = open_image_store(endpoint, self.clock)
        self._opened.append(connection)
        return Images(connection)

    async def close(self) -> None:
        while self._opened:
            await self._opened.pop().close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def connect(
    config: Config, endpoint: str | None = None, *, clock: Clock | None = None
) -> Client:
    """A client of the endpoint of that name, of the default one when there is none.

    Nothing is dialled yet: an address where nobody answers shows with the first call.
    """
    return Client(config, config.endpoint(endpoint), clock or SystemClock())
