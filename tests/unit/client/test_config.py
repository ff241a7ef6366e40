"""The client configuration: which field of which file is wrong, and what else there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from intertie.client.config import Endpoint, parse
from intertie.client.errors import (
    ClientError,
    ConfigInvalid,
    ConnectionClosed,
    EndpointUnknown,
    HandshakeFailed,
    ServiceFailed,
    TimedOut,
    Unreachable,
    to_error,
)

ENDPOINT = {
    "kind": "site",
    "address": "north:7400",
    "server_name": "broker.north.site.intertie",
    "certificate": "alice.pem",
    "key": "/keys/alice.key",
    "roots": "ca.pem",
    "tenant": "demo",
}
NOWHERE = {key: value for key, value in ENDPOINT.items() if key != "address"}
PATH = Path("/etc/client.toml")


def test_files_are_relative_to_the_configuration() -> None:
    endpoint: Endpoint = parse({"endpoints": {"north": ENDPOINT}}, PATH).endpoint()
    assert endpoint.certificate == Path("/etc/alice.pem")
    assert endpoint.key == Path("/keys/alice.key")
    assert endpoint.parent == "-/tenants/demo"


def test_a_service_has_one_address_or_several() -> None:
    several = NOWHERE | {"addresses": ["a:7400", "unix:/b"]}
    config = parse({"endpoints": {"one": ENDPOINT, "more": several}}, PATH)
    assert config.endpoint("one").addresses == ("north:7400",)
    assert config.endpoint("more").addresses == ("a:7400", "unix:/b")


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({}, "endpoints: at least one"),
        ({"endpoints": {}}, "endpoints: at least one"),
        ({"endpoints": {"a": 1}}, "endpoints.a: must be a table"),
        ({"endpoints": {"a": ENDPOINT | {"kind": "x"}}}, "endpoints.a.kind: must be"),
        ({"endpoints": {"a": ENDPOINT | {"tenant": 7}}}, "endpoints.a.tenant: must be given"),
        ({"endpoints": {"a": ENDPOINT | {"key": ""}}}, "endpoints.a.key: must be given"),
        ({"endpoints": {"a": ENDPOINT | {"addresses": ["b:1"]}}}, "endpoints.a.address: give this"),
        ({"endpoints": {"a": ENDPOINT | {"address": ""}}}, "endpoints.a.address: must be given"),
        ({"endpoints": {"a": NOWHERE}}, "endpoints.a.address: must be given"),
        (
            {"endpoints": {"a": NOWHERE | {"addresses": []}}},
            "endpoints.a.addresses: must be a list",
        ),
        ({"endpoints": {"a": NOWHERE | {"addresses": "b:1"}}}, "endpoints.a.addresses: must be a"),
        ({"endpoints": {"a": NOWHERE | {"addresses": ["b:1", 7]}}}, "endpoints.a.addresses: must"),
        ({"endpoints": {"a": ENDPOINT}, "default": "b"}, "default: 'b' is none of a"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_field(raw: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        parse(raw, PATH)
    assert str(refused.value).startswith(f"/etc/client.toml: {says}")


def test_an_endpoint_that_is_not_there_is_refused_with_those_that_are() -> None:
    config = parse({"endpoints": {"a": ENDPOINT, "b": ENDPOINT}}, PATH)
    with pytest.raises(EndpointUnknown) as refused:
        config.endpoint("c")
    assert "a, b" in refused.value.remedy


@pytest.mark.parametrize(
    ("code", "says", "raised"),
    [
        (
            grpc.StatusCode.UNAVAILABLE,
            "failed to connect to all addresses; last error: FAILED_PRECONDITION:"
            " unix:/tls/x.sock: connect failed: addr: unix:/tls/x.sock error: No such file",
            Unreachable("north", "unix:/tls/x.sock", "No such file"),
        ),
        (
            grpc.StatusCode.UNAVAILABLE,
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "
            "Failed to connect to remote host: Connection refused",
            Unreachable("north", "unix:/tls/x.sock", "Connection refused"),
        ),
        (
            grpc.StatusCode.UNAVAILABLE,
            "last error: UNKNOWN: unix:/tls/x.sock: Ssl handshake failed: x",
            HandshakeFailed("north", "unix:/tls/x.sock", "Ssl handshake failed: x"),
        ),
        (
            grpc.StatusCode.UNAVAILABLE,
            "last error: UNAVAILABLE: unix:/tls/x.sock: Delayed close (Socket closed)",
            ConnectionClosed("north", "unix:/tls/x.sock"),
        ),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", TimedOut("north")),
        (grpc.StatusCode.INTERNAL, "oops", ServiceFailed("INTERNAL", "oops")),
    ],
)
def test_failures_on_the_way_have_types_of_their_own(
    code: grpc.StatusCode, says: str, raised: ClientError
) -> None:
    metadata = grpc.aio.Metadata()
    error = grpc.aio.AioRpcError(code, metadata, metadata, details=says)
    found = to_error(error, endpoint="north", addresses=["unix:/tls/x.sock"])
    assert type(found) is type(raised)
    assert str(found) == str(raised)
