"""What servicers need for streams that only pass through."""

from collections.abc import AsyncIterator
from typing import Protocol

from intertie.api.types.v1 import attach_pb2
from intertie.broker.domain.ports import AtHost, Caller


class Agents(Protocol):
    def attach(
        self,
        at: AtHost,
        opened: attach_pb2.AttachRequest.Open,
        requests: AsyncIterator[attach_pb2.AttachRequest],
    ) -> AsyncIterator[attach_pb2.AttachResponse]: ...


class Beyond(Protocol):
    """The meta-scheduler that holds what was handed on."""

    def attach(
        self,
        caller: Caller,
        tenant: str,
        cluster_id: str,
        opened: attach_pb2.AttachRequest.Open,
        requests: AsyncIterator[attach_pb2.AttachRequest],
    ) -> AsyncIterator[attach_pb2.AttachResponse]: ...
