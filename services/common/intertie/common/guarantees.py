"""What the owner of a cluster or a part is promised, and what is measured of it."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import IntEnum

from intertie.common.part_spec import FurtherDisk, PairPromise
from intertie.common.terms import Allocation, DiskTerm
from intertie.common.values import Struct, replace


class GuaranteeKind(IntEnum):
    """As in intertie.api.cluster.v1.Guarantee.Kind, by number."""

    PAIR_BANDWIDTH = 1
    NIC_BANDWIDTH = 2
    DISK_IOPS = 3
    DISK_THROUGHPUT = 4
    LINK_BANDWIDTH = 5


class Measured(Struct, frozen=True, kw_only=True):
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


def broken(measured: Iterable[Measured]) -> frozenset[tuple[GuaranteeKind, str, str, str]]:
    """Which promises are, each way by itself."""
    return frozenset(
        (each.kind, each.network, each.source, each.target)
        for each in measured
        if each.below_since is not None
    )


class Guarantee(Struct, frozen=True, kw_only=True):
    kind: GuaranteeKind
    source: str
    target: str = ""
    network: str = ""
    guarantee: int
    cap: int
    """0: what nobody else uses."""
    unit: str
    measured: tuple[Measured, ...] = ()


def as_compared(promises: Iterable["Guarantee"]) -> tuple[object, ...]:
    """Without what changes all the time: the same while the promises and those that are broken are
    the same, whatever is measured."""
    return tuple((replace(each, measured=()), broken(each.measured)) for each in promises)


def with_measured(
    promises: Iterable[Guarantee], measured: Iterable[Measured]
) -> Iterator[Guarantee]:
    """Each promise with what is measured of it."""
    found: dict[_Subject, list[Measured]] = {}
    for each in measured:
        found.setdefault(_subject(each), []).append(each)
    for promise in promises:
        own = tuple(found.get(_subject(promise), ()))
        yield replace(promise, measured=own) if own else promise


_ONE_WAY = (
    GuaranteeKind.LINK_BANDWIDTH,
    GuaranteeKind.DISK_IOPS,
    GuaranteeKind.DISK_THROUGHPUT,
)

_Subject = tuple[GuaranteeKind, str, frozenset[str] | tuple[str, str]]


def _subject(of: Measured | Guarantee) -> _Subject:
    """A pair is promised the same both ways, and so is a NIC; a link has a promise each way, and of
    a disk `target` is the name."""
    if of.kind in _ONE_WAY:
        return of.kind, of.network, (of.source, of.target)
    return of.kind, of.network, frozenset({of.source, of.target} - {""})


def of_pairs(network: str, pairs: Iterable[PairPromise]) -> Iterator[Guarantee]:
    """What workspaces are promised towards each other on one network."""
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


def of_workspace(
    label: str,
    allocation: Allocation,
    networks: Iterable[str],
    disks: Iterable[FurtherDisk] = (),
) -> Iterator[Guarantee]:
    """What its NICs, one on each of `networks`, its root disk and the others are promised."""
    nic = allocation.nic
    for network in networks if nic.guarantee_mbit_s else ():
        yield Guarantee(
            kind=GuaranteeKind.NIC_BANDWIDTH,
            source=label,
            network=network,
            guarantee=nic.guarantee_mbit_s,
            cap=nic.cap_mbit_s,
            unit="Mbit/s",
        )
    yield from _of_disk(label, "", allocation.disk)
    for each in disks:
        yield from _of_disk(label, each.name, each.disk)


def _of_disk(label: str, name: str, disk: DiskTerm) -> Iterator[Guarantee]:
    """`name`: empty for the root disk."""
    if disk.guarantee_iops:
        yield Guarantee(
            kind=GuaranteeKind.DISK_IOPS,
            source=label,
            target=name,
            guarantee=disk.guarantee_iops,
            cap=disk.cap_iops,
            unit="1/s",
        )
    if disk.guarantee_mib_s:
        yield Guarantee(
            kind=GuaranteeKind.DISK_THROUGHPUT,
            source=label,
            target=name,
            guarantee=disk.guarantee_mib_s,
            cap=disk.cap_mib_s,
            unit="MiB/s",
        )
