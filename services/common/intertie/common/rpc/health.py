"""`intertie-health --config FILE`: asks the service that runs with this file whether it serves.

For what starts and watches services. Exit code 0: it serves. 1: it does not, or nobody could be
asked; stderr has one sentence. The service's own certificate is shown, for there is no mutual TLS
without one, and any role may ask for health.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import grpc
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from intertie.common.errors import IdentityUnknown
from intertie.common.rpc.client import channel
from intertie.common.rpc.identity import Trust, load_leaf
from intertie.common.rpc.server import ADMISSIONS
from intertie.common.settings import ServingSettings, SettingsInvalid, load

_WITHIN_S = 4.0


class NotServing(Exception):
    """The service does not serve, or nobody can say that it does; the text says why."""


async def check(settings: ServingSettings, *, within: timedelta, name: str = "") -> None:
    """Returns if the service at the first of its addresses says that it serves, else NotServing.
    `name`: of what it says that, empty for all."""
    address = dialled(settings.listen.addresses[0])
    async with _link(address, settings) as link:
        ask = health_pb2_grpc.HealthStub(link).Check
        try:
            answer = await ask(
                health_pb2.HealthCheckRequest(service=name), timeout=within.total_seconds()
            )
        except grpc.aio.AioRpcError as error:
            raise NotServing(f"{address}: {error.code().name}: {error.details()}") from None
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise NotServing(f"{address}: says {status}")


def _link(address: str, settings: ServingSettings) -> grpc.aio.Channel:
    """To the service, which must have a name that the certificate in its file has."""
    try:
        trust = Trust.load(settings.trust)
        own = load_leaf(Path(settings.tls.certificate).read_bytes())
        return channel(address, settings.tls, trust, _server_name(own, trust))
    except (OSError, ValueError, IdentityUnknown) as error:
        raise NotServing(f"{settings.tls.certificate}: {error}") from None


def dialled(listened: str) -> str:
    """Where something that listens on this address is reached from its own machine."""
    host, colon, port = listened.rpartition(":")
    everywhere = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
    return f"{everywhere.get(host, host)}{colon}{port}"


def _server_name(own: x509.Certificate, trust: Trust) -> str:
    """A name of the certificate's that callers may go by; ValueError where it has none."""
    names: list[str] = []
    for extension in own.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names += extension.value.get_values_for_type(x509.DNSName)
    for name in names:
        if any(name.endswith(f".{domain}") for domain in trust.domains):
            return name
    raise ValueError(f"none of its DNS names ({', '.join(names)}) lies in a domain of [[trust]]")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="intertie-health", description=__doc__)
    parser.add_argument("--config", required=True, help="settings of the service, a TOML file")
    parser.add_argument(
        "--admissions",
        action="store_true",
        help="ask whether it takes anything new: not while its etcd is short of room",
    )
    arguments = parser.parse_args(argv)
    name = ADMISSIONS if arguments.admissions else ""
    try:
        settings = load(ServingSettings, arguments.config)
        asyncio.run(check(settings, within=timedelta(seconds=_WITHIN_S), name=name))
    except (SettingsInvalid, NotServing) as error:
        sys.exit(f"intertie-health: {error}")


if __name__ == "__main__":
    main()
