"""Who may touch which keys of a store, enforced by etcd itself.

etcd takes a client for the user that its certificate's common name says. The owner of a store
(`broker`, `metasched`) has all of its prefix; an agent reads what is wanted of its host, writes
what it sees there and how much its downlink has room for, and reads the latter of the other hosts.
Nothing else. Run once a store, again whenever a host joins, with the
certificate of etcd's `root`:

    python -m intertie.common.etcd.roles --endpoint 10.201.0.2:2379 --ca … --certificate … \
        --key … --server-name etcd.north.site.intertie --prefix /intertie/north \
        --owner broker --host n1 --host n2
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from etcd3aio import PermissionType, prefix_range_end

from intertie.common.errors import EtcdUnavailable
from intertie.common.etcd.client import CALL_TIMEOUT_S, Etcd, EtcdRefused, reach
from intertie.common.settings import EtcdSettings

ROOT = "root"


def agent_user(host: str) -> str:
    return f"agent-{host}"


async def provision(etcd: Etcd, hosts: Iterable[str], *, owner: str = "broker") -> None:
    """Users, roles and permissions, and authentication switched on. Idempotent.

    `etcd` must be connected as root when authentication is on already.
    """
    everything = {etcd.prefix: PermissionType.READWRITE}
    wanted: dict[str, Mapping[str, PermissionType]] = {owner: everything}
    for host in hosts:
        wanted[agent_user(host)] = {
            f"{etcd.prefix}wanted/{host}/": PermissionType.READ,
            f"{etcd.prefix}seen/{host}/": PermissionType.READWRITE,
            f"{etcd.prefix}incast/": PermissionType.READ,
            f"{etcd.prefix}incast/{host}/": PermissionType.READWRITE,
        }
    users = set((await _call(etcd.auth.user_list)).users)
    roles = set((await _call(etcd.auth.role_list)).roles)
    for name in (ROOT, *wanted):
        if name not in roles:
            await _call(etcd.auth.role_add, name)
        for prefix, kind in wanted.get(name, {}).items():
            end = prefix_range_end(prefix)
            await _call(etcd.auth.role_grant_permission, name, prefix, end, perm_type=kind)
        if name not in users:
            await _call(etcd.auth.user_add, name, no_password=True)
        await _call(etcd.auth.user_grant_role, name, name)
    await _call(etcd.auth.auth_enable)


async def _call(method: Any, *arguments: Any, **options: Any) -> Any:
    return await reach(method(*arguments, timeout=CALL_TIMEOUT_S, **options))


def main() -> int:
    parser = argparse.ArgumentParser(description="Give the users of a store their permissions.")
    parser.add_argument("--endpoint", action="append", required=True, metavar="ADDRESS:PORT")
    for name in ("--ca", "--certificate", "--key"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--server-name", default="")
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--owner", default="broker")
    parser.add_argument("--host", action="append", default=[])
    given = parser.parse_args()
    settings = EtcdSettings(
        endpoints=tuple(given.endpoint),
        ca=given.ca,
        certificate=given.certificate,
        key=given.key,
        server_name=given.server_name,
        prefix=given.prefix,
    )
    try:
        asyncio.run(_provision(settings, given.host, given.owner))
    except (EtcdUnavailable, EtcdRefused, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


async def _provision(settings: EtcdSettings, hosts: list[str], owner: str) -> None:
    etcd = await Etcd.connect(settings)
    try:
        await provision(etcd, hosts, owner=owner)
    finally:
        await etcd.close()


if __name__ == "__main__":
    sys.exit(main())
