"""What the owner of a part was promised, and what the hosts measure of it."""

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from intertie.broker.domain.part import Part
from intertie.common.guarantees import (
    Guarantee,
    GuaranteeKind,
    Measured,
    of_pairs,
    of_workspace,
    with_measured,
)
from intertie.common.part_spec import PartSpec
from intertie.common.values import Struct


class MeasuredDirection(Struct, frozen=True, kw_only=True):
    """What one agent measures of one direction of one promise, in the words of agents: MACs."""

    kind: int
    network: str = ""
    source: str = ""
    target: str = ""
    value: float
    backlogged: bool = False
    below_since: datetime | None = None


class MeasuredPart(Struct, frozen=True, kw_only=True):
    """All that one agent measures of one part."""

    at: datetime
    directions: tuple[MeasuredDirection, ...] = ()


def measured_of(part: Part, told: Mapping[str, MeasuredPart]) -> tuple[Measured, ...]:
    """What is measured of the part, one entry a direction; of a part that is over, nothing.

    An agent is heard on what its own host carries, and on nothing else: what a workspace there
    sends, takes and stores, and at the gateway what leaves the site.
    """
    found: dict[tuple[GuaranteeKind, str, str, str], Measured] = {}
    if part.over or not told:
        return ()
    names = {
        (network.name, member.mac): member.workspace
        for network in part.spec.networks
        for member in network.members
    }
    host_of = {each.workspace: each.host for each in part.placed}
    for host, report in sorted(told.items()):
        for each in report.directions:
            measured = _named(part, each, report.at, names)
            if measured is None or not _may_say(host, measured, part, host_of):
                continue
            key = measured.kind, measured.network, measured.source, measured.target
            known = found.get(key)
            found[key] = known.with_another(measured) if known else measured
    return tuple(found[key] for key in sorted(found))


def _named(
    part: Part, told: MeasuredDirection, at: datetime, names: Mapping[tuple[str, str], str]
) -> Measured | None:
    """In the words of owners. None for what this site does not know."""
    if told.kind not in set(GuaranteeKind) or not math.isfinite(told.value):
        return None
    kind = GuaranteeKind(told.kind)
    source, target = told.source, told.target
    if kind in (GuaranteeKind.PAIR_BANDWIDTH, GuaranteeKind.NIC_BANDWIDTH):
        source, target = (names.get((told.network, mac), "") for mac in (source, target))
        if kind is GuaranteeKind.PAIR_BANDWIDTH and not (source and target):
            return None
    elif kind is GuaranteeKind.LINK_BANDWIDTH:
        source = part.path.site
    return Measured(
        kind=kind,
        network=told.network,
        source=source,
        target=target,
        value=told.value,
        at=at,
        backlogged=told.backlogged,
        below_since=told.below_since,
    )


def _may_say(host: str, measured: Measured, part: Part, host_of: Mapping[str, str]) -> bool:
    """A host speaks of what is on it and, as the gateway, of what leaves the site."""
    if measured.kind is GuaranteeKind.LINK_BANDWIDTH:
        return host == part.gateway
    if measured.kind is GuaranteeKind.PAIR_BANDWIDTH and host == part.gateway:
        return measured.source in host_of
    return host_of.get(measured.source or measured.target) == host


def guarantees_of(spec: PartSpec, measured: Iterable[Measured] = ()) -> Iterator[Guarantee]:
    """Every promise in it that is more than nothing, with what is measured of it."""
    return with_measured(_promises(spec), measured)


def _promises(spec: PartSpec) -> Iterator[Guarantee]:
    for network in spec.networks:
        yield from of_pairs(network.name, network.pairs)
    for each in spec.workspaces:
        networks = (nic.network for nic in each.nics)
        yield from of_workspace(each.label, each.allocation, networks, each.disks)
