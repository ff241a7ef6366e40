"""A bare grpc.aio server over mutual TLS that answers in the size asked for: the ceiling of any
unary call."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc

METHOD = "/bench.Echo/Echo"
SIZE_BYTES = 8
"""A request begins with the size of the answer, in so many bytes."""


class _Echo(grpc.GenericRpcHandler):
    def service(
        self, details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        async def echo(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            return bytes(int.from_bytes(request[:SIZE_BYTES], "big"))

        return grpc.unary_unary_rpc_method_handler(echo) if details.method == METHOD else None


async def serve(address: str, certificate: str, key: str, roots: str) -> None:
    """Until it is ended."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(),))
    pair = (Path(key).read_bytes(), Path(certificate).read_bytes())
    credentials = grpc.ssl_server_credentials(
        [pair], root_certificates=Path(roots).read_bytes(), require_client_auth=True
    )
    server.add_secure_port(address, credentials)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
