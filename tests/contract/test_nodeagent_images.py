"""Images on a host: real files and qemu-img, a source in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from blake3 import blake3

from intertie.nodeagent.adapters.commands import run
from intertie.nodeagent.adapters.image_cache import ImageCache
from intertie.nodeagent.adapters.workspace_storage import WorkspaceStorage
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.ports import BaseImage

CHUNK = 100_000
RAW = bytes(range(256)) * 4096
"""1 MiB that is no qcow2, so raw."""


def digest_of(content: bytes) -> str:
    return f"b3:{blake3(content).hexdigest()}"


def bytes_of(path: Path) -> bytes:
    return path.read_bytes()


def fill(path: Path, size: int) -> None:
    path.write_bytes(bytes(size))


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


class MemorySource:
    """Serves any digest with its content, in pieces; breaks off after `breaks_after` bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.breaks_after: int | None = None
        self.offsets: list[int] = []

    async def size_bytes(self, digest: str, tenant: str) -> int:
        return len(self.content)

    async def fetch(self, digest: str, tenant: str, offset: int) -> AsyncIterator[bytes]:
        self.offsets.append(offset)
        sent = 0
        while offset < len(self.content):
            if self.breaks_after is not None and sent >= self.breaks_after:
                raise HostFailure("the image store went away")
            piece = self.content[offset : offset + CHUNK]
            yield piece
            offset += len(piece)
            sent += len(piece)


async def stage(cache: ImageCache, digest: str) -> BaseImage:
    for _ in range(500):
        if image := cache.ready(digest):
            return image
        cache.request(digest, "demo")
        await asyncio.sleep(0.01)  # noqa: TID251 - files and qemu-img take real time
    raise AssertionError("it was not staged")


def cache_over(folder: Path, source: MemorySource, keep_mib: int = 100) -> ImageCache:
    return ImageCache(folder, source, keep_mib=keep_mib)


async def test_an_image_is_fetched_once_and_verified(tmp_path: Path) -> None:
    source = MemorySource(RAW)
    image = await stage(cache_over(tmp_path, source), digest_of(RAW))
    assert (image.format, image.virtual_size_bytes) == ("raw", len(RAW))
    assert bytes_of(Path(image.path)) == RAW
    again = await stage(cache_over(tmp_path, source), digest_of(RAW))
    assert again == image
    assert source.offsets == [0]


async def test_a_broken_off_fetch_goes_on_where_it_was(tmp_path: Path) -> None:
    source = MemorySource(RAW)
    source.breaks_after = 3 * CHUNK
    with pytest.raises(HostFailure, match="went away"):
        await stage(cache_over(tmp_path, source), digest_of(RAW))
    source.breaks_after = None
    cache = cache_over(tmp_path, source)
    await stage(cache, digest_of(RAW))
    assert source.offsets == [0, 3 * CHUNK]
    assert cache.progress(digest_of(RAW)).done_bytes == len(RAW)


async def test_other_bytes_than_were_asked_for_are_thrown_away(tmp_path: Path) -> None:
    wanted = digest_of(b"something else")
    with pytest.raises(HostFailure, match="what arrived is"):
        await stage(cache_over(tmp_path, MemorySource(RAW)), wanted)
    assert names(tmp_path) == []


async def test_an_image_that_names_a_file_of_the_host_is_refused(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, evil = tmp_path_factory.mktemp("cache"), tmp_path / "evil.qcow2"
    fill(tmp_path / "secret", 1 << 20)
    backing = ("-F", "raw", "-b", str(tmp_path / "secret"))
    await run("qemu-img", "create", "-q", "-f", "qcow2", *backing, str(evil))
    content = bytes_of(evil)
    with pytest.raises(HostFailure, match="refers to another file") as failure:
        await stage(cache_over(folder, MemorySource(content)), digest_of(content))
    assert failure.value.final


async def test_unused_images_make_room_and_used_ones_stay(tmp_path: Path) -> None:
    cache = cache_over(tmp_path, MemorySource(RAW), keep_mib=0)
    digest = digest_of(RAW)
    await stage(cache, digest)
    cache.retain(frozenset({digest}))
    assert cache.ready(digest)
    cache.retain(frozenset())
    assert cache.ready(digest) is None
    assert names(tmp_path) == []


async def test_disks_share_their_base_and_one_that_is_too_small_is_refused(tmp_path: Path) -> None:
    files = WorkspaceFiles(tmp_path)
    storage = WorkspaceStorage(files)
    base = tmp_path / "base.img"
    fill(base, 4 << 20)
    image = BaseImage(path=str(base), format="raw", virtual_size_bytes=4 << 20)
    with pytest.raises(HostFailure, match="4 MiB"):
        await storage.make_disk("aaaaaaaaaaaa", image, 3)
    for uid in ("aaaaaaaaaaaa", "bbbbbbbbbbbb"):
        await storage.make_disk(uid, image, 64)
        await storage.make_seed(uid, {"meta-data": b"{}\n", "user-data": b"x" * 10_000})
    assert storage.uids() == {"aaaaaaaaaaaa", "bbbbbbbbbbbb"}
    for uid in ("aaaaaaaaaaaa", "bbbbbbbbbbbb"):
        disk = json.loads(await run("qemu-img", "info", "--output=json", str(files.disk(uid))))
        assert (disk["format"], disk["virtual-size"]) == ("qcow2", 64 << 20)
        assert disk["full-backing-filename"] == image.path
        assert disk["backing-filename-format"] == image.format
        # Nothing of the base is in it.
        assert disk["actual-size"] < image.virtual_size_bytes / 4
    seed = bytes_of(files.seed("aaaaaaaaaaaa"))
    assert seed[32808:32814] == b"cidata"
    await storage.remove("aaaaaaaaaaaa")
    assert storage.uids() == {"bbbbbbbbbbbb"}


async def test_a_disk_grows_and_is_read_as_it_is_after_that(tmp_path: Path) -> None:
    files = WorkspaceFiles(tmp_path)
    storage = WorkspaceStorage(files)
    base = tmp_path / "base.img"
    fill(base, 4 << 20)
    image = BaseImage(path=str(base), format="raw", virtual_size_bytes=4 << 20)
    await storage.make_disk("aaaaaaaaaaaa", image, 64)
    assert storage.disk_mib("aaaaaaaaaaaa") == 64
    await storage.grow_disk("aaaaaaaaaaaa", 96)
    assert storage.disk_mib("aaaaaaaaaaaa") == 96
    said = json.loads(
        await run("qemu-img", "info", "--output=json", str(files.disk("aaaaaaaaaaaa")))
    )
    assert said["virtual-size"] == 96 << 20
    assert said["full-backing-filename"] == image.path
    fill(files.disk("bbbbbbbbbbbb"), 4096)
    with pytest.raises(HostFailure, match="qcow2"):
        storage.disk_mib("bbbbbbbbbbbb")


async def test_a_volume_is_empty_and_owed_and_goes_with_its_workspace(tmp_path: Path) -> None:
    files = WorkspaceFiles(tmp_path)
    storage = WorkspaceStorage(files)
    assert not storage.has_volume("aaaaaaaaaaaa", 2)
    await storage.make_volume("aaaaaaaaaaaa", 2, 64)
    assert storage.has_volume("aaaaaaaaaaaa", 2)
    assert not storage.has_volume("aaaaaaaaaaaa", 1)
    made = json.loads(
        await run("qemu-img", "info", "--output=json", str(files.volume("aaaaaaaaaaaa", 2)))
    )
    assert (made["format"], made["virtual-size"]) == ("qcow2", 64 << 20)
    assert "backing-filename" not in made
    assert 60 <= storage.owed_mib() <= 64
    assert storage.uids() == {"aaaaaaaaaaaa"}
    await storage.remove("aaaaaaaaaaaa")
    assert storage.uids() == frozenset()


async def test_data_is_verified_and_not_looked_into(tmp_path: Path) -> None:
    """Also what looks like an image that names a file of the host; and it is there again for an
    agent that begins anew."""
    evil = b"QFI\xfb" + bytes(3) + b"\x03" + b"whatever" * 64
    wanted = digest_of(evil)
    cache = cache_over(tmp_path, MemorySource(evil))
    for _ in range(500):
        if cache.has_data(wanted):
            break
        cache.request(wanted, "demo", data=True)
        await asyncio.sleep(0.01)  # noqa: TID251 - files take real time
    assert bytes_of(tmp_path / WorkspaceFiles(tmp_path).image(wanted).name) == evil
    assert cache.ready(wanted) is None
    assert cache_over(tmp_path, MemorySource(b"")).has_data(wanted)
    with pytest.raises(HostFailure):
        await stage(cache, wanted)
