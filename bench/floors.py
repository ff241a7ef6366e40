"""The floors that a control plane stands on, measured in the same run as what stands on them."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc

from bench.echo import METHOD, SIZE_BYTES
from bench.load import Measured, closed_loop
from bench.site import FLOOR, channel, echo_server
from testbed.bed import Testbed


async def echo(
    bed: Testbed,
    own: dict[str, Any],
    request_bytes: int,
    answer_bytes: int,
    *,
    calls: int,
    callers: int,
    site: str = "north",
) -> Measured:
    """Unary calls of these sizes to a bare server, over the transport that the services use."""
    with echo_server(bed, own, site) as address:
        async with channel(own, address) as to:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = to.unary_unary(METHOD)
            body = answer_bytes.to_bytes(SIZE_BYTES, "big").ljust(request_bytes, b"x")

            async def once(number: int) -> object:
                return await call(body, timeout=30, wait_for_ready=True)

            await closed_loop(once, calls=callers, callers=callers)
            return await closed_loop(once, calls=calls, callers=callers)


async def etcd(bed: Testbed, place: str, component: str, *, calls: int, callers: int) -> Measured:
    """Bare transactions on the etcd of `component`, from inside its namespace."""
    config = bed.places.configs / f"{component.replace('/', '.')}.toml"
    argv = [sys.executable, str(FLOOR), str(config), str(callers), str(calls)]
    ran = await asyncio.to_thread(bed.run, place, argv, timeout_s=300)
    if ran.returncode != 0:
        raise RuntimeError(f"bare transactions failed: {ran.stderr[-400:]}")
    return Measured(**json.loads(ran.stdout))
