"""Copies of disks that nobody has open: real files and qemu-img."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from blake3 import blake3

from intertie.common.clock import SystemClock
from intertie.nodeagent.adapters.commands import run
from intertie.nodeagent.adapters.disk_copies import PoolCopies
from intertie.nodeagent.adapters.workspace_storage import WorkspaceStorage
from intertie.nodeagent.domain.domain_xml import MIB
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.ports import BaseImage

UID = "aaaaaaaaaaaa"
SIZE_MIB = 64


class Pool:
    """A workspace's disk over a base image, each with something that the other has not."""

    def __init__(self, folder: Path) -> None:
        self.files = WorkspaceFiles(folder)
        self.storage = WorkspaceStorage(self.files)
        self.base = folder / "base.img"
        self.base.write_bytes(os.urandom(32 * MIB))

    async def fill(self) -> None:
        image = BaseImage(path=str(self.base), format="raw", virtual_size_bytes=32 * MIB)
        await self.storage.make_disk(UID, image, SIZE_MIB)
        disk = str(self.files.disk(UID))
        for what in ("write -P 7 40M 1M", "write -P 9 1M 1M"):
            await run("qemu-io", "-f", "qcow2", "-c", what, disk)

    def copies(self, mib_s: int = 1000) -> PoolCopies:
        return PoolCopies(self.files, self.storage, SystemClock(), mib_s=mib_s)


@pytest.fixture
async def pool(tmp_path: Path) -> Pool:
    made = Pool(tmp_path)
    await made.fill()
    return made


async def test_a_copy_is_flat_whole_and_what_the_guest_sees(pool: Pool) -> None:
    copies = pool.copies()
    needed = await copies.needed_bytes(UID)
    assert 33 * MIB < needed < 36 * MIB
    assert not copies.is_there(UID)
    await copies.prepare(UID)
    assert copies.is_there(UID)
    assert not copies.is_whole(UID)
    seen: list[int] = []
    await copies.copy(UID, seen.append)
    digest, size = await copies.finish(UID)
    assert copies.is_whole(UID)
    path = pool.files.copied(UID)
    assert digest == f"b3:{blake3(path.read_bytes()).hexdigest()}"
    assert size == path.stat().st_size <= needed + MIB
    assert seen
    told = json.loads(await run("qemu-img", "info", "--output=json", str(path)))
    assert told["virtual-size"] == SIZE_MIB * MIB
    assert "backing-filename" not in told
    assert "identical" in await run("qemu-img", "compare", str(path), str(pool.files.disk(UID)))
    assert pool.storage.uids() == {UID}
    copies.discard(UID)
    assert not copies.is_there(UID)


async def refused_write(disk: str) -> str:
    """What a program is told that opens the disk to write to it; empty where it may."""
    try:
        await run("qemu-io", "-f", "qcow2", "-c", "write 50M 64k", disk)
    except HostFailure as error:
        return str(error)
    return ""


async def test_one_that_is_given_up_leaves_the_disk_free_at_once(pool: Pool) -> None:
    """Its program is gone: a guest that starts finds no lock on its disk."""
    copies = pool.copies(mib_s=1)
    await copies.prepare(UID)
    seen: list[int] = []
    copying = asyncio.create_task(copies.copy(UID, seen.append))
    disk = str(pool.files.disk(UID))
    # To try the lock sooner could keep the copy itself from the disk.
    async with asyncio.timeout(30):
        while not seen or seen[-1] < MIB:
            await SystemClock().sleep(0.1)
    assert "lock" in await refused_write(disk)
    assert not copying.done()
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert await refused_write(disk) == ""
    assert not copies.is_whole(UID)


async def test_a_disk_that_cannot_be_read_is_said_to_be_so(pool: Pool) -> None:
    copies = pool.copies()
    await copies.prepare(UID)
    pool.base.unlink()
    with pytest.raises(HostFailure, match=r"could not be copied.*base\.img"):
        await copies.copy(UID, lambda _: None)
    assert not copies.is_whole(UID)


async def test_what_a_disk_may_grow_by_is_owed_and_what_a_copy_takes_is_seen(pool: Pool) -> None:
    copies = pool.copies()
    assert 59 <= pool.storage.owed_mib() <= 62, "2 MiB of 64, and tables, are written"
    assert copies.written_bytes(UID) == 0
    await copies.prepare(UID)
    await copies.copy(UID, lambda _: None)
    assert 33 * MIB <= copies.written_bytes(UID) <= 40 * MIB
    assert 59 <= pool.storage.owed_mib() <= 62, "a copy does not grow by itself"
    pool.files.disk("bbbbbbbbbbbb").write_bytes(b"no disk")
    assert 59 <= pool.storage.owed_mib() <= 62
