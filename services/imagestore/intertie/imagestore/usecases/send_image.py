"""Sending an image to another site's store, as fast as was granted."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from intertie.common.clock import Clock
from intertie.common.errors import RoleDenied
from intertie.common.names import ImageName
from intertie.common.rpc.identity import Identity
from intertie.common.transfer import TransferGrant
from intertie.imagestore.domain.pacing import Paces, message_bytes
from intertie.imagestore.domain.transfers import objection, run_out
from intertie.imagestore.usecases.read_images import FetchImage

SEND = "/intertie.api.imagestore.v1.Transfers/Send"


class SendImage:
    def __init__(self, fetch: FetchImage, clock: Clock, *, site: str) -> None:
        self._fetch = fetch
        self._clock = clock
        self._site = site
        self._paces = Paces()

    async def __call__(
        self, grant: TransferGrant, offset: int, *, caller: Identity
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        """Blocks with their offsets. The grant is one that a broker of this site has signed;
        RoleDenied where it is for something else, and when it runs out."""
        now = self._clock.now()
        if why := objection(grant, site=self._site, target_site=caller.site, now=now):
            raise RoleDenied(caller.spiffe, SEND, why)
        if grant.begin_time > now:
            await self._clock.sleep((grant.begin_time - now).total_seconds())
        pace = self._paces.of(grant, now=now)
        blocks = self._fetch(
            ImageName(self._site, grant.tenant, grant.digest),
            offset=offset,
            length=0,
            any_tenant=False,
            block_bytes=message_bytes(grant.mbit_s),
        )
        async with aclosing(blocks):
            async for at, data in blocks:
                while wait_s := pace.wait_s(len(data), self._clock.monotonic()):
                    await self._clock.sleep(wait_s)
                if self._clock.now() >= grant.end_time:
                    raise RoleDenied(caller.spiffe, SEND, run_out(grant))
                yield at, data
