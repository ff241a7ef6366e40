"""Other sites' image stores, over mutual TLS."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc

from intertie.api.imagestore.v1 import transfers_pb2 as pb
from intertie.api.imagestore.v1 import transfers_pb2_grpc
from intertie.common.errors import DomainError, FieldInvalid, SiteUnreachable
from intertie.common.rpc import request_id
from intertie.common.rpc.client import following_channel, to_domain_error
from intertie.common.rpc.credentials import Credentials
from intertie.common.rpc.identity import site_of
from intertie.imagestore.domain.transfers import PeerStore


class GrpcPeerStores:
    """See domain.ports.PeerStores."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def check(self, store: PeerStore) -> None:
        field = "source.server_name"
        try:
            domain = self._credentials.trust.domain_of(store.server_name)
        except ValueError as error:
            raise FieldInvalid(field, str(error)) from None
        if site_of(domain) != store.site:
            raise FieldInvalid(field, f"{store.server_name} lies not in the domain of {store.site}")

    async def fetch(
        self, store: PeerStore, signed: bytes, offset: int, *, timeout_s: float
    ) -> AsyncGenerator[bytes, None]:
        request = pb.SendRequest(grant=pb.TransferGrant.FromString(signed), offset=offset)
        unreached = list(store.addresses)
        while unreached:
            address = unreached.pop(0)
            async with following_channel(address, self._credentials, store.server_name) as channel:
                metadata = tuple(request_id.outgoing())
                stub = transfers_pb2_grpc.TransfersStub(channel)
                call = stub.Send(request, timeout=timeout_s, metadata=metadata)
                began = request.offset
                try:
                    async for answer in call:
                        if answer.offset != request.offset:
                            raise SiteUnreachable(store.site, f"{address}: bytes out of order")
                        request.offset += len(answer.data)
                        yield answer.data
                    return
                except grpc.aio.AioRpcError as error:
                    if request.offset > began or not unreached or not _was_not_there(error):
                        raise _meant(error, store, address) from None
                finally:
                    call.cancel()


def _was_not_there(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.UNAVAILABLE and to_domain_error(error) is None


def _meant(error: grpc.aio.AioRpcError, store: PeerStore, address: str) -> DomainError:
    said = error.details() or error.code().name
    return to_domain_error(error) or SiteUnreachable(store.site, f"its store {address}: {said}")
