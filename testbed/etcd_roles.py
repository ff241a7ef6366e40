"""Who may touch which keys of a testbed's etcds: an agent only those of its own host."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from testbed.component import ComponentFailed, Inside, environment_of
from testbed.domains import ETCD_ROOT, Domain, meta_domain, site_domain
from testbed.etcds import endpoints
from testbed.places import Places
from testbed.topology import META, Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class _Store:
    label: str
    domain: Domain
    inside: Inside
    endpoint: str
    prefix: str
    owner: str
    hosts: tuple[str, ...] = ()


def provision_roles(places: Places, topology: Topology) -> None:
    """Users, roles, and authentication switched on, in every etcd, once it is ready."""
    stores = list(_stores(places, topology))
    with ThreadPoolExecutor(max_workers=len(stores)) as pool:
        list(pool.map(lambda store: _provision(places, store), stores))


def _stores(places: Places, topology: Topology) -> Iterator[_Store]:
    for site in topology.sites:
        yield _Store(
            label=site.name,
            domain=site_domain(places, site.name),
            inside=Inside(netns=places.ctl_netns(site.name)),
            endpoint=endpoints(topology.ctl_address(site.name), topology.etcd_members)[0],
            prefix=f"/intertie/{site.name}",
            owner="broker",
            hosts=tuple(host.name for host in site.hosts),
        )
    yield _Store(
        label=META,
        domain=meta_domain(places, topology),
        inside=Inside(netns=places.meta_netns),
        endpoint=endpoints(topology.meta_address(), topology.etcd_members)[0],
        prefix=f"/intertie/{topology.metasched}",
        owner="metasched",
    )


def _provision(places: Places, store: _Store) -> None:
    root = store.domain.etcd_credential(ETCD_ROOT)
    argv = (
        *(sys.executable, "-m", "intertie.common.etcd.roles"),
        *("--endpoint", store.endpoint),
        *("--ca", str(store.domain.etcd_roots)),
        *("--certificate", str(root.certificate)),
        *("--key", str(root.key)),
        *("--server-name", store.domain.etcd_server_name),
        *("--prefix", store.prefix),
        *("--owner", store.owner),
        *(word for host in store.hosts for word in ("--host", host)),
    )
    ran = subprocess.run(
        store.inside.wrap(argv),
        env=environment_of(places),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if ran.returncode != 0:
        raise ComponentFailed(f"{store.label}/etcd", "its roles were not made", ran.stderr[-800:])
