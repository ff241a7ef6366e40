"""The site's image store, as an agent sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc

from intertie.api.imagestore.v1 import images_pb2 as pb
from intertie.api.imagestore.v1 import images_pb2_grpc as rpc
from intertie.common.errors import NotFound
from intertie.common.rpc import request_id
from intertie.common.rpc.client import following_channel, to_domain_error
from intertie.common.rpc.credentials import Credentials
from intertie.common.settings import PeerSettings, SettingsInvalid
from intertie.nodeagent.domain.failures import HostFailure

_TIMEOUT_S = 10.0


def to_imagestore(peer: PeerSettings, credentials: Credentials) -> grpc.aio.Channel:
    """SettingsInvalid where nobody is trusted to speak for its name."""
    try:
        return following_channel(peer.address, credentials, peer.server_name)
    except ValueError as error:
        raise SettingsInvalid(f"imagestore.server_name: {error}") from None


class ImagestoreClient:
    """Stat and Fetch, over a channel that whoever made it closes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._images: rpc.ImagesAsyncStub = rpc.ImagesStub(channel)

    async def size_bytes(self, digest: str, tenant: str) -> int:
        request = pb.StatImageRequest(name=_name(digest, tenant))
        try:
            image = await self._images.Stat(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise await self._failure(error, digest) from error
        if image.state != pb.Image.READY:
            raise HostFailure(f"image {digest} is not ready at the image store")
        return int(image.size_bytes)

    async def fetch(self, digest: str, tenant: str, offset: int) -> AsyncIterator[bytes]:
        request = pb.FetchImageRequest(name=_name(digest, tenant), offset=offset)
        call = self._images.Fetch(request, metadata=tuple(request_id.outgoing()))
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

    async def _failure(self, error: grpc.aio.AioRpcError, digest: str) -> HostFailure:
        meant = to_domain_error(error)
        if meant is not None:
            return HostFailure(f"image {digest}: {meant}", final=isinstance(meant, NotFound))
        return HostFailure(f"image store: {error.code().name}: {error.details()}")


def _name(digest: str, tenant: str) -> str:
    return f"sites/-/tenants/{tenant}/images/{digest}"
