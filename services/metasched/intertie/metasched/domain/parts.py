"""The pieces of a cluster that sites are asked to hold, and the digest of all of them."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from itertools import pairwise
from typing import Any

from intertie.common.intervals import Window
from intertie.common.names import workspace_label
from intertie.common.part_spec import (
    FurtherDisk,
    LinkReservation,
    PartNetwork,
    PartSpec,
    PartWorkspace,
    Recallable,
    Transfer,
    further_disks,
)
from intertie.common.spec import ClusterSpec, Layout
from intertie.common.values import Struct, defaults, replace
from intertie.metasched.domain.data import TransferPlan
from intertie.metasched.domain.plan import LinkPlan, Plan


def part_specs(
    name: str,
    uid: str,
    spec: ClusterSpec,
    plan: Plan,
    placed: Layout,
    recallable: Recallable | None = None,
) -> dict[str, PartSpec]:
    """What each site of the plan is to hold; `spec` is normalised, `placed` its layout."""
    site_of = plan.site_of()
    return {
        site: PartSpec(
            cluster=name,
            cluster_uid=uid,
            window=plan.window,
            workspaces=_workspaces(spec, plan, placed, site_of, site),
            networks=_networks(spec, placed, site_of, site),
            links=_links(plan.links, site),
            host_entries=placed.host_entries,
            recallable=recallable,
            transfers=_transfers(plan.transfers, site),
        )
        for site in plan.site_names
    }


def agreement_digest(specs: Mapping[str, PartSpec]) -> str:
    """Of everything that all sites are asked for: what their receipts must agree on.

    BLAKE2b over canonical JSON, so that it depends on nothing but the values.
    """
    return digest_of({site: said(spec) for site, spec in specs.items()})


def said(value: Any) -> Any:
    """A value without the fields that hold their default, at any depth: a field that a later
    release adds changes no digest of what does not use it."""
    if isinstance(value, tuple):
        return [said(each) for each in value]
    if not isinstance(value, Struct):
        return value
    return {
        name: said(held)
        for name, default in defaults(type(value))
        if (held := getattr(value, name)) != default
    }


def digest_of(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return "b2:" + hashlib.blake2b(canonical.encode(), digest_size=32).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value / timedelta(microseconds=1)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Enum):
        return value.value
    raise TypeError(type(value).__name__)


def _workspaces(
    spec: ClusterSpec, plan: Plan, placed: Layout, site_of: Mapping[str, str], site: str
) -> tuple[PartWorkspace, ...]:
    disks = {group.name: disks_in(plan, spec, group.name) for group in spec.groups}
    return tuple(
        PartWorkspace(
            group=group.name,
            index=index,
            environment=replace(group.environment, image=plan.images[group.name]),
            allocation=group.allocation,
            nics=placed.nics[label],
            max_per_host=plan.most_on_host(group.name, group.placement.max_per_host),
            disks=disks[group.name],
        )
        for group in spec.groups
        for index in range(plan.count(group.name))
        if site_of[label := workspace_label(group.name, index)] == site
    )


def disks_in(plan: Plan, spec: ClusterSpec, group: str) -> tuple[FurtherDisk, ...]:
    """What each workspace of the group has beside its root disk, with the digests of the plan; as
    the request calls them where the plan has none of the group."""
    disks = further_disks(spec, group)
    digests = iter(plan.data.get(group, ()))
    return tuple(
        replace(each, image=next(digests, each.image)) if each.image else each for each in disks
    )


def _networks(
    spec: ClusterSpec, placed: Layout, site_of: Mapping[str, str], site: str
) -> tuple[PartNetwork, ...]:
    return tuple(
        PartNetwork(
            name=network.name,
            subnet=network.subnet,
            members=placed.members[network.name],
            pairs=tuple(
                pair
                for pair in placed.pairs[network.name]
                if site in (site_of[pair.a], site_of[pair.b])
            ),
        )
        for network in spec.networks
        if any(member.site == site for member in placed.members[network.name])
    )


def _links(links: tuple[LinkPlan, ...], site: str) -> tuple[LinkReservation, ...]:
    """The site's own halves: what it sends to each peer, and what it takes from it, its own and
    what it forwards."""
    halves: dict[tuple[str, str], list[int]] = {}
    for link in links:
        for one, two in pairwise(link.route) if link.mbit_s else ():
            if one == site:
                halves.setdefault((two, link.network), [0, 0])[0] += link.mbit_s
            elif two == site:
                halves.setdefault((one, link.network), [0, 0])[1] += link.mbit_s
    return tuple(
        LinkReservation(peer=peer, network=network, egress_mbit_s=out, ingress_mbit_s=into)
        for (peer, network), (out, into) in sorted(halves.items())
    )


def _transfers(transfers: tuple[TransferPlan, ...], site: str) -> tuple[Transfer, ...]:
    """Those that begin or end at the site. No site forwards any yet."""
    return tuple(
        Transfer(
            digest=each.item,
            size_bytes=each.size_bytes,
            from_site=each.from_site,
            to_site=each.to_site,
            mbit_s=each.mbit_s,
            window=Window(each.begin, each.end),
            data=each.data,
        )
        for each in transfers
        if site in (each.from_site, each.to_site)
    )
