"""The image store as a process, over mutual TLS: roles, resume, kill -9, ranges, bounds."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from blake3 import blake3

from intertie.api.imagestore.v1 import images_pb2 as pb
from intertie.api.imagestore.v1 import images_pb2_grpc
from intertie.common import errors
from intertie.common.clock import SystemClock
from intertie.common.rpc.client import channel, to_domain_error
from intertie.common.rpc.identity import site_of
from intertie.common.settings import TlsSettings
from tests.integration.pki import TestDomain, trust_in
from tests.integration.refusals import refusal

OCTETS = os.urandom(3_500_000)
DIGEST = f"b3:{blake3(OCTETS).hexdigest()}"
BLOCK = 1_000_000
PARENT = "sites/north/tenants/demo"
NAME = f"{PARENT}/images/a"


class Process:
    """`intertie-imagestore` of a site on a unix socket."""

    def __init__(self, folder: Path, domain: TestDomain, trusted: list[TestDomain]) -> None:
        self.address = f"unix:{folder}/s.sock"
        self.data = folder / "data"
        self._config = folder / "imagestore.toml"
        self._log = folder / "log"
        self._domain = domain
        tls = domain.service("imagestore")
        trust = "".join(
            f'[[trust]]\ndomain = "{each.trust.domain}"\nroots = "{each.trust.roots}"\n'
            for each in trusted
        )
        self._config.write_text(
            f'site = "{site_of(domain.name)}"\ndata = "{self.data}"\n'
            f'[listen]\naddresses = ["{self.address}"]\n'
            f'[tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\n{trust}'
            "[limits]\nmax_image_bytes = 10000000\n"
        )
        self._process: asyncio.subprocess.Process | None = None

    async def run(self) -> tuple[int, str]:
        """A start that is expected to fail: exit code and what was said."""
        process = await self._spawn(asyncio.subprocess.PIPE)
        _, said = await asyncio.wait_for(process.communicate(), 20)
        return process.returncode or 0, said.decode()

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await self._spawn(log)
        async with self.calling(self._domain.operator("root")) as images, asyncio.timeout(20):
            await images.List(pb.ListImagesRequest(parent="-/tenants/demo"), wait_for_ready=True)

    async def _spawn(self, stderr: Any) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "intertie.imagestore.main", "--config", str(self._config),
            stderr=stderr,
        )  # fmt: skip

    async def end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        with suppress(ProcessLookupError):
            process.send_signal(how)
        return await asyncio.wait_for(process.wait(), 15)

    @asynccontextmanager
    async def calling(
        self, tls: TlsSettings, stub: Callable[[grpc.aio.Channel], Any] = images_pb2_grpc.ImagesStub
    ) -> AsyncIterator[Any]:
        name = self.server_name
        async with channel(self.address, tls, trust_in(self._domain), name) as link:
            yield stub(link)

    @property
    def server_name(self) -> str:
        return self._domain.server_name("imagestore")


@pytest.fixture
async def store(
    tmp_path: Path, north: TestDomain, south: TestDomain, meta: TestDomain
) -> AsyncIterator[Process]:
    process = Process(tmp_path, north, [north, south, meta])
    try:
        await process.start()
        yield process
    finally:
        await process.end(signal.SIGKILL)


@pytest.fixture
async def images(store: Process, north: TestDomain) -> AsyncIterator[Any]:
    async with store.calling(north.user("demo", "alice")) as stub:
        yield stub


async def frames(
    offset: int = 0, octets: bytes = OCTETS, *, image_id: str = "a", **header: Any
) -> AsyncIterator[pb.PutImageRequest]:
    values: dict[str, Any] = {"parent": PARENT, "digest": DIGEST, "size_bytes": len(OCTETS)}
    values |= header
    yield pb.PutImageRequest(
        header=pb.PutImageRequest.Header(image_id=image_id, offset=offset, **values)
    )
    for start in range(offset, len(octets), BLOCK):
        yield pb.PutImageRequest(data=octets[start : start + BLOCK])


async def put(images: Any, stream: AsyncIterator[pb.PutImageRequest]) -> pb.Image:
    """As a careful caller does it: no bytes before the header has been taken."""
    call = images.Put()
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.write(await anext(stream))
        if "intertie-accepted" in dict(await call.initial_metadata()):
            async for frame in stream:
                await call.write(frame)
            await call.done_writing()
    image: pb.Image = await call
    return image


async def fetched(images: Any, **request: Any) -> bytes:
    got = b""
    async for answer in images.Fetch(pb.FetchImageRequest(**({"name": NAME} | request))):
        assert len(answer.data) <= BLOCK
        assert answer.offset == request.get("offset", 0) + len(got)
        got += answer.data
    return got


async def test_put_stat_list_fetch_delete(store: Process, images: Any) -> None:
    image = await put(images, frames())
    assert (image.name, image.digest, image.state) == (NAME, DIGEST, pb.Image.READY)
    assert image.format == pb.Image.RAW
    assert image.virtual_size_bytes == image.size_bytes == len(OCTETS)
    assert image.owner == "spiffe://north.site.intertie/tenant/demo/user/alice"
    for name in (NAME, f"{PARENT}/images/{DIGEST}", "-/tenants/demo/images/a"):
        assert await images.Stat(pb.StatImageRequest(name=name)) == image
    assert await fetched(images) == OCTETS
    assert await fetched(images, offset=999_999, length=1_500_000) == OCTETS[999_999:2_499_999]

    for k in range(4):
        await put(images, frames(len(OCTETS), image_id=f"b{k}"))
    names, token = [], ""
    while True:
        page = await images.List(
            pb.ListImagesRequest(parent="-/tenants/demo", page_size=2, page_token=token)
        )
        names += [each.name.rpartition("/")[2] for each in page.images]
        if not (token := page.next_page_token):
            break
    assert names == ["a", "b0", "b1", "b2", "b3"]
    listing = images.List(pb.ListImagesRequest(parent=PARENT, page_token="eA"))
    assert isinstance(await refusal(listing), errors.FieldInvalid)

    stale = pb.DeleteImageRequest(name=NAME, etag="old")
    assert isinstance(await refusal(images.Delete(stale)), errors.EtagStale)
    for name in ("a", "b0", "b1", "b2", "b3"):
        gone = await images.Delete(pb.DeleteImageRequest(name=f"{PARENT}/images/{name}"))
        assert gone.state == pb.Image.DELETED
    assert isinstance(await refusal(images.Stat(pb.StatImageRequest(name=NAME))), errors.NotFound)
    assert not list(store.data.glob("blobs/b3/*/*"))


async def test_goes_on_after_kill_9_in_the_middle(store: Process, north: TestDomain) -> None:
    alice = north.user("demo", "alice")
    async with store.calling(alice) as images:
        call = images.Put()
        header = pb.PutImageRequest.Header(
            parent=PARENT, image_id="a", digest=DIGEST, size_bytes=len(OCTETS)
        )
        await call.write(pb.PutImageRequest(header=header))
        for start in (0, BLOCK):
            await call.write(pb.PutImageRequest(data=OCTETS[start : start + BLOCK]))
        stat = pb.StatImageRequest(name=f"{PARENT}/images/{DIGEST}")
        await arrival(images, stat, 2 * BLOCK)
        await store.end(signal.SIGKILL)
        call.cancel()
    await store.start()
    async with store.calling(alice) as images:
        image = await images.Stat(stat)
        assert (image.state, image.uploaded_bytes) == (pb.Image.UPLOADING, 2 * BLOCK)
        mismatch = await refusal(put(images, frames(0)))
        assert isinstance(mismatch, errors.OffsetMismatch)
        assert mismatch.expected == 2 * BLOCK
        image = await put(images, frames(mismatch.expected))
        assert image.state == pb.Image.READY
        assert await fetched(images) == OCTETS
    await store.end(signal.SIGKILL)
    await store.start()
    async with store.calling(alice) as images:
        assert await images.Stat(pb.StatImageRequest(name=NAME)) == image


async def test_a_caller_that_goes_away_can_go_on_at_once(images: Any) -> None:
    call = images.Put()
    header = pb.PutImageRequest.Header(
        parent=PARENT, image_id="a", digest=DIGEST, size_bytes=len(OCTETS)
    )
    await call.write(pb.PutImageRequest(header=header))
    await call.write(pb.PutImageRequest(data=OCTETS[:BLOCK]))
    stat = pb.StatImageRequest(name=f"{PARENT}/images/{DIGEST}")
    await arrival(images, stat, BLOCK)
    async with asyncio.timeout(10):
        busy = await refusal(put(images, frames(BLOCK)))
        assert isinstance(busy, errors.PutInProgress)
        call.cancel()
        while isinstance(await _attempt(put(images, frames(BLOCK))), errors.PutInProgress):
            await SystemClock().sleep(0.05)
    assert await fetched(images) == OCTETS


async def test_wrong_bytes_are_refused_and_nothing_is_published(images: Any) -> None:
    wrong = b"x" * len(OCTETS)
    assert isinstance(await refusal(put(images, frames(octets=wrong))), errors.DigestMismatch)
    assert isinstance(await refusal(images.Stat(pb.StatImageRequest(name=NAME))), errors.NotFound)
    by_digest = pb.StatImageRequest(name=f"{PARENT}/images/{DIGEST}")
    assert isinstance(await refusal(images.Stat(by_digest)), errors.NotFound)


async def test_damage_on_disk_is_found_on_the_way(store: Process, images: Any) -> None:
    await put(images, frames())
    [blob] = store.data.glob("blobs/b3/*/*")
    octets = bytearray(OCTETS)
    octets[1_234_567] ^= 1
    blob.write_bytes(octets)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fetched(images)
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS


async def test_malformed_puts_are_refused(images: Any) -> None:
    async def no_header() -> AsyncIterator[pb.PutImageRequest]:
        yield pb.PutImageRequest(data=b"x")

    async def big_block() -> AsyncIterator[pb.PutImageRequest]:
        async for frame in frames(octets=b""):
            yield frame
        yield pb.PutImageRequest(data=OCTETS[: BLOCK + 1])

    for stream in (
        no_header(),
        big_block(),
        frames(size_bytes=10_000_001),
        frames(digest="sha256:12"),
        frames(image_id="Not_A_Label"),
        frames(image_id="../../etc"),
        frames(parent="sites/south/tenants/demo"),
    ):
        assert isinstance(await refusal(put(images, stream)), errors.FieldInvalid)


async def test_a_message_of_five_mebibytes_is_refused(images: Any) -> None:
    async def huge() -> AsyncIterator[pb.PutImageRequest]:
        async for frame in frames(octets=b""):
            yield frame
        yield pb.PutImageRequest(data=b"x" * 5 * 1024 * 1024)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await put(images, huge())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_who_may_do_what(store: Process, images: Any, north: TestDomain,
                               south: TestDomain, meta: TestDomain) -> None:  # fmt: skip
    await put(images, frames())
    stat, fetch = pb.StatImageRequest(name=NAME), pb.FetchImageRequest(name=NAME)
    delete = pb.DeleteImageRequest(name=NAME)
    async with store.calling(north.user("other", "eve")) as eve:
        for call in (
            eve.Stat(stat), eve.Delete(delete), eve.Fetch(fetch).read(), put(eve, frames()),
            eve.List(pb.ListImagesRequest(parent=PARENT)),
        ):  # fmt: skip
            assert isinstance(await refusal(call), errors.RoleDenied)
    async with store.calling(south.user("demo", "alice")) as foreign:
        assert isinstance(await refusal(foreign.Stat(stat)), errors.RoleDenied)
    async with store.calling(north.service("agent/n1")) as agent:
        by_digest = f"sites/north/tenants/other/images/{DIGEST}"
        assert await fetched(agent, name=by_digest) == OCTETS
        assert isinstance(await refusal(agent.Delete(delete)), errors.RoleDenied)
        assert isinstance(await refusal(put(agent, frames())), errors.RoleDenied)
    for peer in (north.service("broker"), meta.service("metasched")):
        async with store.calling(peer) as service:
            assert (await service.Stat(stat)).digest == DIGEST
            assert isinstance(await refusal(service.Fetch(fetch).read()), errors.RoleDenied)
    async with store.calling(south.service("agent/s1")) as agent:
        assert isinstance(await refusal(agent.Stat(stat)), errors.RoleDenied)


async def test_a_second_process_on_the_same_folder_says_why_it_will_not_start(
    store: Process, tmp_path: Path, north: TestDomain
) -> None:
    code, said = await Process(tmp_path, north, [north]).run()
    assert code == 1
    assert "another image store uses this folder" in said


async def test_ends_in_order_on_sigterm(store: Process) -> None:
    assert await store.end(signal.SIGTERM) == 0


async def arrival(images: Any, stat: pb.StatImageRequest, wanted: int) -> None:
    """Until the store has taken so many bytes."""
    async with asyncio.timeout(10):
        while await _uploaded(images, stat) < wanted:
            await SystemClock().sleep(0.05)


async def _uploaded(images: Any, stat: pb.StatImageRequest) -> int:
    try:
        image = await images.Stat(stat)
    except grpc.aio.AioRpcError:
        return 0
    return int(image.uploaded_bytes)


async def _attempt(call: Any) -> errors.DomainError | None:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return to_domain_error(error)
    return None
