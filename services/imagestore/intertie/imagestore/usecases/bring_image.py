"""Bringing images from other sites' stores, each once however many ask for it."""

from __future__ import annotations

import asyncio

from intertie.common.clock import Clock
from intertie.common.errors import NotFound
from intertie.common.names import ImageName
from intertie.imagestore.domain.ports import ImageFiles, PeerStores
from intertie.imagestore.domain.transfers import Order, State, Transfer, run_out
from intertie.imagestore.usecases.bringing import Bringing
from intertie.imagestore.usecases.put_image import PutImage
from intertie.imagestore.usecases.shelf import Shelf


class BringImage:
    def __init__(
        self, files: ImageFiles, shelf: Shelf, put: PutImage, stores: PeerStores, clock: Clock
    ) -> None:
        self._files = files
        self._shelf = shelf
        self._put = put
        self._stores = stores
        self._clock = clock
        self._known: dict[tuple[str, str], Bringing] = {}
        """By tenant and digest."""

    async def __call__(self, order: Order) -> Transfer:
        """How far it is. StoreFull, and NameTaken, before anything is begun."""
        said = order.said
        self._put.check(said)
        self._stores.check(order.source)
        self._shelf.check_name(said)
        self._forget()
        if await self._shelf.holds(said):
            if order.named:
                await self._shelf.publish(said)
            return _done(said.digest, said.size_bytes)
        key = (said.tenant, said.digest)
        if key not in self._known:
            if order.grant.end_time <= self._clock.now():
                return Transfer(
                    digest=said.digest,
                    size_bytes=said.size_bytes,
                    done_bytes=0,
                    state=State.FAILED,
                    message=run_out(order.grant),
                )
            await self._put.check_room(said)
        bringing = self._known.setdefault(
            key, Bringing(order, self._files, self._put, self._stores, self._clock)
        )
        bringing.ask(order)
        return await bringing.view()

    async def find(self, name: ImageName) -> Transfer:
        """By digest; NotFound where it is neither here nor on its way."""
        try:
            image = self._shelf.find(name)
            if await self._shelf.is_intact(image):
                return _done(image.digest, image.size_bytes)
        except NotFound:
            pass
        bringing = self._known.get((name.tenant, name.image_id))
        if bringing is None:
            raise NotFound(str(name))
        return await bringing.view()

    async def run(self) -> None:
        """Until it is cancelled; then nothing is on its way any more."""
        try:
            await asyncio.Event().wait()
        finally:
            for bringing in self._known.values():
                await bringing.stop()

    def _forget(self) -> None:
        now = self._clock.now()
        self._known = {key: each for key, each in self._known.items() if not each.forgotten_at(now)}


def _done(digest: str, size_bytes: int) -> Transfer:
    return Transfer(digest=digest, size_bytes=size_bytes, done_bytes=size_bytes, state=State.DONE)
