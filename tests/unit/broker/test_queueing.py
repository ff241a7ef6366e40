"""Who of those that wait starts, and what the others are told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from intertie.broker.domain.admission_policy import EACH_OTHER, Quotas
from intertie.broker.domain.cluster import ClusterRecord, ClusterState
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView, calendar_of
from intertie.broker.domain.preemptible import in_order, running_leases
from intertie.broker.domain.queue_policy import QueuePolicy
from intertie.broker.domain.queueing import (
    FORESEEN,
    outlooks,
    queued,
    started,
    starting,
    told,
    waited_too_long,
)
from intertie.common.errors import NoCapacity
from intertie.common.intervals import Window
from intertie.common.leasing.plugins import BACKFILLINGS, FAIRNESS, ORDERS
from intertie.common.names import ClusterName
from intertie.common.spec import normalise
from intertie.common.values import replace
from tests.unit.broker.line import IMAGES, best_effort, name_of, start, view, waits, written
from tests.unit.broker.samples import HOUR, NOW, POLICY

MINUTE = timedelta(minutes=1)


def ids(names: list[str]) -> list[str]:
    return [each.rpartition("/")[2] for each in names]


def full_until(end_h: float, *more: str) -> LedgerView:
    """All eight vCPUs of the site are taken by a lease that has begun."""
    running = waits("running", best_effort(8, HOUR * end_h), now=NOW)
    return start(view([running]), "running")


def with_waiting(before: LedgerView, **asked: tuple[int, float]) -> LedgerView:
    """Workspaces and hours, by cluster id, in the order in which they come."""
    records = [
        waits(name, best_effort(count, HOUR * hours), now=NOW + number * MINUTE)
        for number, (name, (count, hours)) in enumerate(asked.items())
    ]
    return replace(before, clusters={**before.clusters, **view(records).clusters})


def test_one_that_has_room_starts_as_an_ordinary_part() -> None:
    before = view([waits("one", best_effort(2))])
    assert ids(starting(before, POLICY, now=NOW)) == ["one"]
    after = start(before, "one")
    record = after.clusters[name_of("one")].value
    part = after.parts[record.part].value
    assert (record.state, record.window) == (ClusterState.SCHEDULED, Window(NOW, NOW + HOUR))
    assert (part.window, len(part.placed), len(part.network_ids)) == (record.window, 2, 1)
    assert not starting(after, POLICY, now=NOW)


def test_a_look_leaves_nothing_counted() -> None:
    before = with_waiting(full_until(1), one=(2, 1), two=(2, 1))
    calendar = calendar_of(before, POLICY)
    looked_at = replace(before, demands=calendar)
    window = Window(NOW, NOW + 9 * HOUR)
    taken = calendar.peak("host/n1/vcpus", window), list(calendar.ends(NOW, NOW + 99 * HOUR))
    starting(looked_at, POLICY, now=NOW)
    outlooks(looked_at, POLICY, now=NOW)
    assert taken == (
        calendar.peak("host/n1/vcpus", window),
        list(calendar.ends(NOW, NOW + 99 * HOUR)),
    )


def test_what_could_never_be_had_does_not_wait() -> None:
    with pytest.raises(NoCapacity):
        waits("nine", best_effort(9))


def test_a_short_one_passes_a_wide_one_where_it_does_not_put_it_off() -> None:
    """Six of eight are taken for an hour. The wide one waits for that hour's end; who is done by
    then passes it, who is not does not."""
    six = start(view([waits("six", best_effort(6, HOUR))]), "six")
    before = with_waiting(six, wide=(8, 1), short=(2, 1), long=(2, 2))
    assert ids(starting(before, POLICY, now=NOW)) == ["short"]
    in_order = replace(POLICY, queue=QueuePolicy(backfilling=BACKFILLINGS["conservative"]))
    assert ids(starting(before, in_order, now=NOW)) == ["short"]


def test_conservative_lets_nobody_be_put_off_aggressive_all_but_the_first() -> None:
    """`second` would start when `wide` is over; `long` would put it off."""
    six = start(view([waits("six", best_effort(6, HOUR))]), "six")
    before = with_waiting(six, wide=(7, 1), second=(8, 1), long=(1, 3))
    assert ids(starting(before, POLICY, now=NOW)) == ["long"]
    in_order = replace(POLICY, queue=QueuePolicy(backfilling=BACKFILLINGS["conservative"]))
    assert ids(starting(before, in_order, now=NOW)) == []


def test_order_is_a_plug_in() -> None:
    before = with_waiting(view([]), long=(5, 3), short=(5, 1))
    assert ids(starting(before, POLICY, now=NOW)) == ["long"]
    shortest = replace(POLICY, queue=QueuePolicy(order=ORDERS["shortest"]))
    assert ids(starting(before, shortest, now=NOW)) == ["short"]


FAIR = replace(POLICY, queue=QueuePolicy(fairness=FAIRNESS["dominant-resource"]))


def test_of_tenants_that_wait_the_one_that_has_least_goes_first() -> None:
    """What is put aside or over is nobody's meanwhile."""
    half = start(view([waits("half", best_effort(4, HOUR))]), "half")
    demo = waits("demo", best_effort(4), now=NOW)
    other = waits("other", best_effort(4), now=NOW + MINUTE, tenant="other")
    clusters = {**half.clusters, **view([demo, other]).clusters}
    before = replace(half, clusters=clusters)
    now = NOW + 2 * MINUTE
    assert starting(before, POLICY, now=now) == [demo.name]
    assert starting(before, FAIR, now=now) == [other.name]
    assert starting(before, FAIR, now=NOW + HOUR) == [demo.name, other.name]


def test_who_gives_way_is_of_the_tenant_that_has_most() -> None:
    leases = [waits(name, best_effort(2)) for name in ("one", "two")]
    leases.append(waits("other", best_effort(2), now=NOW + MINUTE, tenant="other"))
    here = view(leases)
    for each in leases:
        here = written(here, started(here, each.name, POLICY, "seed", now=NOW + MINUTE))

    def first(policy: Policy) -> str:
        now = NOW + 2 * MINUTE
        return in_order(running_leases(here, now=now), here, policy, now)[0][0].value.name

    assert first(POLICY) == name_of("other", "other"), "it came last"
    assert first(FAIR) == name_of("two")


def test_who_waits_is_told_for_what_and_until_when() -> None:
    before = with_waiting(full_until(2), one=(4, 1), two=(8, 1), three=(4, 1))
    found = outlooks(before, POLICY, now=NOW)
    one, two, three = (found[name_of(each)] for each in ("one", "two", "three"))
    assert [each.foreseen for each in (one, two, three)] == [
        NOW + 2 * HOUR,
        NOW + 3 * HOUR,
        NOW + 2 * HOUR,
    ]
    assert one.reasons == ("first in line at north",)
    assert two.reasons == ("1 before it in the queue of north",)
    assert "vcpus" in {each.resource for each in one.shortfalls}
    record = before.clusters[name_of("one")].value
    after = told(record, one)
    assert after.reasons == one.reasons
    assert told(after, replace(one, foreseen=NOW + 2 * HOUR + timedelta(seconds=3))) is after


def test_of_many_that_wait_the_first_are_told_when_they_would_start() -> None:
    many = {f"w{number:02}": (8, 1.0) for number in range(FORESEEN + 2)}
    found = outlooks(with_waiting(full_until(1), **many), POLICY, now=NOW)
    assert len(found) == FORESEEN + 2
    assert sum(each.foreseen is not None for each in found.values()) == FORESEEN
    last = found[name_of(f"w{FORESEEN + 1:02}")]
    assert last.reasons == (f"{FORESEEN} or more are before it in the queue of north",)


def test_who_has_waited_for_too_long_ends_with_a_reason() -> None:
    record = waits("one", best_effort(max_wait=HOUR))
    before = NOW + HOUR - timedelta(seconds=1)
    assert waited_too_long(record, POLICY, now=before) is record
    after = waited_too_long(record, POLICY, now=NOW + HOUR)
    assert after.state is ClusterState.FAILED
    assert after.failure is not None
    assert after.failure.reason == "WAITED_TOO_LONG"
    strict = replace(POLICY, queue=QueuePolicy(longest_wait=MINUTE))
    assert waited_too_long(record, strict, now=NOW + MINUTE).over, "a site's own bound holds too"


def test_a_tenant_has_no_more_leases_in_line_than_it_may() -> None:
    """Those that have begun, and other tenants', are not counted; nor is any where nobody says
    how many."""
    limited = replace(POLICY, admission=Quotas({}, queued={EACH_OTHER: 2}))
    before = with_waiting(full_until(1), one=(2, 1), two=(2, 1))

    def asks(tenant: str, policy: Policy) -> ClusterRecord:
        name = ClusterName.parse(f"sites/north/tenants/{tenant}/clusters/three")
        asked = normalise(best_effort(), now=NOW)
        return queued(name, "three", asked, IMAGES, before, policy, owner="alice", now=NOW)

    with pytest.raises(NoCapacity) as error:
        asks("demo", limited)
    [short] = error.value.shortfalls
    assert (short.resource, short.wanted, short.available, short.field) == (
        "quota_queued_leases",
        1,
        0,
        "spec.lease.kind",
    )
    assert "2 leases of tenant demo wait in its queue, and 2 may" in short.message
    assert asks("other", limited).state is ClusterState.QUEUED
    assert asks("demo", POLICY).state is ClusterState.QUEUED
    assert asks("demo", replace(POLICY, admission=Quotas({}, queued={"demo": 3})))
