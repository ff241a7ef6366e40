"""Taking images in, with a disk in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from blake3 import blake3

from intertie.common.errors import (
    DigestMismatch,
    EtagStale,
    FieldInvalid,
    NotFound,
    OffsetMismatch,
    PutInProgress,
    StoreFull,
)
from intertie.common.names import ImageName, Parent
from intertie.imagestore.domain.image import Announcement, Format, Image, Upload
from intertie.imagestore.loops.sweep import Sweep
from intertie.imagestore.usecases.put_image import PutImage
from intertie.imagestore.usecases.read_images import FetchImage, ListImages, StatImage
from intertie.imagestore.usecases.shelf import Shelf
from tests.fakes.clock import FakeClock
from tests.fakes.image_files import MemoryImageFiles

OCTETS = b"disk" * 5000
OTHER = b"else" * 5000
SIZE = len(OCTETS)
MAX = 1 << 20


def digest_of(octets: bytes) -> str:
    return f"b3:{blake3(octets).hexdigest()}"


def saying(octets: bytes = OCTETS, *, tenant: str = "demo", image_id: str = "a") -> Announcement:
    return Announcement(
        tenant=tenant,
        image_id=image_id,
        digest=digest_of(octets),
        size_bytes=len(octets),
        owner="spiffe://north.site.intertie/tenant/demo/user/alice",
    )


async def blocks(*each: bytes) -> AsyncIterator[bytes]:
    for block in each:
        yield block


class Store:
    """One process's view of a disk; a second one on the same disk is the process restarted."""

    def __init__(self, files: MemoryImageFiles, clock: FakeClock) -> None:
        self.files, self.clock = files, clock
        self.shelf = Shelf(files, clock, site="north")
        self.put = PutImage(files, self.shelf, clock, max_bytes=MAX)
        self.stat = StatImage(files, self.shelf)
        self.fetch = FetchImage(files, self.shelf)

    async def read(self, name: str, offset: int = 0, length: int = 0) -> bytes:
        got = b""
        fetching = self.fetch(named(name), offset=offset, length=length, any_tenant=False)
        async for at, data in fetching:
            assert at == offset + len(got)
            got += data
        return got


@pytest.fixture
def store() -> Store:
    return Store(MemoryImageFiles(), FakeClock())


def named(image: str, tenant: str = "demo") -> ImageName:
    return ImageName("-", tenant, image)


async def test_what_was_put_is_found_by_name_and_by_digest_and_read(store: Store) -> None:
    image = await store.put(saying(), 0, blocks(OCTETS[:7000], OCTETS[7000:]))
    assert (image.size_bytes, image.virtual_size_bytes) == (SIZE, SIZE)
    assert await store.stat(named("a"), any_tenant=False) == image
    assert await store.stat(named(image.digest), any_tenant=False) == image
    assert await store.read("a") == OCTETS
    assert await store.read("a", 100, 50) == OCTETS[100:150]
    assert await store.read("a", SIZE - 1, 50) == OCTETS[-1:]
    assert await store.read("a", SIZE) == b""
    assert await store.files.uploads() == []


async def test_nothing_is_published_before_all_has_come(store: Store) -> None:
    with pytest.raises(OffsetMismatch) as caught:
        await store.put(saying(), 0, blocks(OCTETS[:7000]))
    assert caught.value.expected == 7000
    with pytest.raises(NotFound):
        await store.stat(named("a"), any_tenant=False)
    upload = await store.stat(named(digest_of(OCTETS)), any_tenant=False)
    assert isinstance(upload, Upload)
    assert upload.uploaded_bytes == 7000
    with pytest.raises(NotFound):
        await store.stat(named(digest_of(OCTETS), "other"), any_tenant=False)

    with pytest.raises(OffsetMismatch) as caught:
        await store.put(saying(), 6000, blocks(OCTETS[6000:]))
    assert caught.value.expected == 7000
    restarted = Store(store.files, store.clock)
    await restarted.shelf.load()
    await restarted.put(saying(), 7000, blocks(OCTETS[7000:]))
    assert await restarted.read("a") == OCTETS


async def test_wrong_bytes_are_forgotten_and_nothing_is_published(store: Store) -> None:
    with pytest.raises(DigestMismatch):
        await store.put(saying(), 0, blocks(OTHER))
    with pytest.raises(DigestMismatch):
        await store.put(saying(), 0, blocks(OCTETS, b"more"))
    assert await store.files.uploads() == []
    assert await store.files.blobs() == []
    await store.put(saying(), 0, blocks(OCTETS))


async def test_what_is_no_image_is_refused_before_all_of_it_has_come(store: Store) -> None:
    octets = b"KDMV".ljust(10_000, b"\0")
    taken = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal taken
        for k in range(10):
            taken += 1
            yield octets[1000 * k : 1000 * (k + 1)]

    with pytest.raises(FieldInvalid, match="VMDK"):
        await store.put(saying(octets), 0, counted())
    assert taken == 1
    assert await store.files.uploads() == []


@pytest.mark.parametrize(("digest", "size"), [("b3:12", 5), (digest_of(b"x"), 0),
                                              (digest_of(b"x"), MAX + 1)])  # fmt: skip
async def test_an_impossible_announcement_is_refused(store: Store, digest: str, size: int) -> None:
    said = Announcement(tenant="demo", image_id="a", digest=digest, size_bytes=size, owner="x")
    with pytest.raises(FieldInvalid):
        await store.put(said, 0, blocks(b"x"))


async def test_a_put_of_the_same_digest_waits_its_turn(store: Store) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield OCTETS[:7000]
        begun.set()
        await go_on.wait()
        yield OCTETS[7000:]

    first = asyncio.create_task(store.put(saying(), 0, slow()))
    await begun.wait()
    with pytest.raises(PutInProgress):
        await store.put(saying(), 0, blocks(OCTETS))
    # Another tenant's own upload of the same bytes is its own affair.
    theirs = await store.put(saying(tenant="other"), 0, blocks(OCTETS))
    await store.shelf.withdraw(named("a", "other"), etag=theirs.etag)
    go_on.set()
    await first
    assert await store.read("a") == OCTETS


async def test_a_cancelled_put_keeps_its_bytes_and_lets_go(store: Store) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield OCTETS[:7000]
        begun.set()
        await asyncio.Event().wait()

    putting = asyncio.create_task(store.put(saying(), 0, endless()))
    await begun.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    await store.put(saying(), 7000, blocks(OCTETS[7000:]))
    assert await store.read("a") == OCTETS


async def test_putting_again_takes_no_bytes_and_changes_nothing(store: Store) -> None:
    image = await store.put(saying(), 0, blocks(OCTETS))
    await store.clock.advance(10)
    assert await store.put(saying(), SIZE, blocks()) == image
    alias = await store.put(saying(image_id="b"), SIZE, blocks())
    assert alias.image_id == "b"
    assert len(await store.files.blobs()) == 1


async def test_knowing_a_digest_is_no_proof_of_having_the_bytes(store: Store) -> None:
    await store.put(saying(), 0, blocks(OCTETS))
    with pytest.raises(OffsetMismatch) as caught:
        await store.put(saying(tenant="other"), SIZE, blocks())
    assert caught.value.expected == 0
    with pytest.raises(DigestMismatch):
        await store.put(saying(tenant="other"), 0, blocks(OTHER))
    with pytest.raises(NotFound):
        store.shelf.find(named(digest_of(OCTETS), "other"))
    assert store.shelf.find(named(digest_of(OCTETS), "other"), any_tenant=True).tenant == "demo"


async def test_bytes_go_with_their_last_name(store: Store) -> None:
    await store.put(saying(), 0, blocks(OCTETS))
    await store.put(saying(image_id="b"), SIZE, blocks())
    await store.shelf.withdraw(named("a"), etag="")
    assert await store.read("b") == OCTETS
    await store.put(saying(OTHER, image_id="b"), 0, blocks(OTHER))
    assert await store.files.blobs() == [digest_of(OTHER)]
    with pytest.raises(EtagStale):
        await store.shelf.withdraw(named("b"), etag="old")
    with pytest.raises(FieldInvalid):
        await store.shelf.withdraw(named(digest_of(OTHER)), etag="")
    await store.shelf.withdraw(named("b"), etag="")
    assert await store.files.blobs() == []
    with pytest.raises(NotFound):
        await store.shelf.withdraw(named("b"), etag="")


async def test_bytes_that_are_just_being_put_again_stay(store: Store) -> None:
    """Its upload may have become that very blob, with the name about to be written."""
    await store.put(saying(), 0, blocks(OCTETS))
    store.shelf.busy.add(("other", digest_of(OCTETS)))
    await store.shelf.withdraw(named("a"), etag="")
    assert await store.files.blobs() == [digest_of(OCTETS)]
    store.shelf.busy.clear()
    await store.shelf.drop_if_unused(digest_of(OCTETS))
    assert await store.files.blobs() == []


async def test_a_full_store_says_so_and_keeps_no_bytes(store: Store) -> None:
    store.files.capacity_bytes = SIZE - 1
    with pytest.raises(StoreFull) as caught:
        await store.put(saying(), 0, blocks(OCTETS))
    assert (caught.value.needed, caught.value.free) == (SIZE, SIZE - 1)

    async def filling_up() -> AsyncIterator[bytes]:
        yield OCTETS[:7000]
        store.files.capacity_bytes = 8000
        yield OCTETS[7000:]

    store.files.capacity_bytes = SIZE
    with pytest.raises(StoreFull):
        await store.put(saying(), 0, filling_up())
    assert await store.files.uploads() == []


async def test_space_that_another_upload_waits_for_is_not_free(store: Store) -> None:
    store.files.capacity_bytes = 2 * SIZE - 1
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        begun.set()
        await go_on.wait()
        yield OCTETS

    first = asyncio.create_task(store.put(saying(), 0, slow()))
    await begun.wait()
    with pytest.raises(StoreFull):
        await store.put(saying(OTHER), 0, blocks(OTHER))
    go_on.set()
    await first


async def test_damaged_bytes_never_arrive_whole_and_are_healed_by_a_new_put(store: Store) -> None:
    image = await store.put(saying(), 0, blocks(OCTETS))
    store.files.blob_octets[image.digest] = OCTETS[:-1] + b"X"
    with pytest.raises(DigestMismatch):
        await store.read("a")
    with pytest.raises(DigestMismatch):
        await store.read("a", 0, 10)
    await store.put(saying(), 0, blocks(OCTETS))
    assert await store.read("a") == OCTETS
    store.files.blob_octets[image.digest] = OCTETS[:-1]
    with pytest.raises(DigestMismatch, match="19999 bytes"):
        await store.read("a")


async def test_a_fetch_behind_the_end_is_refused(store: Store) -> None:
    await store.put(saying(), 0, blocks(OCTETS))
    with pytest.raises(OffsetMismatch):
        await store.read("a", SIZE + 1)
    with pytest.raises(FieldInvalid):
        await store.read("a", -1)


async def test_a_process_killed_before_it_published_does_so_when_it_comes_back(
    store: Store,
) -> None:
    upload = await store.files.open_upload(saying(), now=store.clock.now())
    await upload.write(OCTETS)
    await upload.finish()
    restarted = Store(store.files, store.clock)
    await restarted.shelf.load()
    assert await restarted.read("a") == OCTETS
    assert await store.files.uploads() == []


async def test_unverified_bytes_of_full_size_are_not_published_at_start(store: Store) -> None:
    """Even where another tenant's blob of that digest exists."""
    await store.put(saying(tenant="other"), 0, blocks(OCTETS))
    upload = await store.files.open_upload(saying(), now=store.clock.now())
    await upload.write(OTHER)
    restarted = Store(store.files, store.clock)
    await restarted.shelf.load()
    with pytest.raises(NotFound):
        restarted.shelf.find(named("a"))


async def test_blobs_that_nothing_points_to_go_at_start(store: Store) -> None:
    store.files.blob_octets[digest_of(OTHER)] = OTHER
    await store.put(saying(), 0, blocks(OCTETS))
    await store.shelf.load()
    assert await store.files.blobs() == [digest_of(OCTETS)]


async def test_uploads_that_nobody_goes_on_with_are_forgotten(store: Store) -> None:
    with pytest.raises(OffsetMismatch):
        await store.put(saying(), 0, blocks(OCTETS[:7000]))
    sweep = Sweep(store.files, store.shelf, store.clock, retention=timedelta(hours=1))
    await store.clock.advance(3600)
    await sweep.sweep()
    assert len(await store.files.uploads()) == 1
    await store.clock.advance(1)
    await sweep.sweep()
    assert await store.files.uploads() == []


async def test_lists_a_tenants_images_and_knows_its_site(store: Store) -> None:
    await store.put(saying(), 0, blocks(OCTETS))
    await store.put(saying(tenant="other"), 0, blocks(OCTETS))
    listing = ListImages(store.shelf)
    assert [image.tenant for image in listing(Parent.parse("-/tenants/demo"))] == ["demo"]
    assert len(listing(Parent.parse("sites/north/tenants/-"))) == 2
    with pytest.raises(NotFound):
        listing(Parent.parse("sites/south/tenants/demo"))
    with pytest.raises(NotFound):
        store.shelf.find(ImageName("south", "demo", "a"))
    found = store.shelf.find(ImageName("north", "demo", "a"))
    assert isinstance(found, Image)


async def test_data_is_taken_whatever_it_looks_like_and_an_image_is_not(store: Store) -> None:
    packed = b"\x1f\x8b" + b"x" * 2046
    said = saying(packed)
    with pytest.raises(FieldInvalid, match="gzip"):
        await store.put(said, 0, blocks(packed))
    image = await store.put(replace(said, data=True), 0, blocks(packed))
    assert (image.format, image.virtual_size_bytes) == (Format.RAW, 2048)
    assert await store.read("a") == packed
    evil = b"QFI\xfb" + bytes(508)
    image = await store.put(replace(saying(evil, image_id="b"), data=True), 0, blocks(evil))
    assert image.format is Format.RAW
