"""What the owner of a cluster was promised, and what the sites measure of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum

from intertie.common.spec import ClusterSpec, Layout
from intertie.metasched.domain.plan import Plan


class GuaranteeKind(IntEnum):
    """As in intertie.api.cluster.v1.Guarantee.Kind, by number."""

    PAIR_BANDWIDTH = 1
    NIC_BANDWIDTH = 2
    DISK_IOPS = 3
    DISK_THROUGHPUT = 4
    LINK_BANDWIDTH = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One direction of one promise, as a site tells of it."""

    kind: GuaranteeKind
    network: str = ""
    source: str = ""
    target: str = ""
    value: float
    at: datetime
    backlogged: bool = False
    below_since: datetime | None = None


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


def guarantees_of(
    spec: ClusterSpec,
    plan: Plan,
    placed: Layout,
    measured: Mapping[str, tuple[Measured, ...]],
) -> Iterator[Guarantee]:
    """Every promise that is more than nothing: pairs, NICs, disks, links between sites; with
    what is measured of it, by site. A site is heard on what begins there, and on nothing else."""
    site_of = plan.site_of()
    found: dict[_Subject, list[Measured]] = {}
    for site, told in measured.items():
        for each in told:
            end = each.source or each.target
            begins_at = end if each.kind is GuaranteeKind.LINK_BANDWIDTH else site_of.get(end)
            if begins_at == site:
                found.setdefault(_subject(each), []).append(each)
    for promise in _promises(spec, plan, placed):
        own = tuple(found.get(_subject(promise), ()))
        yield replace(promise, measured=own) if own else promise


_Subject = tuple[GuaranteeKind, str, frozenset[str] | tuple[str, str]]


def _subject(of: Measured | Guarantee) -> _Subject:
    """A pair is promised the same both ways, and so is a NIC; a link has a promise each way."""
    if of.kind is GuaranteeKind.LINK_BANDWIDTH:
        return of.kind, of.network, (of.source, of.target)
    return of.kind, of.network, frozenset({of.source, of.target} - {""})


def _promises(spec: ClusterSpec, plan: Plan, placed: Layout) -> Iterator[Guarantee]:
    for network, pairs in placed.pairs.items():
        for pair in pairs:
            if pair.bandwidth.guarantee_mbit_s:
                yield Guarantee(
                    kind=GuaranteeKind.PAIR_BANDWIDTH,
                    source=pair.a,
                    target=pair.b,
                    network=network,
                    guarantee=pair.bandwidth.guarantee_mbit_s,
                    cap=pair.bandwidth.cap_mbit_s,
                    unit="Mbit/s",
                )
    for label in placed.nics:
        yield from _of_workspace(spec, label)
    for link in plan.links:
        yield Guarantee(
            kind=GuaranteeKind.LINK_BANDWIDTH,
            source=link.from_site,
            target=link.to_site,
            network=link.network,
            guarantee=link.mbit_s,
            cap=0,  # what of the link nobody else uses
            unit="Mbit/s",
        )


def _of_workspace(spec: ClusterSpec, label: str) -> Iterator[Guarantee]:
    group = spec.group(label.rpartition("-")[0])
    nic, disk = group.allocation.nic, group.allocation.disk
    if nic.guarantee_mbit_s:
        for network in group.networks:
            yield Guarantee(
                kind=GuaranteeKind.NIC_BANDWIDTH,
                source=label,
                network=network,
                guarantee=nic.guarantee_mbit_s,
                cap=nic.cap_mbit_s,
                unit="Mbit/s",
            )
    if disk.guarantee_iops:
        yield Guarantee(
            kind=GuaranteeKind.DISK_IOPS,
            source=label,
            guarantee=disk.guarantee_iops,
            cap=disk.cap_iops,
            unit="1/s",
        )
    if disk.guarantee_mib_s:
        yield Guarantee(
            kind=GuaranteeKind.DISK_THROUGHPUT,
            source=label,
            guarantee=disk.guarantee_mib_s,
            cap=disk.cap_mib_s,
            unit="MiB/s",
        )
