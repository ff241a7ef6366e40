"""Bare compare-and-put transactions on a site's etcd, with no service between.

`python etcd_floor.py CONFIG CALLERS CALLS` runs beside the service whose CONFIG it is given and
prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.load import closed_loop
from intertie.common.etcd.client import Compare, Etcd, Put
from intertie.common.settings import EtcdSettings


async def measure(config: str, callers: int, calls: int) -> None:
    """Each transaction compares a key that is not there and writes 1 KiB."""
    table = tomllib.loads(Path(config).read_text())["etcd"]
    etcd = await Etcd.connect(EtcdSettings(**table))
    value = b"x" * 1024

    async def put(number: int) -> None:
        key = f"bench/{number % 256}"
        done = await etcd.txn([Compare.absent(f"{key}/never")], [Put(key, value)])
        assert done.succeeded

    await closed_loop(put, calls=callers, callers=callers)
    measured = await closed_loop(put, calls=calls, callers=callers)
    print(json.dumps(asdict(measured)))
    await etcd.close()


if __name__ == "__main__":
    asyncio.run(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
