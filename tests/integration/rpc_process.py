"""A server in a process of its own, so that what it takes can be measured from outside.

Run as `python -m tests.integration.rpc_process CERTIFICATE KEY DOMAIN ROOTS`; says its port, and
serves until it is killed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from intertie.common.settings import TlsSettings, TrustSettings
from tests.integration.pki import TestDomain
from tests.integration.rpc_service import Clusters, serving


@dataclass(frozen=True)
class ServerProcess:
    pid: int
    address: str

    def memory_mib(self) -> float:
        """What it holds in memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def most_memory_mib(self) -> float:
        """The most that it ever held."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmHWM")

    def files(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


@asynccontextmanager
async def server_process(domain: TestDomain) -> AsyncIterator[ServerProcess]:
    tls, trust = domain.service("broker"), domain.trust
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__,
        str(tls.certificate), str(tls.key), trust.domain, str(trust.roots),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        while not line.startswith(b"127."):
            line = await asyncio.wait_for(process.stdout.readline(), 60)
        yield ServerProcess(process.pid, line.decode().strip())
    finally:
        process.kill()
        await process.communicate()


async def _main(certificate: str, key: str, domain: str, roots: str) -> None:
    tls = TlsSettings(certificate=Path(certificate), key=Path(key))
    trusted = _Trusted(TrustSettings(domain=domain, roots=Path(roots)))
    async with serving(tls, [trusted], Clusters()) as address:  # type: ignore[list-item]
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


@dataclass(frozen=True)
class _Trusted:
    trust: TrustSettings


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
