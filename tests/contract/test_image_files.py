"""What the image store asks of a disk: held by the fake and by real files."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from blake3 import blake3

from intertie.common.errors import DigestMismatch, StoreFull
from intertie.common.values import replace
from intertie.imagestore.adapters.files import FileImageFiles, FolderDamaged, FolderTaken
from intertie.imagestore.domain.image import Announcement, Format, Image, Source
from intertie.imagestore.domain.ports import ImageFiles
from tests.fakes.image_files import MemoryImageFiles

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OCTETS = bytes(range(256)) * 40
DIGEST = f"b3:{blake3(OCTETS).hexdigest()}"
SAID = Announcement(
    tenant="demo", image_id="a", digest=DIGEST, size_bytes=len(OCTETS), owner="spiffe://x/y"
)


def image(image_id: str = "a") -> Image:
    return Image(
        tenant="demo",
        image_id=image_id,
        digest=DIGEST,
        size_bytes=len(OCTETS),
        virtual_size_bytes=1 << 20,
        format=Format.QCOW2,
        create_time=NOW,
        owner="spiffe://x/y",
    )


@pytest.fixture(params=["memory", "files"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ImageFiles]:
    if request.param == "memory":
        yield MemoryImageFiles()
        return
    on_disk = FileImageFiles(tmp_path)
    on_disk.claim()
    yield on_disk
    on_disk.release()


async def fill(files: ImageFiles, octets: bytes = OCTETS) -> None:
    upload = await files.open_upload(SAID, now=NOW)
    await upload.write(octets)
    await upload.finish()
    await upload.close()


async def test_names_come_back_as_they_were(files: ImageFiles) -> None:
    await files.put_name(image("a"))
    await files.put_name(image("b"))
    await files.put_name(image("b"))
    assert sorted(each.image_id for each in await files.names()) == ["a", "b"]
    assert image("a") in await files.names()
    await files.remove_name("demo", "a")
    await files.remove_name("demo", "a")
    assert await files.names() == [image("b")]


async def test_where_an_image_came_from_comes_back_too(files: ImageFiles) -> None:
    source = Source(
        cluster="sites/north/tenants/demo/clusters/c",
        workspace="w-0",
        taken_time=NOW,
        quiesced=True,
        asked_time=NOW - timedelta(minutes=1),
    )
    await files.put_name(replace(image("a"), source=source))
    assert await files.names() == [replace(image("a"), source=source)]
    said = replace(SAID, source=source, replaces=False)
    upload = await files.open_upload(said, now=NOW)
    await upload.write(OCTETS[:1000])
    await upload.close()
    found = await files.find_upload("demo", DIGEST)
    assert found is not None
    assert found.announcement == said


async def test_an_upload_goes_on_where_it_was_broken_off(files: ImageFiles) -> None:
    assert await files.find_upload("demo", DIGEST) is None
    upload = await files.open_upload(SAID, now=NOW)
    await upload.write(OCTETS[:1000])
    await upload.write(OCTETS[1000:5000])
    await upload.close()
    found = await files.find_upload("demo", DIGEST)
    assert found is not None
    assert (found.uploaded_bytes, found.announcement, found.verified) == (5000, SAID, False)
    assert await files.find_upload("other", DIGEST) is None

    upload = await files.open_upload(SAID, now=NOW)
    assert upload.uploaded_bytes == 5000
    await upload.write(OCTETS[5000:])
    assert upload.digest() == DIGEST
    assert await upload.head() == OCTETS[:512]
    assert await files.blobs() == []
    await upload.finish()
    await upload.close()
    assert await files.blobs() == [DIGEST]


async def test_a_finished_upload_is_remembered_until_it_is_forgotten(files: ImageFiles) -> None:
    await fill(files)
    [found] = await files.uploads()
    assert found.verified
    assert found.uploaded_bytes == len(OCTETS)
    await files.settle_upload("demo", DIGEST)
    await files.forget_upload("demo", DIGEST)
    await files.forget_upload("demo", DIGEST)
    assert await files.uploads() == []
    assert await files.blobs() == [DIGEST]


async def test_a_discarded_upload_leaves_nothing(files: ImageFiles) -> None:
    upload = await files.open_upload(SAID, now=NOW)
    await upload.write(OCTETS)
    await upload.discard()
    await upload.close()
    assert await files.uploads() == []
    assert await files.blobs() == []


async def test_a_blob_is_read_in_ranges_and_survives_its_removal_for_readers(
    files: ImageFiles,
) -> None:
    await fill(files)
    reader = await files.open_blob(DIGEST)
    assert reader.size_bytes == len(OCTETS)
    await files.remove_blob(DIGEST)
    await files.remove_blob(DIGEST)
    assert await reader.read(100, 50) == OCTETS[100:150]
    assert await reader.read(len(OCTETS) - 10, 50) == OCTETS[-10:]
    await reader.close()
    with pytest.raises(DigestMismatch):
        await files.open_blob(DIGEST)


async def test_a_second_upload_of_the_same_bytes_replaces_the_blob(files: ImageFiles) -> None:
    await fill(files)
    await files.forget_upload("demo", DIGEST)
    await fill(files, OCTETS)
    reader = await files.open_blob(DIGEST)
    assert await reader.read(0, len(OCTETS)) == OCTETS
    await reader.close()


async def test_there_is_space_and_uploads_take_it(files: ImageFiles) -> None:
    assert await files.free_bytes() > len(OCTETS)
    hasher = files.hasher()
    hasher.update(OCTETS)
    assert hasher.digest() == DIGEST


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    first, second = FileImageFiles(tmp_path), FileImageFiles(tmp_path)
    first.claim()
    with pytest.raises(FolderTaken, match="another image store"):
        second.claim()
    first.release()
    second.claim()
    second.release()


async def test_a_name_that_cannot_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    files = FileImageFiles(tmp_path)
    files.claim()
    await files.put_name(image())
    (tmp_path / "names" / "demo" / "a.json").write_text("{")
    with pytest.raises(FolderDamaged, match=r"a\.json"):
        await files.names()
    files.release()


async def test_bytes_that_were_verified_and_not_yet_moved_are_moved(tmp_path: Path) -> None:
    """As a process leaves them that is killed between the two."""
    files = FileImageFiles(tmp_path)
    files.claim()
    await fill(files)
    hexadecimal = DIGEST.removeprefix("b3:")
    blob = tmp_path / "blobs" / "b3" / hexadecimal[:2] / hexadecimal
    blob.rename(tmp_path / "uploads" / "demo" / f"{hexadecimal}.part")
    [found] = await files.uploads()
    assert found.verified
    await files.settle_upload("demo", DIGEST)
    assert await files.blobs() == [DIGEST]
    files.release()


async def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = FileImageFiles(tmp_path)
    files.claim()
    upload = await files.open_upload(SAID, now=NOW)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", full)
        with pytest.raises(StoreFull) as caught:
            await upload.write(OCTETS)
    assert caught.value.needed == len(OCTETS)
    await upload.discard()
    await upload.close()
    assert await files.uploads() == []
    files.release()
