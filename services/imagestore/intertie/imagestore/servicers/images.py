"""The Images service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from intertie.api.imagestore.v1 import images_pb2 as pb
from intertie.api.imagestore.v1 import images_pb2_grpc
from intertie.common.clock import Clock
from intertie.common.errors import FieldInvalid, IdentityUnknown, RoleDenied
from intertie.common.names import ImageName, Parent
from intertie.common.rpc.identity import Role, current_identity
from intertie.common.rpc.pages import page_of
from intertie.common.rpc.terms_proto import timestamp_from_proto
from intertie.common.values import replace
from intertie.imagestore import convert
from intertie.imagestore.domain.granting import Grant, objection, source_of
from intertie.imagestore.domain.image import BLOCK_BYTES, Announcement, Image
from intertie.imagestore.usecases.put_image import PutImage
from intertie.imagestore.usecases.read_images import FetchImage, ListImages, StatImage
from intertie.imagestore.usecases.shelf import Shelf

ACCEPTED_KEY = "intertie-accepted"
_PUT = "/intertie.api.imagestore.v1.Images/Put"


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    put: PutImage
    stat: StatImage
    list: ListImages
    fetch: FetchImage
    shelf: Shelf


class Grants(Protocol):
    def open(self, message: pb.SnapshotGrant) -> Grant:
        """IdentityUnknown unless a broker of this site has signed it."""
        ...


class ImagesServicer(images_pb2_grpc.ImagesServicer):
    def __init__(self, usecases: UseCases, grants: Grants, clock: Clock, *, site: str) -> None:
        self._do = usecases
        self._grants = grants
        self._clock = clock
        self._site = site

    async def Put(self, request_iterator: Any, context: Any) -> pb.Image:
        frames = aiter(request_iterator)
        first = await anext(frames, None)
        if first is None or first.WhichOneof("frame") != "header":
            raise FieldInvalid("header", "must be the first message of the stream")
        said = self._announced(first.header)
        image = await self._do.put(said, first.header.offset, _blocks(frames, context))
        return convert.image_to_proto(image, site=self._site)

    def _announced(self, header: pb.PutImageRequest.Header) -> Announcement:
        """What is about to come, and whose it is to be; RoleDenied for what a host has no leave
        to put."""
        identity = current_identity()
        said = convert.announcement_from_proto(header, site=self._site, owner=identity.caller)
        if identity.role is not Role.AGENT:
            if header.HasField("grant"):
                raise FieldInvalid("header.grant", "is for node agents; leave it out")
            return said
        if not header.HasField("grant"):
            raise RoleDenied(identity.spiffe, _PUT, "a host needs a broker's grant")
        try:
            grant = self._grants.open(header.grant)
        except IdentityUnknown as error:
            raise RoleDenied(identity.spiffe, _PUT, error.problem) from None
        host = identity.host or ""
        why = objection(grant, said, site=self._site, host=host, now=self._clock.now())
        if why:
            raise RoleDenied(identity.spiffe, _PUT, why)
        taken_time = timestamp_from_proto(header.taken_time, "header.taken_time")
        if header.data:
            raise FieldInvalid("header.data", "is none of a snapshot; leave it out")
        source = source_of(grant, taken_time, quiesced=header.quiesced)
        return replace(said, owner=grant.owner, source=source)

    async def Stat(self, request: pb.StatImageRequest, context: Any) -> pb.Image:
        found = await self._do.stat(ImageName.parse(request.name), any_tenant=_is_host())
        if isinstance(found, Image):
            return convert.image_to_proto(found, site=self._site)
        return convert.upload_to_proto(found, site=self._site)

    async def List(self, request: pb.ListImagesRequest, context: Any) -> pb.ListImagesResponse:
        parent = Parent.parse(request.parent)
        page, following = page_of(
            self._do.list(parent),
            lambda image: f"{image.tenant}/{image.image_id}",
            size=request.page_size,
            token=request.page_token,
            scope=f"images of {parent.tenant}",
        )
        images = [convert.image_to_proto(image, site=self._site) for image in page]
        return pb.ListImagesResponse(images=images, next_page_token=following)

    async def Fetch(
        self, request: pb.FetchImageRequest, context: Any
    ) -> AsyncIterator[pb.FetchImageResponse]:
        blocks = self._do.fetch(
            ImageName.parse(request.name),
            offset=request.offset,
            length=request.length,
            any_tenant=_is_host(),
        )
        async with aclosing(blocks):
            async for offset, data in blocks:
                yield pb.FetchImageResponse(offset=offset, data=data)

    async def Delete(self, request: pb.DeleteImageRequest, context: Any) -> pb.Image:
        image = await self._do.shelf.withdraw(ImageName.parse(request.name), etag=request.etag)
        return convert.image_to_proto(image, site=self._site, deleted=True)


def _is_host() -> bool:
    """Hosts are told what to run by digest; whose name it has is not theirs to know."""
    return current_identity().role is Role.AGENT


async def _blocks(frames: AsyncIterator[pb.PutImageRequest], context: Any) -> AsyncIterator[bytes]:
    # Tells the caller that its header was taken. One that waits for this before it sends bytes
    # gets a refusal as it was meant: a sender cut short by one may see a broken stream instead.
    await context.send_initial_metadata(((ACCEPTED_KEY, "1"),))
    async for frame in frames:
        if frame.WhichOneof("frame") != "data":
            raise FieldInvalid("data", "must be in every message after the first")
        if len(frame.data) > BLOCK_BYTES:
            raise FieldInvalid("data", f"must be at most {BLOCK_BYTES} bytes a message")
        yield frame.data
