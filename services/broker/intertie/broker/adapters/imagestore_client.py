"""The site's image store, asked what it has."""

import grpc

from intertie.api.imagestore.v1 import images_pb2, images_pb2_grpc
from intertie.broker.domain.planning import Image
from intertie.common.clock import Clock
from intertie.common.errors import FieldInvalid, NotFound, SiteUnreachable
from intertie.common.names import ImageName
from intertie.common.rpc.client import to_domain_error
from intertie.common.shared import Shared

TIMEOUT_S = 5.0
FRESH_S = 5.0
"""An image that was there is taken to be there for so long: a meta-scheduler asks for it when it
plans, and again when it holds. One that was not there is asked for each time."""


class GrpcImages:
    """See domain.ports.Images."""

    def __init__(self, channel: grpc.aio.Channel, site: str, clock: Clock) -> None:
        self._stub = images_pb2_grpc.ImagesStub(channel)
        self._site = site
        self._clock = clock
        self._shared = Shared(self._find)
        self._found: dict[tuple[str, str], tuple[float, Image]] = {}
        """With the monotonic moment of the question, the oldest first."""

    async def find(self, tenant: str, image: str) -> Image | None:
        what = (tenant, image)
        now = self._clock.monotonic()
        self._forget(now - FRESH_S)
        if (known := self._found.get(what)) is not None:
            return known[1]
        found = await self._shared(what)
        if found is not None:
            self._found.pop(what, None)
            self._found[what] = (now, found)
        return found

    def _forget(self, before: float) -> None:
        for what, (asked_at, _) in tuple(self._found.items()):
            if asked_at <= before:
                del self._found[what]

    async def _find(self, what: tuple[str, str]) -> Image | None:
        tenant, image = what
        request = images_pb2.StatImageRequest(name=str(ImageName(self._site, tenant, image)))
        try:
            found = await self._stub.Stat(request, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            meant = to_domain_error(error)
            if isinstance(meant, NotFound | FieldInvalid):
                return None
            problem = f"its image store: {error.details() or error.code().name}"
            raise meant or SiteUnreachable(self._site, problem) from None
        if found.state != images_pb2.Image.READY:
            return None
        return Image(
            digest=found.digest,
            size_bytes=found.size_bytes,
            virtual_size_bytes=found.virtual_size_bytes,
        )
