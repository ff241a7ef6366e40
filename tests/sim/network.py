"""A model of the network in the place of gRPC: messages that are lost, late, doubled, out of order.

The channels are what the services' own stubs and `ReplicaChannel` are given; the server calls the
services' own servicers, through their own interceptor. What is between them is simulated.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import grpc

from intertie.common.clock import Clock
from intertie.common.errors import IdentityUnknown
from intertie.common.rpc.calls import CallInterceptor
from intertie.common.rpc.identity import Identity, Trust, parse_spiffe
from intertie.common.rpc.replicas import DEFAULT_TIMEOUT_S, ReplicaChannel
from intertie.common.rpc.signing import Signed
from tests.sim.virtual_loop import CURRENT, Process, VirtualLoop, current

AGAIN_S = 0.3
"""Until a call that waits for its server looks for it again."""


@dataclass(slots=True)
class Delivery:
    """What becomes of one message: when it arrives, in seconds; None: never. `again_s`: when a
    second copy of it does."""

    after_s: float | None = 0.0
    again_s: float | None = None


class Wires:
    """Good ones. The world has others."""

    def of_request(self, sender: Process, address: str, method: str) -> Delivery:
        return Delivery()

    def of_reply(self, sender: Process, receiver: Process) -> Delivery:
        return Delivery()


class Refused(Exception):
    """How a call ended that failed: code, details and trailing metadata."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: Sequence[Any] = ()) -> None:
        super().__init__(details)
        self.code, self.details, self.trailing = code, details, tuple(trailing)

    def as_error(self) -> grpc.aio.AioRpcError:
        trailing = grpc.aio.Metadata(*self.trailing)
        return grpc.aio.AioRpcError(
            self.code, grpc.aio.Metadata(), trailing, details=str(self.details)
        )


@dataclass(slots=True, eq=False)
class _Call:
    client: Process
    spiffe: str
    method: str
    request: bytes
    metadata: Sequence[Any]
    until: float
    answer: asyncio.Future[bytes]
    handler: asyncio.Task[None] | None = None
    over: bool = False

    def end(self, answer: bytes | Refused) -> None:
        if self.answer.done():
            return
        if isinstance(answer, Refused):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class Network:
    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.wires = Wires()
        self.messages = 0
        self._servers: dict[str, SimServer] = {}

    def listen(self, address: str, server: SimServer) -> None:
        self._servers[address] = server

    def vanish(self, server: SimServer) -> None:
        """Its process is gone: whoever waits for it hears so, as a host tells of a closed port."""
        for address in [at for at, each in self._servers.items() if each is server]:
            del self._servers[address]
        for call in tuple(server.calls):
            gone = Refused(grpc.StatusCode.UNAVAILABLE, "connection reset")
            self.loop.later(0.01, call.end, gone)

    async def call(
        self,
        spiffe: str,
        address: str,
        method: str,
        request: bytes,
        *,
        timeout: float | None,
        metadata: Sequence[Any],
        waits: bool,
    ) -> bytes:
        client = current()
        await client.gate()
        if client.dead or client.closing:
            raise Refused(grpc.StatusCode.UNAVAILABLE, "the process is gone").as_error()
        within = DEFAULT_TIMEOUT_S if timeout is None else max(timeout, 0.0)
        call = _Call(
            client,
            spiffe,
            method,
            request,
            metadata,
            self.loop.time() + within,
            self.loop.create_future(),
        )
        late = Refused(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        timer = self.loop.call_later(within, call.end, late)
        self._send(call, address, waits)
        try:
            return await call.answer
        except Refused as refused:
            raise refused.as_error() from None
        finally:
            timer.cancel()
            call.over = True
            if call.handler is not None and not call.handler.done() and not client.dead:
                # As gRPC does; what the handler has begun by then may go on.
                self.loop.later(0.02, call.handler.cancel)

    def _send(self, call: _Call, address: str, waits: bool) -> None:
        fate = self.wires.of_request(call.client, address, call.method)
        for after_s in (fate.after_s, fate.again_s):
            if after_s is not None:
                self.loop.later(after_s, self._arrive, call, address, waits)

    def _arrive(self, call: _Call, address: str, waits: bool) -> None:
        server = self._servers.get(address)
        if server is not None:
            self.messages += 1
            server.take(call)
        elif waits and not call.over and self.loop.time() + AGAIN_S < call.until:
            self.loop.later(AGAIN_S, self._arrive, call, address, waits)
        else:
            absent = Refused(grpc.StatusCode.UNAVAILABLE, "connection refused")
            self.loop.later(0.001, call.end, absent)

    def reply(self, call: _Call, sender: Process, answer: bytes | Refused) -> None:
        fate = self.wires.of_reply(sender, call.client)
        if fate.after_s is not None:
            self.messages += 1
            self.loop.later(fate.after_s, call.end, answer)


class SimChannel(grpc.aio.Channel):
    """From one identity to one address. Unary calls alone: nothing else is simulated."""

    def __init__(self, network: Network, spiffe: str, address: str) -> None:
        self._network = network
        self._spiffe = spiffe
        self._address = address

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool = False,
    ) -> Any:
        async def call(
            request: Any,
            *,
            timeout: float | None = None,
            metadata: Any = None,
            wait_for_ready: bool | None = None,
            **_: Any,
        ) -> Any:
            octets = await self._network.call(
                self._spiffe,
                self._address,
                method,
                request_serializer(request),
                timeout=timeout,
                metadata=tuple(metadata or ()),
                waits=bool(wait_for_ready),
            )
            return response_deserializer(octets)

        return call

    def unary_stream(self, method: str, *given: Any, **options: Any) -> Any:
        return lambda *_, **__: _no_stream(method)

    stream_stream = stream_unary = unary_stream

    async def close(self, grace: float | None = None) -> None:
        """Nothing is open."""

    async def __aenter__(self) -> SimChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: Any) -> None:
        await asyncio.Event().wait()

    async def channel_ready(self) -> None:
        """It is."""


def _no_stream(method: str) -> Any:
    raise NotImplementedError(f"{method}: streams are not simulated")


def replicas(
    network: Network, spiffe: str, addresses: Sequence[str], process: Process, *, patience_s: float
) -> ReplicaChannel:
    """The services' own way of speaking to several replicas, over simulated channels."""
    channels = {each: SimChannel(network, spiffe, each) for each in addresses}
    return ReplicaChannel(
        channels, process.clock, patience_s=patience_s, draw=process.random.randrange
    )


class _Identities:
    """In the place of certificates: who calls is who it says it is."""

    def of(self, pem: bytes, *, now: object) -> Identity:
        return parse_spiffe(pem.decode())


class SimServer:
    """In the place of intertie.common.rpc.server.Server, in the process that makes it."""

    def __init__(
        self, network: Network, own: Identity, addresses: Sequence[str], clock: Clock
    ) -> None:
        self._network = network
        self._process = current()
        self._addresses = addresses
        self._interceptor = CallInterceptor(own, Trust({}), clock)
        self._interceptor._identities = _Identities()  # type: ignore[assignment]
        self._handlers: dict[str, Any] = {}
        self.calls: dict[_Call, None] = {}
        self._process.on_death.append(lambda: network.vanish(self))

    def register(self, registrations: Sequence[Any]) -> None:
        for add, servicer, _ in registrations:
            add(servicer, self)

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Those that are registered by name are enough."""

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        self._handlers.update({f"/{service}/{name}": each for name, each in handlers.items()})

    async def start(self) -> None:
        for each in self._addresses:
            self._network.listen(each, self)

    async def taking(self, *, new: bool) -> None:
        """Nobody asks."""

    async def stop(self, grace_s: float) -> None:
        self._network.vanish(self)

    def take(self, call: _Call) -> None:
        call.handler = self._process.spawn(self._serve(call))

    async def _serve(self, call: _Call) -> None:
        self.calls[call] = None
        try:
            with suppress(asyncio.CancelledError):
                answer = await self._answer(call)
                await self._process.gate()
                if not self._process.dead and not self._process.closing:
                    self._network.reply(call, self._process, answer)
        finally:
            self.calls.pop(call, None)

    async def _answer(self, call: _Call) -> bytes | Refused:
        async def found(_: object) -> Any:
            return self._handlers.get(call.method)

        details = SimpleNamespace(method=call.method)
        handler = await self._interceptor.intercept_service(found, details)
        if handler is None:
            return Refused(grpc.StatusCode.UNIMPLEMENTED, call.method)
        context = _Context(call, call.until - self._network.loop.time())
        try:
            answer = await handler.unary_unary(handler.request_deserializer(call.request), context)
        except Refused as refused:
            return refused
        octets: bytes = handler.response_serializer(answer)
        return octets


class _Context:
    """What handlers and the interceptor ask of a servicer context."""

    def __init__(self, call: _Call, remaining_s: float) -> None:
        self._call = call
        self._remaining_s = remaining_s

    def invocation_metadata(self) -> Sequence[Any]:
        return self._call.metadata

    def auth_context(self) -> Any:
        return {"x509_pem_cert": [self._call.spiffe.encode()]}

    def time_remaining(self) -> float:
        return max(self._remaining_s, 0.0)

    def set_trailing_metadata(self, metadata: Any) -> None:
        """Nobody reads an echo."""

    async def abort(self, code: Any, details: str = "", trailing: Sequence[Any] = ()) -> None:
        raise Refused(code, details, trailing)


class SimSigner:
    """In the place of a TLS key. A signature is good when whoever is named could have made it."""

    def __init__(self, spiffe: str) -> None:
        self.certificate = spiffe.encode()

    def sign(self, body: bytes) -> Signed:
        return Signed(_seal(body, self.certificate), self.certificate)


def verify(
    body: bytes, signature: bytes, certificate: bytes, known: object, *, now: object
) -> Identity:
    """In the place of intertie.common.rpc.signing.verify."""
    if signature != _seal(body, certificate):
        raise IdentityUnknown("its signature is not valid")
    return parse_spiffe(certificate.decode())


def _seal(body: bytes, certificate: bytes) -> bytes:
    return hashlib.blake2b(body, key=certificate[:64], digest_size=16).digest()


Reached = Callable[[Process, str], None]


def reached(hook: Reached) -> Callable[[object, str], None]:
    """For intertie.common.points: tells the world which process stands at which point."""

    def stand(_: object, name: str) -> None:
        process = CURRENT.get()
        if process is not None and not process.dead:
            hook(process, name)

    return stand
