"""Which periods of a part are written down, what of, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from intertie.broker.domain.account import Account
from intertie.broker.domain.agenda import Agenda
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.usage import (
    Usage,
    charge_during,
    charge_of,
    charged_until,
    is_final,
    next_period,
    settled,
)
from intertie.broker.usage_proto import record_from_bytes, record_to_bytes
from intertie.common.intervals import Window
from intertie.common.values import replace
from tests.unit.broker.samples import HOUR, NOW, part, part_spec, workspace

DAY = timedelta(days=1)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def lease(hours: float = 1, start: datetime = NOW, state: PartState = PartState.CONFIRMED) -> Part:
    window = Window(start, start + hours * HOUR)
    return part(state=state, spec=part_spec(workspace(), window=window))


def periods(of: Part) -> list[Window]:
    """All of them, as they are written one after another."""
    found: list[Window] = []
    account: Account | None = None
    while period := next_period(of, account):
        found.append(period)
        account = Account(name=of.name, until=period.end, number=len(found))
    return found


def test_a_short_lease_is_one_period() -> None:
    assert periods(lease(1)) == [Window(NOW, NOW + HOUR)]


def test_a_long_one_is_cut_at_each_midnight() -> None:
    assert periods(lease(60)) == [
        Window(NOW, MIDNIGHT),
        Window(MIDNIGHT, MIDNIGHT + DAY),
        Window(MIDNIGHT + DAY, MIDNIGHT + 2 * DAY),
    ]


def test_one_that_begins_and_ends_at_midnight_has_no_empty_period() -> None:
    assert periods(lease(24, MIDNIGHT)) == [Window(MIDNIGHT, MIDNIGHT + DAY)]


def test_midnight_is_that_of_utc_wherever_the_lease_says_its_time_from() -> None:
    local = NOW.astimezone(timezone(timedelta(hours=9)))
    assert periods(lease(24, local))[0].end == MIDNIGHT


def test_the_end_that_was_asked_for_counts_and_what_clearing_up_takes_does_not() -> None:
    ending = lease(10).ending(now=NOW + HOUR, reason="CANCELLED")
    over = ending.move(PartState.ENDED, now=NOW + 3 * HOUR, reason="CANCELLED")
    assert periods(ending) == periods(over) == [Window(NOW, NOW + HOUR)]
    assert is_final(over, Window(NOW, NOW + HOUR))
    assert not is_final(lease(60), Window(NOW, MIDNIGHT))


def test_what_hosts_are_late_with_after_the_window_does_not_count() -> None:
    late = lease(1).ending(now=NOW + 2 * HOUR, reason="")
    assert periods(late) == [Window(NOW, NOW + HOUR)]


def test_a_lease_begins_when_it_is_confirmed_and_not_before_its_window() -> None:
    prepared = lease(2, state=PartState.PREPARED)
    confirmed = prepared.move(PartState.CONFIRMED, now=NOW + HOUR)
    assert periods(confirmed) == [Window(NOW + HOUR, NOW + 2 * HOUR)]
    early = lease(2, NOW + HOUR, PartState.PREPARED).move(PartState.CONFIRMED, now=NOW)
    assert periods(early) == [Window(NOW + HOUR, NOW + 3 * HOUR)]


@pytest.mark.parametrize(
    "state", [PartState.HELD, PartState.PREPARED, PartState.RELEASED, PartState.EXPIRED]
)
def test_what_was_never_confirmed_is_never_accounted(state: PartState) -> None:
    assert periods(lease(state=state)) == []


def test_what_was_cancelled_before_it_began_has_nothing_to_account() -> None:
    early = lease(1, NOW + HOUR).ending(now=NOW, reason="CANCELLED")
    over = early.move(PartState.ENDED, now=NOW, reason="CANCELLED")
    assert periods(over) == []
    assert settled(over, None)


def test_an_end_that_is_told_late_takes_nothing_back() -> None:
    account = Account(name="p", until=NOW + HOUR, number=1)
    ended = lease(10).ending(now=NOW + HOUR - SECOND, reason="CANCELLED")
    assert next_period(ended, account) is None


def test_only_what_is_over_and_written_down_is_settled() -> None:
    of = lease(1)
    over = of.move(PartState.ENDED, now=NOW + HOUR)
    account = Account(name=of.name, until=NOW + HOUR, number=1)
    assert not settled(of, account)
    assert not settled(over, None)
    assert settled(over, account)


def test_amounts_are_those_that_the_ledger_counts() -> None:
    a, b = workspace("w", 0, vcpus=2), workspace("w", 1, vcpus=1)
    spec = part_spec(a, b, pairs=(("w-0", "w-1", 20),), remote=("v-0",), link_mbit_s=30)
    apart = part(
        spec=spec,
        placed=(Placed(workspace="w-0", host="n1"), Placed(workspace="w-1", host="n2")),
        gateway="n1",
    )
    taken = charge_of(apart).reserved
    assert (taken.hosts.vcpus, taken.hosts.memory_mib, taken.hosts.iops) == (3, 256, 200)
    assert taken.hosts.uplink_mbit_s == 20 + 20 + 30, "a pair at both hosts, the link at one"
    assert taken.links == (("south", 30, 30),)
    near = replace(apart, placed=tuple(replace(each, host="n1") for each in apart.placed))
    assert charge_of(near).reserved.hosts.uplink_mbit_s == 30
    assert [
        (each.group, each.indices, each.each.vcpus) for each in charge_of(apart).workspaces
    ] == [
        ("w", (0,), 2),
        ("w", (1,), 1),
    ]


def test_a_record_says_all_of_it_and_is_damaged_when_an_octet_is_missing() -> None:
    of = lease(1).ending(now=NOW + HOUR / 2, reason="CANCELLED")
    period = Window(NOW, NOW + HOUR / 2)
    body = record_to_bytes(Usage(number=7, part=of, period=period, final=True), salt=b"s" * 16)
    record = record_from_bytes(7, body)
    assert (record.number, record.site, record.tenant, record.part) == (
        7,
        "north",
        "demo",
        of.name,
    )
    assert (record.owner, record.cluster, record.final, record.end_reason) == (
        "alice",
        of.spec.cluster,
        True,
        "CANCELLED",
    )
    assert record.period.end_time.ToDatetime(tzinfo=UTC) == period.end
    assert record.reserved.hosts.vcpus == 1
    assert [(each.group, list(each.indices)) for each in record.workspaces] == [("w", [0])]
    assert record_from_bytes(8, body[:-1]).number == 8
    assert record_from_bytes(8, b"").number == 8, "and where it is gone"


def test_where_the_window_was_over_there_is_no_reason() -> None:
    """A bug: it depended on which loop of the broker was first to see it."""
    over = lease(1)
    for of in (over, over.ending(now=NOW + HOUR, reason="WINDOW_OVER")):
        usage = Usage(number=1, part=of, period=of.window, final=True)
        assert record_from_bytes(1, record_to_bytes(usage, salt=b"s" * 16)).end_reason == ""


def test_the_agenda_knows_what_is_due_and_when() -> None:
    one, two = lease(1), replace(lease(60), name="sites/north/tenants/demo/parts/t2")
    accounts: dict[str, Versioned[Account]] = {}
    view = LedgerView(
        parts={each.name: Versioned(value=each, revision=1) for each in (one, two)},
        accounts=accounts,
    )
    agenda = Agenda()
    agenda.look(view, [one.name, two.name, "sites/north/tenants/demo/clusters/one"])
    assert agenda.due(now=NOW + HOUR - SECOND, most=9) == []
    assert agenda.due(now=NOW + HOUR, most=9) == [one.name]
    assert agenda.due(now=MIDNIGHT, most=9) == [one.name, two.name]
    assert agenda.due(now=MIDNIGHT, most=1) == [one.name], "and it stays there"
    account = Account(name=two.name, until=MIDNIGHT, number=1)
    accounts[two.name] = Versioned(value=account, revision=2)
    agenda.look(view, [two.name, two.name])
    assert agenda.due(now=MIDNIGHT, most=9) == [one.name]
    assert agenda.due(now=MIDNIGHT + DAY, most=9) == [one.name, two.name]
    agenda.look(LedgerView(), [one.name, two.name])
    assert agenda.due(now=MIDNIGHT + DAY, most=9) == []
    assert len(agenda) == 0


def amended(before: Part, *, now: datetime, account: Account | None = None) -> Part:
    after = part_spec(workspace(vcpus=3), window=before.window)
    return replace(before, spec=after, charged=charged_until(before, account, now=now))


def test_each_time_is_written_down_by_the_terms_that_were_in_force() -> None:
    old = part(spec=part_spec(workspace(vcpus=1), window=Window(NOW, NOW + 3 * HOUR)))
    new = amended(old, now=NOW + HOUR)
    first = next_period(new, None)
    assert first == Window(NOW, NOW + HOUR)
    assert not is_final(new, first)
    assert charge_during(new, first) == charge_of(old)
    written = Account(name=new.name, until=first.end, number=1)
    second = next_period(new, written)
    assert second == Window(NOW + HOUR, NOW + 3 * HOUR)
    assert charge_during(new, second).reserved.hosts.vcpus == 3
    assert is_final(new, second)

    third = amended(new, now=NOW + 2 * HOUR, account=written)
    assert [each.until for each in third.charged] == [NOW + 2 * HOUR], "the first is written"
    unwritten = amended(new, now=NOW + 2 * HOUR)
    assert [each.until for each in unwritten.charged] == [NOW + HOUR, NOW + 2 * HOUR]
    assert next_period(unwritten, None) == first
    cut = unwritten.ending(now=NOW + 1.5 * HOUR, reason="CANCELLED")
    assert next_period(cut, written) == Window(NOW + HOUR, NOW + 1.5 * HOUR)


def test_terms_under_which_nothing_was_reserved_are_not_written_down() -> None:
    """Before the window opens, and twice at one moment."""
    later = part(spec=part_spec(workspace(), window=Window(NOW + HOUR, NOW + 2 * HOUR)))
    assert amended(later, now=NOW).charged == ()
    at_once = amended(part(), now=NOW + HOUR / 2)
    assert len(amended(at_once, now=NOW + HOUR / 2).charged) == 1
