"""The site's image store, asked what it has, and to bring what it has not."""

import grpc

from intertie.api.imagestore.v1 import (
    images_pb2,
    images_pb2_grpc,
    transfers_pb2,
    transfers_pb2_grpc,
)
from intertie.broker.domain.planning import Image
from intertie.broker.domain.sending import Arrival, ArrivalState, ImageSource
from intertie.common.clock import Clock
from intertie.common.errors import FieldInvalid, NotFound, SiteUnreachable, StoreFull
from intertie.common.names import ImageName
from intertie.common.part_spec import Transfer
from intertie.common.rpc.client import to_domain_error
from intertie.common.rpc.terms_proto import timestamp_to_proto
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


_STATES = {
    transfers_pb2.Transfer.RUNNING: ArrivalState.RUNNING,
    transfers_pb2.Transfer.DONE: ArrivalState.DONE,
    transfers_pb2.Transfer.FAILED: ArrivalState.FAILED,
}
"""What is not known, of a newer store, is waited for."""


class GrpcBringing:
    """See domain.ports.Bringing."""

    def __init__(self, channel: grpc.aio.Channel, site: str) -> None:
        self._stub = transfers_pb2_grpc.TransfersStub(channel)
        self._site = site

    async def bring(self, tenant: str, transfer: Transfer, source: ImageSource) -> Arrival:
        request = transfers_pb2.BringRequest(
            parent=f"sites/{self._site}/tenants/{tenant}",
            digest=transfer.digest,
            size_bytes=transfer.size_bytes,
            source=transfers_pb2.TransferSource(
                site=source.from_site, addresses=source.addresses, server_name=source.server_name
            ),
            grant=transfers_pb2.TransferGrant.FromString(source.grant),
            mbit_s=transfer.mbit_s,
            begin_time=timestamp_to_proto(transfer.window.start),
            end_time=timestamp_to_proto(source.end_time),
            data=transfer.data,
        )
        try:
            found = await self._stub.Bring(request, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            meant = to_domain_error(error)
            problem = f"its image store: {error.details() or error.code().name}"
            if meant is None or isinstance(meant, SiteUnreachable):
                raise SiteUnreachable(self._site, problem) from None
            # Room may come; nothing else that it says is changed by asking again.
            state = ArrivalState.WAITING if isinstance(meant, StoreFull) else ArrivalState.FAILED
            return Arrival(digest=transfer.digest, done_bytes=0, state=state, message=problem)
        return Arrival(
            digest=transfer.digest,
            done_bytes=found.done_bytes,
            state=_STATES.get(found.state, ArrivalState.WAITING),
            message=found.message,
        )
