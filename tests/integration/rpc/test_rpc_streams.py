"""Streams: cancelled, relayed, held back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from intertie.api.cluster.v1 import clusters_pb2
from intertie.api.types.v1 import attach_pb2
from intertie.common import errors
from intertie.common.rpc import attach
from tests.integration.pki import TestDomain
from tests.integration.refusals import refusal
from tests.integration.rpc_service import (
    NAME,
    Clusters,
    attach_requests,
    calling,
    opening_of,
    serving,
)


async def test_a_cancelled_stream_ends_its_handler(
    broker: str, north: TestDomain, servicer: Clusters
) -> None:
    async with calling(broker, north.user("demo", "alice"), north) as clusters:
        stream = clusters.Watch(clusters_pb2.WatchClusterRequest(name=NAME))
        await stream.read()
        stream.cancel()
        async with asyncio.timeout(5):
            await servicer.cancelled.wait()


class Relaying(Clusters):
    """Relays every Attach to another server."""

    def __init__(self, onward: Any) -> None:
        super().__init__()
        self._onward = onward

    async def Attach(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        opened = await attach.opening(requests)
        async for response in attach.relay(opened, requests, self._onward.Attach):
            yield response


async def test_a_relayed_stream_carries_bytes_half_closes_and_is_cancelled(
    broker: str, north: TestDomain, servicer: Clusters
) -> None:
    alice = north.user("demo", "alice")
    name = f"{NAME}/workspaces/w-0"
    async with (
        calling(broker, alice, north) as onward,
        serving(north.service("broker"), [north], Relaying(onward)) as relay,
        calling(relay, alice, north) as clusters,
    ):
        blocks = [bytes([k % 251]) * 65536 for k in range(64)]
        stream = clusters.Attach(attach_requests(name, blocks))
        answers = [answer async for answer in stream]
        assert answers[0].opened
        assert b"".join(answer.data for answer in answers) == b"".join(blocks)
        assert answers[-1].end

        refused = clusters.Attach(attach_requests(name, port=1))
        assert isinstance(await refusal(refused.read()), errors.ConnectionRefused)

        servicer.cancelled.clear()
        held = clusters.Attach()
        await held.write(opening_of(name))
        assert (await held.read()).opened
        held.cancel()
        async with asyncio.timeout(5):
            await servicer.cancelled.wait()


async def test_a_relay_holds_back_a_sender_whose_receiver_does_not_read(
    north: TestDomain,
) -> None:
    """Memory stays bounded: far fewer bytes are taken than are offered."""

    class Deaf(Clusters):
        async def Attach(self, requests: Any, context: Any) -> AsyncIterator[Any]:
            await attach.opening(requests)
            yield attach_pb2.AttachResponse(opened=True)
            await asyncio.Event().wait()

    alice = north.user("demo", "alice")
    async with (
        serving(north.service("broker"), [north], Deaf()) as deaf,
        calling(deaf, alice, north) as onward,
        serving(north.service("broker"), [north], Relaying(onward)) as relay,
        calling(relay, alice, north) as clusters,
    ):
        stream = clusters.Attach()
        opened = opening_of(f"{NAME}/workspaces/w-0")
        await stream.write(opened)
        assert (await stream.read()).opened
        taken = 0

        async def flood() -> None:
            nonlocal taken
            while taken < 256:
                await stream.write(attach_pb2.AttachRequest(data=b"x" * 65536))
                taken += 1

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flood(), 2)
        assert taken < 256
