"""What may go wrong on the way to a service, and a service's own errors made whole again.

A service's refusal is raised as the type of `intertie.common.errors` that it was there, with its
fields; what happened on this side is a ClientError.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import grpc

from intertie.common.rpc.errors import to_domain_error

_HANDSHAKE = re.compile(r"handshake|certificate|\bssl|\btls|peer name", re.IGNORECASE)
_CLOSED = re.compile(r"socket closed|connection reset|broken pipe", re.IGNORECASE)
_PREFIXES = re.compile(
    r"^[A-Z_]+: |(?:ipv[46]|unix):\S* ?|connect failed: |addr: +error: |"
    r"failed to connect to remote host: ",
    re.IGNORECASE,
)


class ClientError(Exception):
    """It failed on this side or on the way; `remedy` is what to do about it."""

    remedy: str = ""


class ConfigMissing(ClientError):
    remedy = "Give --config FILE, set INTERTIE_CONFIG, or ask your site for a client.toml."

    def __init__(self, path: Path) -> None:
        super().__init__(f"there is no configuration at {path}")


class ConfigInvalid(ClientError):
    def __init__(self, path: Path, field: str, problem: str) -> None:
        super().__init__(f"{path}: {field}: {problem}" if field else f"{path}: {problem}")
        self.remedy = f"Mend {path}."


class EndpointUnknown(ClientError):
    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"there is no endpoint {name!r} in the configuration")
        self.remedy = f"Give --endpoint one of: {', '.join(known)}."


class NoImageStore(ClientError):
    remedy = "Choose a site that has one: add images_address to it, or give another --site."

    def __init__(self, name: str) -> None:
        super().__init__(f"endpoint {name} has no image store in the configuration")


class NoUsageHere(ClientError):
    remedy = 'Choose a site: --endpoint NAME, of one whose kind is "site".'

    def __init__(self, name: str) -> None:
        super().__init__(f"endpoint {name} is no site; records of usage are kept by each site")


class UsageFileInvalid(ClientError):
    remedy = "Give a file that `intertie usage` has written."

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


class CertificateUnreadable(ClientError):
    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.remedy = "Check certificate, key and roots of the endpoint in the configuration."


class Unreachable(ClientError):
    """Nobody answered at the address."""

    def __init__(self, endpoint: str, address: str, problem: str) -> None:
        super().__init__(f"{endpoint} does not answer at {address}: {problem}")
        self.remedy = "Check that the service runs and that the address is right, then try again."


class ConnectionClosed(ClientError):
    """Somebody answered, and hung up before the answer."""

    remedy = (
        "It may have stopped just now: try again. If it stays so, the service does not trust your"
        " certificate: check its date, and that it is from an authority that the service knows."
    )

    def __init__(self, endpoint: str, address: str) -> None:
        super().__init__(f"{endpoint} at {address} closed the connection")


class HandshakeFailed(ClientError):
    """Somebody answered, but the two do not trust each other."""

    def __init__(self, endpoint: str, address: str, problem: str) -> None:
        super().__init__(f"no trusted connection to {endpoint} at {address}: {problem}")
        self.remedy = (
            "Check that the certificate is in date and from this service's authority, and that"
            " roots and server_name are the service's own."
        )


class TimedOut(ClientError):
    remedy = "Try again; a create with the same --request-id takes nothing twice."

    def __init__(self, endpoint: str) -> None:
        super().__init__(f"{endpoint} did not answer in time")


class StreamSilent(ClientError):
    remedy = "Check the network between here and the service, then try again."

    def __init__(self, endpoint: str, seconds: float) -> None:
        super().__init__(f"{endpoint} has said nothing on a stream for {seconds:.0f} s")


class ServiceFailed(ClientError):
    """The service failed in a way that has no type here."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        faults = ("INTERNAL", "UNKNOWN")
        self.remedy = "Try again; if it stays, tell the operator." if code in faults else ""


class FileChanged(ClientError):
    remedy = "Put it again once nobody writes to it."

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} changed while it was read")


def to_error(error: grpc.aio.AioRpcError, *, endpoint: str, addresses: Sequence[str]) -> Exception:
    """What to raise in place of gRPC's own error. `addresses`: all that were asked."""
    if (typed := to_domain_error(error)) is not None:
        return typed
    code = error.code()
    problem = _problem(error.details() or "", addresses)
    address = ", ".join(addresses)
    if code is grpc.StatusCode.UNAVAILABLE:
        if _HANDSHAKE.search(problem):
            return HandshakeFailed(endpoint, address, problem)
        if _CLOSED.search(problem):
            return ConnectionClosed(endpoint, address)
        return Unreachable(endpoint, address, problem)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimedOut(endpoint)
    return ServiceFailed(code.name, problem)


def _problem(details: str, addresses: Sequence[str]) -> str:
    """The end of gRPC's own words: before it come codes, and the address once or twice."""
    for address in sorted(addresses, key=len, reverse=True):
        details = details.replace(address, "")
    _, _, last = details.rpartition("last error: ")
    words = _PREFIXES.sub("", last).strip(" :") or "no reason is given"
    return words if len(words) <= 200 else words[:197] + "..."
