"""What two readings of counters say: backlogged and below the promise, or nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from intertie.common.guarantees import GuaranteeKind
from intertie.common.terms import DiskTerm
from intertie.common.values import replace
from intertie.nodeagent.domain.measured import (
    MIB,
    DiskCounters,
    Measured,
    QueueCounters,
    Reading,
    material,
    measure,
)
from intertie.nodeagent.domain.meters import (
    DiskMeter,
    FlowMeter,
    Meters,
    Promise,
    Queue,
    Shared,
)
from tests.unit.nodeagent.parts import NOW

PERIOD_S = 4.0
PROMISED = 20
PER_GBIT = 1_083_000
ON_WAY, LAST, REST = Queue("ii0", "sent"), Queue("eth0", "pair"), Queue("eth0", "rest")
TO, GONE = Queue("eth0", "to"), Queue("eth0", "to/gone")
PAIR = Promise(
    part_uid="p", kind=GuaranteeKind.PAIR_BANDWIDTH, network="net", source="a", target="b"
)
METER = FlowMeter(
    promise=PAIR,
    mbit_s=PROMISED,
    kbit_per_gbit=PER_GBIT,
    counted=(LAST,),
    waits=(ON_WAY, LAST),
)
FLOWS = Meters(flows=(METER,))


def frames(mbit_s: float) -> int:
    """Bytes that a class counts in one period for so much payload."""
    return round(mbit_s * PER_GBIT / 8 * PERIOD_S)


class Counted:
    """Readings of one pair, a period apart; what `measure` makes of them, one after another."""

    def __init__(self, meters: Meters = FLOWS) -> None:
        self.meters = meters
        self.periods = 0
        self.bytes = {ON_WAY: 0, LAST: 0, REST: 0}
        self.made = "8001:"
        self.last: Reading | None = None
        self.known: dict[Promise, Measured] = {}

    def reading(self, mbit_s: float = 0, waits: int = 0, at: Queue = LAST) -> Measured | None:
        """After a period in which so much came through; `waits` bytes are in the queue `at`."""
        self.bytes = {queue: counted + frames(mbit_s) for queue, counted in self.bytes.items()}
        passed = PERIOD_S * self.periods
        self.periods += 1
        reading = Reading(
            at=NOW + timedelta(seconds=passed),
            seconds=passed,
            queues={
                queue: QueueCounters(
                    made=self.made, bytes=counted, backlog=waits if queue == at else 0
                )
                for queue, counted in self.bytes.items()
            },
        )
        self.known = measure(self.meters, self.last, reading, self.known)
        self.last = reading
        return self.known.get(PAIR)


def test_the_first_reading_says_nothing_and_two_make_a_rate_in_payload() -> None:
    pair = Counted()
    assert pair.reading() is None
    found = pair.reading(mbit_s=12.5)
    assert found is not None
    assert found.value == pytest.approx(12.5, rel=1e-6)
    assert (found.promised, found.backlogged, found.below_since) == (PROMISED, False, None)


@pytest.mark.parametrize(
    ("mbit_s", "waited", "waits", "backlogged", "below"),
    [
        (0, 0, 0, False, False),  # idle
        (3, 0, 0, False, False),  # asks for less than was promised
        (3, 9000, 0, False, False),  # a burst, over by now
        (3, 0, 9000, False, False),  # a burst that has just begun
        (3, 9000, 9000, True, True),
        (0, 9000, 9000, True, True),  # nothing comes through at all
        (20, 9000, 9000, True, False),  # at its promise
        (19.1, 9000, 9000, True, False),  # at its promise, but for what counters cannot tell
        (18.9, 9000, 9000, True, True),
        (40, 9000, 9000, True, False),  # at its cap
    ],
)
def test_below_is_who_had_to_wait_all_the_time_and_got_less_than_promised(
    mbit_s: float, waited: int, waits: int, backlogged: bool, below: bool
) -> None:
    pair = Counted()
    pair.reading(waits=waited)
    found = pair.reading(mbit_s=mbit_s, waits=waits)
    assert found is not None
    assert found.backlogged is backlogged
    assert found.below_since == (NOW if below else None)


def test_below_since_stands_until_it_is_kept_or_nobody_asks_and_then_begins_anew() -> None:
    pair = Counted()
    said = [
        pair.reading(mbit_s=each, waits=waits)
        for each, waits in [(5, 9000), (5, 9000), (5, 9000), (20, 9000), (5, 9000), (0, 0), (0, 0)]
    ]
    begun = [each.below_since if each else None for each in said]
    later = NOW + timedelta(seconds=3 * PERIOD_S)
    assert begun == [None, NOW, NOW, None, later, None, None]


def test_it_waits_wherever_on_its_way_it_waits() -> None:
    """A burst moves from the ifb to the uplink: all the time something waited."""
    pair = Counted()
    pair.reading(waits=9000, at=ON_WAY)
    found = pair.reading(mbit_s=5, waits=9000, at=LAST)
    assert found is not None
    assert found.below_since == NOW


def test_a_class_that_was_made_anew_says_nothing_and_ends_what_was_said() -> None:
    pair = Counted()
    pair.reading(waits=9000)
    assert pair.reading(mbit_s=5, waits=9000) is not None
    pair.made = "8002:"
    assert pair.reading(mbit_s=5, waits=9000) is None
    again = pair.reading(mbit_s=5, waits=9000)
    assert again is not None
    assert again.below_since == NOW + timedelta(seconds=2 * PERIOD_S)


def test_counters_that_run_backwards_are_no_rate() -> None:
    pair = Counted()
    pair.reading(mbit_s=10)
    pair.bytes = dict.fromkeys(pair.bytes, 0)
    assert pair.reading() is None


def test_an_agent_that_was_restarted_says_nothing_of_what_it_did_not_watch() -> None:
    before = Counted()
    before.reading(waits=9000)
    before.reading(mbit_s=5, waits=9000)
    after = Counted()
    after.bytes, after.periods = before.bytes, 10
    assert after.reading(mbit_s=5, waits=9000) is None
    found = after.reading(mbit_s=5, waits=9000)
    assert found is not None
    assert found.below_since == NOW + timedelta(seconds=10 * PERIOD_S)


def sharing_an_uplink(*, mbit_s: int) -> Counted:
    """A NIC with one promised pair, on a network that all its host's NICs are promised so much."""
    flow = FlowMeter(
        promise=PAIR,
        mbit_s=PROMISED,
        kbit_per_gbit=PER_GBIT,
        counted=(LAST,),
        waits=(LAST,),
        shared=Shared(queue=REST, mbit_s=mbit_s, kbit_per_gbit=PER_GBIT),
    )
    return Counted(Meters(flows=(flow,)))


@pytest.mark.parametrize(
    ("own", "below"),
    [(1.0, True), (0.05, False)],  # it sends; it does not, and the others' backlog is not its own
)
def test_a_nic_is_below_where_all_nics_together_get_less_than_the_sum_of_promises(
    own: float, below: bool
) -> None:
    nic = sharing_an_uplink(mbit_s=40)
    nic.reading(waits=9000, at=REST)
    found = nic.reading(mbit_s=own, waits=9000, at=REST)
    assert found is not None
    assert (found.below_since == NOW) is below


def test_a_nic_whose_network_gets_its_sum_is_not_below() -> None:
    nic = sharing_an_uplink(mbit_s=10)
    nic.reading(waits=9000, at=REST)
    found = nic.reading(mbit_s=10, waits=9000, at=REST)
    assert found is not None
    assert found.below_since is None


def test_what_waits_for_a_full_downlink_is_the_nics_too_and_counts_to_their_sum() -> None:
    """While a receiver's downlink is full, what goes there has a class of its own."""
    shared = Shared(queue=REST, mbit_s=15, kbit_per_gbit=PER_GBIT, beside=(TO, GONE))
    meter = replace(METER, counted=(LAST,), waits=(LAST,), shared=shared)
    lacking, kept = Counted(Meters(flows=(meter,))), Counted(Meters(flows=(meter,)))
    lacking.bytes[TO] = kept.bytes[TO] = 0
    for each, mbit_s in ((lacking, 5), (kept, 10)):
        each.reading(waits=9000, at=TO)
        found = each.reading(mbit_s=mbit_s, waits=9000, at=TO)
        assert found is not None
        assert (found.below_since is not None) is (each is lacking), "the two classes together"


IOPS = Promise(part_uid="p", kind=GuaranteeKind.DISK_IOPS, source="a-0")
MIB_S = Promise(part_uid="p", kind=GuaranteeKind.DISK_THROUGHPUT, source="a-0")


def disk(
    *, operations: int, kib: int, busy_s: float, term: DiskTerm
) -> dict[Promise, tuple[float, bool, bool]]:
    """After a period with so many requests of so many KiB: value, backlogged, below."""
    meter = DiskMeter(part_uid="p", workspace="a-0", domain="it-a", term=term)
    before = Reading(
        at=NOW, seconds=0, disks={"it-a": DiskCounters(operations=7, bytes=7, busy_ns=7)}
    )
    after = Reading(
        at=NOW + timedelta(seconds=PERIOD_S),
        seconds=PERIOD_S,
        disks={
            "it-a": DiskCounters(
                operations=7 + operations,
                bytes=7 + operations * kib * 1024,
                busy_ns=7 + round(busy_s * 1e9),
            )
        },
    )
    found = measure(Meters(disks=(meter,)), before, after, {})
    return {
        promise: (round(each.value, 3), each.backlogged, each.below_since is not None)
        for promise, each in found.items()
    }


def test_a_disk_is_below_while_a_request_is_always_on_its_way_and_too_few_are_done() -> None:
    term = DiskTerm(guarantee_iops=150, cap_iops=200, cap_mib_s=100)
    assert disk(operations=400, kib=4, busy_s=3.9, term=term) == {IOPS: (100.0, True, True)}
    assert disk(operations=400, kib=4, busy_s=2, term=term) == {IOPS: (100.0, False, False)}
    assert disk(operations=0, kib=4, busy_s=0, term=term) == {IOPS: (0.0, False, False)}
    assert disk(operations=600, kib=4, busy_s=20, term=term) == {IOPS: (150.0, True, False)}


def test_large_requests_are_not_held_against_iops_nor_small_ones_against_throughput() -> None:
    term = DiskTerm(guarantee_iops=150, cap_iops=150, guarantee_mib_s=20, cap_mib_s=20)
    large = disk(operations=60, kib=1024, busy_s=20, term=term)
    assert large == {IOPS: (15.0, True, False), MIB_S: (15.0, True, True)}
    small = disk(operations=400, kib=4, busy_s=20, term=term)
    assert small[IOPS] == (100.0, True, True)
    assert small[MIB_S][1:] == (True, False)
    assert 20 * MIB / 150 > 4096


def test_a_guest_that_was_started_anew_is_not_measured_over_its_start() -> None:
    meter = DiskMeter(
        part_uid="p", workspace="a-0", domain="it-a", term=DiskTerm(guarantee_iops=150)
    )
    before = Reading(
        at=NOW, seconds=0, disks={"it-a": DiskCounters(operations=900, bytes=9, busy_ns=9)}
    )
    after = Reading(
        at=NOW, seconds=4, disks={"it-a": DiskCounters(operations=5, bytes=9, busy_ns=9)}
    )
    assert measure(Meters(disks=(meter,)), before, after, {}) == {}
    assert measure(Meters(disks=(meter,)), before, Reading(at=NOW, seconds=4), {}) == {}


def test_a_write_is_worth_what_an_owner_would_notice() -> None:
    def one(value: float, *, backlogged: bool = False, below: bool = False) -> Measured:
        return Measured(
            promised=PROMISED,
            value=value,
            backlogged=backlogged,
            below_since=NOW if below else None,
        )

    told = {PAIR: one(10)}
    assert not material(told, {PAIR: one(10.9)})
    assert material(told, {PAIR: one(11.1)})
    assert material(told, {PAIR: one(10, backlogged=True)})
    assert material(told, {PAIR: one(10, below=True)})
    assert material(told, {})
    assert material({}, told)
