"""What two readings of the host's counters say of its promises.

Counters say what came through. That more was wanted is not for the guest to say: it is seen from
what had to wait.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from intertie.common.guarantees import GuaranteeKind
from intertie.nodeagent.domain.meters import (
    DiskMeter,
    FlowMeter,
    Meters,
    Promise,
    Queue,
)

KEPT_SHARE = 0.95
"""Of a promise: counters are read a little before or after the second, frames are not always
full, and a guest that gets 19.5 of 20 has nothing to complain of."""
BUSY_SHARE = 0.9
"""Of an interval: a disk that had a request to do for so much of it was busy throughout."""
IDLE_SHARE = 0.01
"""Of a NIC's promise: who sends less, greetings and acknowledgements, asks for nothing."""
MATERIAL_SHARE = 0.05
"""Of a promise: a change of the measured value by less is not worth a write."""
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounters:
    """Of one class, since its queue was made."""

    made: str
    """Another one, when it was made anew and counts from nothing."""
    bytes: int
    backlog: int
    """Bytes that wait at the moment of the reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskCounters:
    """Reads and writes together, since the guest was started."""

    operations: int
    bytes: int
    busy_ns: int
    """Sum over all requests that are done of how long each took, the time for which QEMU held it
    back included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    at: datetime
    seconds: float
    """Of a clock that nobody sets."""
    queues: Mapping[Queue, QueueCounters] = field(default_factory=dict)
    disks: Mapping[str, DiskCounters] = field(default_factory=dict)
    """Root disks by libvirt's name of the guest, others by `of_device`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    promised: int
    value: float
    backlogged: bool
    below_since: datetime | None = None


def measure(
    meters: Meters,
    before: Reading | None,
    after: Reading,
    known: Mapping[Promise, Measured],
) -> dict[Promise, Measured]:
    """Every promise of which both readings tell; `known` is what this said of `before`.

    One that the readings do not tell of (its class was made anew, its guest is gone) is left
    out, and what was known of it is forgotten: what was not watched is not said to be below.
    """
    if before is None or after.seconds <= before.seconds:
        return {}
    found: dict[Promise, Measured] = {}
    for promise, rate in _rates(meters, before, after):
        below = rate.backlogged and rate.value < KEPT_SHARE * rate.promised and rate.due
        last = known.get(promise)
        since = (last.below_since if last else None) or before.at
        found[promise] = Measured(
            promised=rate.promised,
            value=rate.value,
            backlogged=rate.backlogged,
            below_since=since if below else None,
        )
    return found


def material(told: Mapping[Promise, Measured], found: Mapping[Promise, Measured]) -> bool:
    """Whether what was found differs so much from what was told that it is worth a write."""
    return told.keys() != found.keys() or any(
        (told[key].backlogged, told[key].below_since) != (now.backlogged, now.below_since)
        or abs(told[key].value - now.value) > MATERIAL_SHARE * now.promised
        for key, now in found.items()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rate:
    promised: int
    value: float
    backlogged: bool
    due: bool = True
    """What was asked for is what the promise is about."""


def _rates(meters: Meters, before: Reading, after: Reading) -> Iterator[tuple[Promise, _Rate]]:
    for flow in meters.flows:
        if rate := _flow(flow, before, after):
            yield flow.promise, rate
    for disk in meters.disks:
        yield from _disk(disk, before, after)


def _flow(meter: FlowMeter, before: Reading, after: Reading) -> _Rate | None:
    value = _mbit_s(meter.counted, meter.kbit_per_gbit, before, after)
    if value is None:
        return None
    waits = any(_waits(queue, before) for queue in meter.waits) and any(
        _waits(queue, after) for queue in meter.waits
    )
    return _Rate(
        promised=meter.mbit_s,
        value=value,
        backlogged=waits or _held_back(meter, value, before, after),
    )


def _mbit_s(
    queues: tuple[Queue, ...], kbit_per_gbit: int, before: Reading, after: Reading
) -> float | None:
    """Payload in full-sized frames. None where not all of them are known at both readings."""
    sent = 0
    for queue in queues:
        old, new = before.queues.get(queue), after.queues.get(queue)
        if old is None or new is None or old.made != new.made or new.bytes < old.bytes:
            return None
        sent += new.bytes - old.bytes
    kbit_s = sent * 8 / 1000 / (after.seconds - before.seconds)
    return 1000 * kbit_s / kbit_per_gbit


def _waits(queue: Queue, reading: Reading) -> bool:
    counters = reading.queues.get(queue)
    return counters is not None and counters.backlog > 0


def _held_back(meter: FlowMeter, value: float, before: Reading, after: Reading) -> bool:
    """A NIC is held back where the class that it shares has something waiting and gets less than
    the sum of what is promised in it, unless the NIC itself is idle."""
    shared = meter.shared
    if shared is None or value < IDLE_SHARE * meter.mbit_s:
        return False
    there = [each for each in shared.beside if each in before.queues and each in after.queues]
    queues = (shared.queue, *there)
    if not all(any(_waits(each, at) for each in queues) for at in (before, after)):
        return False
    together = _mbit_s(queues, shared.kbit_per_gbit, before, after)
    return together is not None and together < KEPT_SHARE * shared.mbit_s


def _disk(meter: DiskMeter, before: Reading, after: Reading) -> Iterator[tuple[Promise, _Rate]]:
    """A disk was asked for more throughout when, on average, a request and no less than
    BUSY_SHARE of one was on its way (Little's law: time spent on requests by time passed)."""
    old, new, term = before.disks.get(meter.counted), after.disks.get(meter.counted), meter.term
    if old is None or new is None or new.operations < old.operations or new.bytes < old.bytes:
        return
    seconds = after.seconds - before.seconds
    operations, octets = new.operations - old.operations, new.bytes - old.bytes
    backlogged = (new.busy_ns - old.busy_ns) / 1e9 >= BUSY_SHARE * seconds
    if term.guarantee_iops:
        most_mib_s = term.guarantee_mib_s or term.cap_mib_s
        yield (
            Promise(
                part_uid=meter.part_uid,
                kind=GuaranteeKind.DISK_IOPS,
                source=meter.workspace,
                target=meter.disk,
            ),
            _Rate(
                promised=term.guarantee_iops,
                value=operations / seconds,
                backlogged=backlogged,
                # Requests so large that so many of them would be more than the throughput.
                due=not most_mib_s or term.guarantee_iops * octets <= most_mib_s * MIB * operations,
            ),
        )
    if term.guarantee_mib_s:
        most_iops = term.guarantee_iops or term.cap_iops
        yield (
            Promise(
                part_uid=meter.part_uid,
                kind=GuaranteeKind.DISK_THROUGHPUT,
                source=meter.workspace,
                target=meter.disk,
            ),
            _Rate(
                promised=term.guarantee_mib_s,
                value=octets / MIB / seconds,
                backlogged=backlogged,
                # Requests so small that so many MiB/s would be more than the IOPS.
                due=not most_iops or most_iops * octets >= term.guarantee_mib_s * MIB * operations,
            ),
        )
