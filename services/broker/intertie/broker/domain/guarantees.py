"""What the owner of a part was promised, and what the hosts measure of it."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum

from intertie.broker.domain.part import Part
from intertie.common.part_spec import PartSpec


class GuaranteeKind(IntEnum):
    """As in intertie.api.cluster.v1.Guarantee.Kind, by number."""

    PAIR_BANDWIDTH = 1
    NIC_BANDWIDTH = 2
    DISK_IOPS = 3
    DISK_THROUGHPUT = 4
    LINK_BANDWIDTH = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredDirection:
    """What one agent measures of one direction of one promise, in the words of agents: MACs."""

    kind: int
    network: str = ""
    source: str = ""
    target: str = ""
    value: float
    backlogged: bool = False
    below_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPart:
    """All that one agent measures of one part."""

    at: datetime
    directions: tuple[MeasuredDirection, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One direction of one promise, between workspaces or sites."""

    kind: GuaranteeKind
    network: str = ""
    source: str = ""
    target: str = ""
    value: float
    at: datetime
    backlogged: bool = False
    below_since: datetime | None = None

    def with_another(self, other: "Measured") -> "Measured":
        """Of two hosts on the way of one direction: what came through is what passed the narrower
        one, and it was below since the first of them said so."""
        since = [each for each in (self.below_since, other.below_since) if each is not None]
        return replace(
            min(self, other, key=lambda each: each.value),
            backlogged=self.backlogged or other.backlogged,
            below_since=min(since, default=None),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarantee:
    kind: GuaranteeKind
    source: str
    target: str = ""
    network: str = ""
    guarantee: int
    cap: int
    unit: str
    measured: tuple[Measured, ...] = ()


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
    found: dict[_Subject, list[Measured]] = {}
    for each in measured:
        found.setdefault(_subject(each), []).append(each)
    for promise in _promises(spec):
        own = tuple(found.get(_subject(promise), ()))
        yield replace(promise, measured=own) if own else promise


_Subject = tuple[GuaranteeKind, str, frozenset[str]]


def _subject(of: Measured | Guarantee) -> _Subject:
    """A pair is promised the same both ways, and so is a NIC."""
    return of.kind, of.network, frozenset({of.source, of.target} - {""})


def _promises(spec: PartSpec) -> Iterator[Guarantee]:
    """Pairs, NICs, disks."""
    for network in spec.networks:
        for pair in network.pairs:
            if pair.bandwidth.guarantee_mbit_s:
                yield Guarantee(
                    kind=GuaranteeKind.PAIR_BANDWIDTH,
                    source=pair.a,
                    target=pair.b,
                    network=network.name,
                    guarantee=pair.bandwidth.guarantee_mbit_s,
                    cap=pair.bandwidth.cap_mbit_s,
                    unit="Mbit/s",
                )
    for each in spec.workspaces:
        nic, disk = each.allocation.nic, each.allocation.disk
        for port in each.nics if nic.guarantee_mbit_s else ():
            yield Guarantee(
                kind=GuaranteeKind.NIC_BANDWIDTH,
                source=each.label,
                network=port.network,
                guarantee=nic.guarantee_mbit_s,
                cap=nic.cap_mbit_s,
                unit="Mbit/s",
            )
        if disk.guarantee_iops:
            yield Guarantee(
                kind=GuaranteeKind.DISK_IOPS,
                source=each.label,
                guarantee=disk.guarantee_iops,
                cap=disk.cap_iops,
                unit="1/s",
            )
        if disk.guarantee_mib_s:
            yield Guarantee(
                kind=GuaranteeKind.DISK_THROUGHPUT,
                source=each.label,
                guarantee=disk.guarantee_mib_s,
                cap=disk.cap_mib_s,
                unit="MiB/s",
            )
