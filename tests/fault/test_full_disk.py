"""A full disk under the image store and under etcd, and an etcd at its quota: a clear answer,
nothing lost, and with room again all goes on by itself. Real processes on small file systems."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from blake3 import blake3

from intertie.api.cluster.v1 import clusters_pb2
from intertie.api.imagestore.v1 import images_pb2
from intertie.common import errors
from intertie.common.errors import EtcdUnavailable, LedgerFull
from intertie.common.etcd.client import Etcd, Put
from tests.integration.broker_site import cluster_spec, create, site
from tests.integration.etcd_server import EtcdServer, SmallQuota
from tests.integration.pki import TestDomain
from tests.integration.refusals import refusal
from tests.integration.test_imagestore import (
    BLOCK,
    OCTETS,
    PARENT,
    Process,
    arrival,
    fetched,
    frames,
    put,
)

pytestmark = [pytest.mark.root]

MIB = 1 << 20
QUOTA_MIB = 32
OTHER = os.urandom(len(OCTETS))
OTHER_DIGEST = f"b3:{blake3(OTHER).hexdigest()}"


class SmallDisk:
    """A file system of its own, which can be filled to the last byte."""

    def __init__(self, folder: Path) -> None:
        self._filler = folder / "filler"

    def fill(self) -> None:
        with self._filler.open("wb", buffering=0) as file:
            for size in (MIB, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        self._filler.unlink()


@contextmanager
def small_disk(folder: Path, size_mib: int) -> Iterator[SmallDisk]:
    folder.mkdir(parents=True)
    mount = f"mount -t tmpfs -o size={size_mib}m small {folder}"
    subprocess.run(mount.split(), check=True, timeout=30)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=30)


async def until(attempt: Callable[[], Awaitable[Any]], *, within_s: float) -> None:
    """Repeats what is refused because a service is away."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                await attempt()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.2)
            else:
                return


@pytest.fixture
def north(tmp_path: Path) -> TestDomain:
    return TestDomain.create(tmp_path / "pki", "north.site.intertie")


@pytest.fixture
def meta(tmp_path: Path) -> TestDomain:
    return TestDomain.create(tmp_path / "pki", "meta.meta.intertie")


@pytest.fixture
async def store(tmp_path: Path, north: TestDomain) -> AsyncIterator[tuple[Process, SmallDisk]]:
    process = Process(tmp_path, north, [north])
    with small_disk(process.data, 10) as disk:
        try:
            await process.start()
            yield process, disk
        finally:
            await process.end(signal.SIGKILL)


def other(offset: int = 0) -> AsyncIterator[images_pb2.PutImageRequest]:
    return frames(offset, OTHER, image_id="b", digest=OTHER_DIGEST)


async def test_an_image_store_says_what_is_missing_and_goes_on_with_room(
    store: tuple[Process, SmallDisk], north: TestDomain
) -> None:
    process, disk = store
    alice = north.user("demo", "alice")
    async with process.calling(alice) as images:
        await put(images, frames())
        disk.fill()
        full = await refusal(put(images, other()))
        assert isinstance(full, errors.StoreFull)
        assert full.needed == len(OTHER) > full.free
        # What it has, it has, and gives.
        assert await fetched(images) == OCTETS

    # It starts on a full disk too.
    await process.end(signal.SIGKILL)
    await process.start()
    async with process.calling(alice) as images:
        assert await fetched(images) == OCTETS
        disk.free()
        await put(images, other())
        assert await fetched(images, name=_named("b")) == OTHER
        assert await fetched(images) == OCTETS


async def test_an_upload_during_which_the_disk_fills_is_refused_and_leaves_nothing(
    store: tuple[Process, SmallDisk], north: TestDomain
) -> None:
    process, disk = store
    async with process.calling(north.user("demo", "alice")) as images:
        await put(images, frames())
        call = images.Put()
        stream = other()
        await call.write(await anext(stream))
        assert "intertie-accepted" in dict(await call.initial_metadata())
        await call.write(await anext(stream))
        part = images_pb2.StatImageRequest(name=_named(OTHER_DIGEST))
        await arrival(images, part, BLOCK)
        disk.fill()
        # One more block: gRPC forgets why a call ended under a write.
        await call.write(await anext(stream))
        full = await refusal(call)
        assert isinstance(full, errors.StoreFull)
        assert isinstance(await refusal(images.Stat(part)), errors.NotFound)
        assert await fetched(images) == OCTETS
        disk.free()
        await put(images, other())
        assert await fetched(images, name=_named("b")) == OTHER


async def test_an_upload_that_finds_no_room_to_go_on_keeps_what_came(
    store: tuple[Process, SmallDisk], north: TestDomain
) -> None:
    """A bug: what had come before was thrown away."""
    process, disk = store
    part = images_pb2.StatImageRequest(name=_named(OTHER_DIGEST))
    async with process.calling(north.user("demo", "alice")) as images:
        first = other()
        call = images.Put()
        for _ in range(2):
            await call.write(await anext(first))
        await call.done_writing()
        assert isinstance(await refusal(call), errors.OffsetMismatch)
        disk.fill()
        full = await refusal(put(images, other(BLOCK)))
        assert isinstance(full, errors.StoreFull)
        assert full.needed == len(OTHER) - BLOCK
        assert (await images.Stat(part)).uploaded_bytes == BLOCK
        disk.free()
        await put(images, other(BLOCK))
        assert await fetched(images, name=_named("b")) == OTHER


def _named(image: str) -> str:
    return f"{PARENT}/images/{image}"


@pytest.mark.etcd
async def test_a_broker_says_that_its_etcd_is_away_and_has_everything_again_with_room(
    tmp_path: Path, north: TestDomain, meta: TestDomain
) -> None:
    """etcd ends itself when its disk is full; what started it starts it again."""
    folder = tmp_path / "etcd"
    with small_disk(folder, 220) as disk:
        server = EtcdServer(folder)
        server.start()
        try:
            await _fill_and_free(tmp_path, server, disk, north, meta)
        finally:
            server.kill()


async def _fill_and_free(
    tmp_path: Path, server: EtcdServer, disk: SmallDisk, north: TestDomain, meta: TestDomain
) -> None:
    alice = north.user("demo", "alice")
    async with site(tmp_path / "broker", server.settings("/n"), north, (meta,)) as here:
        clusters = here.clusters(alice)
        before = await clusters.Create(create("a", cluster_spec(), "r1"))
        disk.fill()
        await _write_until_it_ends(server)
        away = await refusal(clusters.Create(create("b", cluster_spec(), "r2")))
        assert isinstance(away, EtcdUnavailable)
        assert not server.running()

        disk.free()
        await asyncio.to_thread(server.start)
        await until(lambda: clusters.Create(create("b", cluster_spec(), "r2")), within_s=30)
        listed = await clusters.List(clusters_pb2.ListClustersRequest(parent="-/tenants/demo"))
        assert [each.name.rpartition("/")[2] for each in listed.clusters] == ["a", "b"]
        assert listed.clusters[0].uid == before.uid


@pytest.mark.etcd
async def test_a_broker_says_that_its_etcd_has_reached_its_quota_and_goes_on_with_room(
    tmp_path: Path, north: TestDomain, meta: TestDomain
) -> None:
    """What stands is read and stays; what is new is refused, with what the operator has to do."""
    server = SmallQuota(tmp_path, QUOTA_MIB)
    server.start()
    alice = north.user("demo", "alice")
    try:
        async with site(tmp_path / "broker", server.settings("/n"), north, (meta,)) as here:
            clusters = here.clusters(alice)
            before = await clusters.Create(create("a", cluster_spec(), "r1"))
            await _write_until_it_ends(server)
            full = await refusal(clusters.Create(create("b", cluster_spec(), "r2")))
            assert isinstance(full, LedgerFull)
            assert "quota" in full.problem
            assert "alarm disarm" in full.problem
            asked = clusters_pb2.GetClusterRequest(name=before.name)
            assert (await clusters.Get(asked)).uid == before.uid

            server.ctl("del", "--prefix", "/filler")
            server.make_room()
            server.ctl("alarm", "disarm")
            await until(lambda: clusters.Create(create("b", cluster_spec(), "r2")), within_s=30)
            listed = await clusters.List(clusters_pb2.ListClustersRequest(parent="-/tenants/demo"))
            assert [each.name.rpartition("/")[2] for each in listed.clusters] == ["a", "b"]
            assert listed.clusters[0].uid == before.uid
    finally:
        server.kill()


async def _write_until_it_ends(server: EtcdServer) -> None:
    """Its log and its database have some room of their own, which is used up first."""
    etcd = await Etcd.connect(server.settings("/filler"))
    try:
        for number in range(400):
            await etcd.txn([], [Put(f"{number}", bytes(MIB))])
    except EtcdUnavailable:
        return
    finally:
        await etcd.close()
    raise AssertionError("400 MiB went into a full disk")
