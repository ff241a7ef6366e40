"""A client that knows nothing of Intertie: whatever it calls, it learned by reflection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

WITHIN_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended; of a stream, how it began."""

    code: grpc.StatusCode
    message: str = ""
    reason: str = ""
    """As its ErrorInfo says."""
    details: tuple[dict[str, Any], ...] = ()
    """The others, of whatever type."""
    answer: dict[str, Any] | None = None


class GenericClient:
    def __init__(
        self, address: str, *, server_name: str, roots: Path, certificate: Path, key: Path
    ) -> None:
        credentials = grpc.ssl_channel_credentials(
            roots.read_bytes(), key.read_bytes(), certificate.read_bytes()
        )
        options = [("grpc.ssl_target_name_override", server_name), ("grpc.enable_http_proxy", 0)]
        self._channel = grpc.secure_channel(address, credentials, options=options)
        self._database = ProtoReflectionDescriptorDatabase(self._channel)
        self._pool = DescriptorPool(self._database)

    def methods(self) -> dict[str, MethodDescriptor]:
        """All methods of all services, by the path that they are called by."""
        return {
            f"/{service}/{method.name}": method
            for service in self._database.get_services()
            for method in self._pool.FindServiceByName(service).methods
        }

    def call(self, path: str, request: dict[str, Any] | None = None) -> Outcome:
        service, _, name = path.lstrip("/").partition("/")
        method = self._pool.FindServiceByName(service).methods_by_name[name]
        message = json_format.ParseDict(
            request or {}, _class(method.input_type)(), descriptor_pool=self._pool
        )
        try:
            return Outcome(
                code=grpc.StatusCode.OK, answer=self._plain(self._invoke(method, message))
            )
        except grpc.RpcError as error:
            return self._refusal(error)

    def _invoke(self, method: MethodDescriptor, message: Message) -> Message | None:
        """The answer, or the first of several, or None where the stream has none."""
        makers = {
            (False, False): self._channel.unary_unary,
            (False, True): self._channel.unary_stream,
            (True, False): self._channel.stream_unary,
            (True, True): self._channel.stream_stream,
        }
        make: Any = makers[method.client_streaming, method.server_streaming]
        call = make(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=lambda each: each.SerializeToString(),
            response_deserializer=_class(method.output_type).FromString,
        )
        sent = iter([message]) if method.client_streaming else message
        answer = call(sent, timeout=WITHIN_S)
        if not method.server_streaming:
            only: Message = answer
            return only
        first: Message | None = next(answer, None)
        answer.cancel()
        return first

    def _refusal(self, error: Any) -> Outcome:
        reason, others = "", []
        for packed in _details(error):
            if packed.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo()
                packed.Unpack(info)
                reason = info.reason
            else:
                descriptor = self._pool.FindMessageTypeByName(packed.TypeName())
                others.append(self._plain(_class(descriptor).FromString(packed.value)) or {})
        return Outcome(
            code=error.code(), message=error.details(), reason=reason, details=tuple(others)
        )

    def _plain(self, message: Message | None) -> dict[str, Any] | None:
        if message is None:
            return None
        plain: dict[str, Any] = json_format.MessageToDict(
            message, preserving_proto_field_name=True, descriptor_pool=self._pool
        )
        return plain

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _class(descriptor: Descriptor) -> type[Message]:
    return GetMessageClass(descriptor)


def _details(error: Any) -> Iterator[Any]:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            yield from status_pb2.Status.FromString(value).details
