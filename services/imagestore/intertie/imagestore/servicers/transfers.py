"""The Transfers service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol

from intertie.api.imagestore.v1 import images_pb2, transfers_pb2_grpc
from intertie.api.imagestore.v1 import transfers_pb2 as pb
from intertie.common.errors import IdentityUnknown, RoleDenied
from intertie.common.names import ImageName
from intertie.common.rpc.identity import current_identity
from intertie.common.transfer import TransferGrant
from intertie.imagestore import convert
from intertie.imagestore.usecases.bring_image import BringImage
from intertie.imagestore.usecases.send_image import SEND, SendImage


class Grants(Protocol):
    def open_transfer(self, message: pb.TransferGrant) -> TransferGrant:
        """IdentityUnknown unless a broker of this site has signed it."""
        ...


class TransfersServicer(transfers_pb2_grpc.TransfersServicer):
    def __init__(self, bring: BringImage, send: SendImage, grants: Grants, *, site: str) -> None:
        self._bring = bring
        self._send = send
        self._grants = grants
        self._site = site

    async def Bring(self, request: pb.BringRequest, context: Any) -> pb.Transfer:
        owner = current_identity().caller
        order = convert.order_from_proto(request, site=self._site, owner=owner)
        return convert.transfer_to_proto(await self._bring(order))

    async def Get(self, request: pb.GetTransferRequest, context: Any) -> pb.Transfer:
        tenant = convert.tenant_from_parent(request.parent, "parent", site=self._site)
        name = ImageName(self._site, tenant, convert.checked_digest(request.digest))
        return convert.transfer_to_proto(await self._bring.find(name))

    async def Send(
        self, request: pb.SendRequest, context: Any
    ) -> AsyncIterator[images_pb2.FetchImageResponse]:
        caller = current_identity()
        try:
            grant = self._grants.open_transfer(request.grant)
        except IdentityUnknown as error:
            raise RoleDenied(caller.spiffe, SEND, error.problem) from None
        blocks = self._send(grant, request.offset, caller=caller)
        async with aclosing(blocks):
            async for offset, data in blocks:
                yield images_pb2.FetchImageResponse(offset=offset, data=data)
