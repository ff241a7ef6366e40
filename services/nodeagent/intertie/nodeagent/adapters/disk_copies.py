"""Copies of workspaces' disks in the host's pool, by qemu-img and by name."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from intertie.common.clock import Clock
from intertie.common.tasks import uninterrupted
from intertie.nodeagent.adapters.commands import run, run_json
from intertie.nodeagent.adapters.workspace_storage import WorkspaceStorage
from intertie.nodeagent.domain.domain_xml import MIB
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.pace import Pace

_READ_BYTES = 4 * MIB
_LOOK_S = 0.5


class PoolCopies:
    """See domain.snapshot_ports.DiskCopies. `.copying` becomes `.copied` once it is whole and on
    the disk itself."""

    def __init__(
        self, files: WorkspaceFiles, storage: WorkspaceStorage, clock: Clock, *, mib_s: int
    ) -> None:
        self._files = files
        self._storage = storage
        self._clock = clock
        self._mib_s = mib_s

    async def needed_bytes(self, uid: str) -> int:
        """By `qemu-img measure`, which reads the tables of the disk and of its base image. What a
        guest writes later is not of the moment that is copied."""
        disk = str(self._files.disk(uid))
        found = await run_json(
            "qemu-img", "measure", "-U", "-f", "qcow2", "-O", "qcow2", "--output=json", disk
        )
        return int(found["required"])

    async def prepare(self, uid: str) -> None:
        self.discard(uid)
        size_mib = self._storage.disk_mib(uid)
        fresh = str(self._files.copying(uid))
        await run("qemu-img", "create", "-q", "-f", "qcow2", fresh, f"{size_mib}M")

    async def copy(self, uid: str, done: Callable[[int], None]) -> None:
        """The program ends with this agent, however that ends: it would keep the disk locked."""
        target = self._files.copying(uid)
        argv = (
            *("setpriv", "--pdeathsig", "KILL"),
            *("qemu-img", "convert", "-q", "-n", "-r", f"{self._mib_s}M"),
            *("-f", "qcow2", "-O", "qcow2", str(self._files.disk(uid)), str(target)),
        )
        process = _start(argv)
        ended = asyncio.create_task(asyncio.to_thread(process.communicate))
        try:
            while not ended.done():
                await asyncio.wait({ended}, timeout=_LOOK_S)
                done(self.written_bytes(uid))
        except asyncio.CancelledError:
            process.kill()
            await uninterrupted(ended)
            raise
        _, said = ended.result()
        if process.returncode != 0:
            text = said.decode(errors="replace").strip()
            raise HostFailure(f"its disk could not be copied: {text[:500]}")

    async def finish(self, uid: str) -> tuple[str, int]:
        copying = self._files.copying(uid)
        digest = await self._digest(copying)
        copying.rename(self._files.copied(uid))
        return digest, self._files.copied(uid).stat().st_size

    def is_there(self, uid: str) -> bool:
        return self._files.copying(uid).exists() or self.is_whole(uid)

    def is_whole(self, uid: str) -> bool:
        return self._files.copied(uid).exists()

    def written_bytes(self, uid: str) -> int:
        with suppress(FileNotFoundError):
            return self._files.copying(uid).stat().st_blocks * 512
        return 0

    def discard(self, uid: str) -> None:
        for path in (self._files.copying, self._files.copied):
            path(uid).unlink(missing_ok=True)

    async def _digest(self, path: Path) -> str:
        pace = Pace(self._mib_s * MIB)
        hasher = blake3()
        with path.open("rb") as file:
            await asyncio.to_thread(os.fsync, file.fileno())
            while data := await asyncio.to_thread(file.read, _READ_BYTES):
                await asyncio.to_thread(hasher.update, data)
                await self._clock.sleep(pace.wait_s(len(data), now=self._clock.monotonic()))
        return f"b3:{hasher.hexdigest()}"


def _start(argv: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """By the thread that lives as long as this agent does: `setpriv --pdeathsig` goes by that."""
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
