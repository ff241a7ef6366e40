"""The site's image store, as an agent sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import grpc

from intertie.api.imagestore.v1 import images_pb2 as pb
from intertie.api.imagestore.v1 import images_pb2_grpc as rpc
from intertie.common.errors import NotFound
from intertie.common.rpc import request_id
from intertie.common.rpc.client import to_domain_error
from intertie.nodeagent.domain.failures import HostFailure

_TIMEOUT_S = 10.0


class ImagestoreClient:
    """Stat and Fetch over one channel, which is made anew after a failure."""

    def __init__(self, connect: Callable[[], grpc.aio.Channel]) -> None:
        self._connect = connect
        self._channel: grpc.aio.Channel | None = None

    async def size_bytes(self, digest: str, tenant: str) -> int:
        request = pb.StatImageRequest(name=_name(digest, tenant))
        try:
            image = await self._stub().Stat(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise await self._failure(error, digest) from error
        if image.state != pb.Image.READY:
            raise HostFailure(f"image {digest} is not ready at the image store")
        return int(image.size_bytes)

    async def fetch(self, digest: str, tenant: str, offset: int) -> AsyncIterator[bytes]:
        request = pb.FetchImageRequest(name=_name(digest, tenant), offset=offset)
        call = self._stub().Fetch(request, metadata=tuple(request_id.outgoing()))
        try:
            async for response in call:
                if response.offset != offset:
                    raise HostFailure(f"image {digest}: bytes came out of order")
                offset += len(response.data)
                yield response.data
        except grpc.aio.AioRpcError as error:
            raise await self._failure(error, digest) from error
        finally:
            call.cancel()

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    def _stub(self) -> rpc.ImagesAsyncStub:
        if self._channel is None:
            self._channel = self._connect()
        return rpc.ImagesStub(self._channel)

    async def _failure(self, error: grpc.aio.AioRpcError, digest: str) -> HostFailure:
        meant = to_domain_error(error)
        if meant is not None:
            return HostFailure(f"image {digest}: {meant}", final=isinstance(meant, NotFound))
        return HostFailure(f"image store: {error.code().name}: {error.details()}")


def _name(digest: str, tenant: str) -> str:
    return f"sites/-/tenants/{tenant}/images/{digest}"
