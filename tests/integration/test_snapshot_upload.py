"""An agent sends a snapshot to the image store as a process, over mutual TLS."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from intertie.api.imagestore.v1 import images_pb2 as pb
from intertie.common import errors
from intertie.common.clock import SystemClock
from intertie.common.rpc.client import channel
from intertie.common.values import replace
from intertie.nodeagent.adapters.snapshot_uploads import SnapshotUploads
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.snapshot_note import SnapshotNote, SnapshotOrder
from tests.integration.pki import TestDomain, trust_in
from tests.integration.refusals import refusal
from tests.integration.test_imagestore import DIGEST, NAME, OCTETS, Process, frames, put, store
from tests.integration.test_imagestore_snapshots import granted

__all__ = ["store"]

PASSES_MBIT_S = 1000


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    path = tmp_path / "a.copied"
    path.write_bytes(OCTETS)
    return path


@pytest.fixture
def asked() -> datetime:
    return SystemClock().now()


def noted(asked: datetime) -> SnapshotNote:
    return SnapshotNote(
        id="s1", taken_time=asked, quiesced=True, digest=DIGEST, size_bytes=len(OCTETS)
    )


def ordered(north: TestDomain, asked: datetime, **changes: Any) -> SnapshotOrder:
    grant = granted(north, asked, **changes).SerializeToString()
    return SnapshotOrder(id="s1", image_id="a", grant=grant)


@asynccontextmanager
async def uploads(
    store: Process, north: TestDomain, mbit_s: int = PASSES_MBIT_S
) -> AsyncIterator[SnapshotUploads]:
    tls, trust = north.service("agent/n1"), trust_in(north)
    name = north.server_name("imagestore")
    async with channel(store.address, tls, trust, name) as to_store:
        yield SnapshotUploads(to_store, SystemClock(), mbit_s=mbit_s)


async def test_it_is_there_with_where_it_came_from_and_sent_once(
    store: Process, north: TestDomain, copied: Path, asked: datetime
) -> None:
    done: list[int] = []
    async with uploads(store, north) as sends:
        await sends.put(ordered(north, asked), "demo", copied, noted(asked), done.append)
        assert done[-1] == len(OCTETS)
        done.clear()
        await sends.put(ordered(north, asked), "demo", copied, noted(asked), done.append)
        assert done in ([], [len(OCTETS)]), "the store has it"
    async with store.calling(north.user("demo", "alice")) as images:
        told = await images.Stat(pb.StatImageRequest(name=NAME))
    assert (told.digest, told.source.workspace) == (DIGEST, "w-0")
    assert told.source.taken_time.ToDatetime(UTC) == asked


async def test_it_goes_on_after_the_store_was_killed_in_the_middle(
    store: Process, north: TestDomain, copied: Path, asked: datetime
) -> None:
    """At a bounded pace: 3.5 MB at 8 Mbit/s take 3.5 s at least."""
    done: list[int] = []
    async with uploads(store, north, mbit_s=8) as slow:
        began = SystemClock().monotonic()
        sending = asyncio.create_task(
            slow.put(ordered(north, asked), "demo", copied, noted(asked), done.append)
        )
        by_digest = pb.StatImageRequest(name=NAME.rpartition("/")[0] + f"/{DIGEST}")
        async with store.calling(north.user("demo", "alice")) as images, asyncio.timeout(30):
            arrived = 0
            while arrived < 1_000_000:
                await SystemClock().sleep(0.05)
                with suppress(grpc.aio.AioRpcError):
                    arrived = (await images.Stat(by_digest)).uploaded_bytes
        assert SystemClock().monotonic() - began > 0.6
        await store.end(signal.SIGKILL)
        with pytest.raises(HostFailure) as away:
            await sending
        assert not away.value.final
    await store.start()
    done.clear()
    async with uploads(store, north) as sends:
        await sends.put(ordered(north, asked), "demo", copied, noted(asked), done.append)
    assert done[0] >= 1_000_000, "from where it was"
    async with store.calling(north.user("demo", "alice")) as images:
        assert (await images.Stat(pb.StatImageRequest(name=NAME))).digest == DIGEST


def damage(copied: Path) -> None:
    copied.write_bytes(OCTETS[:-1] + b"x")


async def test_what_is_refused_is_given_up_and_nothing_is_there(
    store: Process, north: TestDomain, copied: Path, asked: datetime
) -> None:
    async with uploads(store, north) as sends:
        for order, why in (
            (ordered(north, asked, host="n2"), "for host n2"),
            (ordered(north, asked, lasts=timedelta()), "has run out"),
        ):
            with pytest.raises(HostFailure, match=why) as refused:
                await sends.put(order, "demo", copied, noted(asked), lambda _: None)
            assert refused.value.final
        large = replace(noted(asked), size_bytes=20_000_000)
        with pytest.raises(HostFailure, match="this store takes at most 10000000") as limited:
            await sends.put(ordered(north, asked), "demo", copied, large, lambda _: None)
        assert limited.value.final
        damage(copied)
        with pytest.raises(HostFailure) as damaged:
            await sends.put(ordered(north, asked), "demo", copied, noted(asked), lambda _: None)
        assert damaged.value.final
    async with store.calling(north.user("demo", "alice")) as images:
        missing = await refusal(images.Stat(pb.StatImageRequest(name=NAME)))
        assert isinstance(missing, errors.NotFound)


async def test_what_another_tenant_has_of_these_bytes_is_sent_all_the_same(
    store: Process, north: TestDomain, copied: Path, asked: datetime
) -> None:
    async with store.calling(north.user("other", "eve")) as images:
        await put(images, frames(parent="sites/north/tenants/other"))
    async with uploads(store, north) as sends:
        await sends.put(ordered(north, asked), "demo", copied, noted(asked), lambda _: None)
    async with store.calling(north.user("demo", "alice")) as images:
        assert (await images.Stat(pb.StatImageRequest(name=NAME))).digest == DIGEST


async def test_what_came_damaged_is_sent_once_more_from_its_beginning(
    store: Process, north: TestDomain, copied: Path, asked: datetime
) -> None:
    damage(copied)
    done: list[int] = []

    def repaired(sent: int) -> None:
        done.append(sent)
        if sent == len(OCTETS):
            copied.write_bytes(OCTETS)

    async with uploads(store, north) as sends:
        await sends.put(ordered(north, asked), "demo", copied, noted(asked), repaired)
    assert done.count(0) == 2
    async with store.calling(north.user("demo", "alice")) as images:
        assert (await images.Stat(pb.StatImageRequest(name=NAME))).digest == DIGEST
