"""Files of a workspace that comes to a host as it is put aside: real files and qemu-img."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from intertie.nodeagent.adapters.commands import run, run_json
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.migrating import Channel
from intertie.nodeagent.domain.ports import BaseImage
from intertie.nodeagent.domain.power import Memory
from tests.contract.test_disk_copies import UID, Pool

DISK, MEMORY = Channel.DISK_FILE, Channel.MEMORY_FILE
CHUNK = 256 * 1024


class Hosts:
    def __init__(self, folder: Path) -> None:
        for name in ("from", "to"):
            (folder / name).mkdir()
        self.source, self.target = Pool(folder / "from"), Pool(folder / "to")

    @property
    def base(self) -> BaseImage:
        """The same image, which every host has in a place of its own."""
        path = str(self.target.base)
        return BaseImage(path=path, format="raw", virtual_size_bytes=32 * 1024 * 1024)

    async def send(self, channel: Channel, content: bytes, size: int | None = None) -> list[bytes]:
        size = len(content) if size is None else size
        async with self.target.storage.coming(UID, channel, size, self.base) as stream:
            for start in range(0, len(content), CHUNK):
                await stream.send(content[start : start + CHUNK])
            stream.end()
            return [each async for each in stream.received()]


@pytest.fixture
async def hosts(tmp_path: Path) -> Hosts:
    made = Hosts(tmp_path)
    await made.source.fill()
    shutil.copy(made.source.base, made.target.base)
    return made


async def test_what_has_come_is_the_same_over_this_hosts_image_once_it_is_taken_in(
    hosts: Hosts,
) -> None:
    source, target = hosts.source, hosts.target
    disk, memory = source.files.disk(UID).read_bytes(), b"what it had in memory"
    for channel, content in ((MEMORY, memory), (DISK, disk)):
        assert not target.storage.has_come(UID)
        assert await hosts.send(channel, content) == [
            hashlib.blake2b(content, digest_size=32).digest()
        ]
    assert target.storage.has_come(UID)
    assert not target.storage.has_disk(UID)
    assert target.storage.memory(UID) is Memory.NONE
    assert target.storage.uids() == {UID}
    await target.storage.take_in(UID)
    assert target.storage.has_disk(UID)
    assert not target.storage.has_come(UID)
    assert target.files.saved(UID).read_bytes() == memory
    info = await run_json("qemu-img", "info", "--output=json", str(target.files.disk(UID)))
    assert info["backing-filename"] == str(target.base)
    source_disk, target_disk = str(source.files.disk(UID)), str(target.files.disk(UID))
    await run("qemu-img", "compare", "-q", source_disk, target_disk)


async def test_a_memory_that_comes_is_for_nobody_else_to_read(hosts: Hosts) -> None:
    """A bug: libvirt lets nobody else read what it saves, and where that had come all users of the
    host could, the guest's keys and passwords among it."""
    await hosts.send(MEMORY, b"secret")
    files = hosts.target.files
    assert files.come(UID, MEMORY).stat().st_mode & 0o777 == 0o600
    await hosts.send(DISK, hosts.source.files.disk(UID).read_bytes())
    await hosts.target.storage.take_in(UID)
    assert files.saved(UID).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("more", [-1, 1])
async def test_what_is_not_whole_has_not_come(hosts: Hosts, more: int) -> None:
    disk = hosts.source.files.disk(UID).read_bytes()
    with pytest.raises(HostFailure, match="bytes came"):
        await hosts.send(DISK, disk, len(disk) + more)
    assert not hosts.target.storage.has_come(UID)
    assert await hosts.send(DISK, disk), "it may come again"
    assert hosts.target.storage.has_come(UID)


async def test_what_is_cut_has_not_come(hosts: Hosts) -> None:
    async with hosts.target.storage.coming(UID, MEMORY, 3, hosts.base) as stream:
        await stream.send(b"abc")
        stream.cut()
        with pytest.raises(HostFailure):
            [each async for each in stream.received()]
    assert not hosts.target.files.come(UID, MEMORY).exists()


async def test_who_dies_while_it_is_taken_in_takes_it_in_again(hosts: Hosts) -> None:
    """The memory has its name, and the disk has not."""
    storage, files = hosts.target.storage, hosts.target.files
    await hosts.send(MEMORY, b"memory")
    await hosts.send(DISK, hosts.source.files.disk(UID).read_bytes())
    files.come(UID, MEMORY).replace(files.saved(UID))
    assert storage.has_come(UID)
    await storage.take_in(UID)
    assert storage.has_disk(UID)
    assert storage.memory(UID) is Memory.SAVED
    await storage.remove(UID)
    assert storage.uids() == frozenset()
