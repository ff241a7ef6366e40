"""What the loop writes down, when, and what it does when it is kept from it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from intertie.api.broker.v1 import usage_pb2
from intertie.broker.adapters.scribe import SigningScribe
from intertie.broker.domain.account import UsageHead
from intertie.broker.domain.book import Book
from intertie.broker.domain.counted import Used
from intertie.broker.domain.fleet import SeenPart, SeenWorkspace, WorkspaceState
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.price import amount_of, stretch_of
from intertie.broker.domain.refund_policy import RefundPolicy
from intertie.broker.domain.refunds import with_end
from intertie.broker.domain.stretch import Stretch
from intertie.broker.domain.usage import Usage
from intertie.broker.loops.accounting import AT_ONCE, BATCH_BYTES, LOOK_AGAIN_S
from intertie.client.usage_chain import ChainBroken
from intertie.common.errors import EtcdUnavailable, FieldInvalid, NotLeading, StaleWrite
from intertie.common.etcd.client import MAX_OPERATIONS
from intertie.common.intervals import Window
from intertie.common.tariff import Rates, room_of
from intertie.common.usage_chain import digest_of
from intertie.common.values import replace
from tests.fakes.accounts import SIGNER, START, Accounts
from tests.unit.broker.samples import HOUR, part, part_spec, workspace

MINUTE = timedelta(minutes=1)


def lease(number: int, *, hours: float = 1, tenant: str = "demo", workspaces: int = 1) -> Part:
    window = Window(START, START + hours * HOUR)
    spaces = [workspace("w", index) for index in range(workspaces)]
    spec = part_spec(*spaces, window=window)
    return part(
        spec=replace(spec, cluster=f"sites/north/tenants/{tenant}/clusters/one"),
        name=f"sites/north/tenants/{tenant}/parts/t{number}",
        create_time=START,
        placed=tuple(replace(part().placed[0], workspace=each.label) for each in spaces),
    )


@pytest.fixture
def site() -> Accounts:
    return Accounts()


async def test_a_lease_is_written_down_when_its_window_is_over_and_once(site: Accounts) -> None:
    await site.write(lease(1))
    await site.clock.advance(3599)
    await site.accounting.sweep()
    assert await site.written() == []
    await site.clock.advance(1)
    for _ in range(3):
        await site.accounting.sweep()
    [record] = await site.written()
    assert (record.number, record.final) == (1, True)
    assert (await site.audit()).records == 1


async def test_who_left_and_comes_back_where_it_was_is_not_written_down_twice(
    site: Accounts,
) -> None:
    """A bug: the record after the one in which `w-1` left forgot what was written of it, so what
    it had used before was written once more when it came back: its host counts on."""
    both = lease(1, hours=96, workspaces=2)

    async def told(standing: Part, hours: int) -> None:
        """n1 has counted a second of processor time for each hour until then."""
        at = START + hours * HOUR
        used = Used(read_time=at, cpu_ns=hours * 10**9)
        spaces = tuple(
            SeenWorkspace(name=each.workspace, state=WorkspaceState.RUNNING, used=used)
            for each in standing.placed
        )
        site.ledger.see(SeenPart(host="n1", part_uid=standing.uid, generation=1, workspaces=spaces))
        await site.write(standing)
        await site.clock.advance((at - site.clock.now()).total_seconds())
        await site.accounting.sweep()

    await told(both, 12)
    await told(replace(both, placed=both.placed[:1]), 36)
    await told(both, 60)
    found = [
        sum(each.used.cpu_time.seconds for each in record.used if each.workspace == "w-1")
        for record in await site.written()
    ]
    assert found == [12, 0, 48]


async def test_the_last_record_has_what_is_given_back_however_late_that_is(site: Accounts) -> None:
    """A bug: it was written without, 2 minutes after the end, where that was kept from being put on
    record for longer; all that is given back was missing from the records for ever."""
    rates = Rates(vcpu_hour=2)
    made = lease(1)
    agreed = Stretch(window=made.window, kind="immediate", rates=rates, hour=2)
    ended = replace(made, price=(agreed,)).ending(now=START + HOUR / 2, reason="CANCELLED")
    ended = ended.move(PartState.ENDED, now=START + HOUR / 2)
    await site.write(ended)
    await site.clock.advance(3600)
    for _ in range(3):
        await site.accounting.sweep(frozenset({ended.name}))
    assert await site.written() == []
    await site.write(with_end(ended, RefundPolicy()))
    await site.accounting.sweep(frozenset({ended.name}))
    [record] = await site.written()
    assert (record.final, record.price.amount, record.refund.amount) == (True, 2, 1)


async def test_what_of_a_price_is_for_others_is_in_each_record_and_adds_up(site: Accounts) -> None:
    made = lease(1, hours=60)
    rates = Rates(vcpu_hour=2, give_way_vcpu_hour=0.5)
    agreed = stretch_of(made.window, "immediate", rates, made.spec, room_of(rates, 1, 0))
    await site.write(replace(made, price=(agreed,)))
    for _ in range(60):
        await site.clock.advance(3600)
        await site.accounting.sweep()
    terms = [each for record in await site.written() for each in record.price.terms]
    assert [each.room_made.amount for each in terms] == [6, 12, 12]
    assert {each.room_made.vcpus for each in terms} == {1}
    assert sum(each.amount for each in terms) == amount_of((agreed,))


async def test_a_long_lease_is_written_down_each_midnight(site: Accounts) -> None:
    await site.write(lease(1, hours=60))
    for _ in range(60):
        await site.clock.advance(3600)
        await site.accounting.sweep()
    found = await site.written()
    spans = [each.period.end_time.seconds - each.period.start_time.seconds for each in found]
    assert spans == [12 * 3600, 24 * 3600, 24 * 3600]
    assert [each.final for each in found] == [False, False, True]
    ends = [each.period.end_time.ToDatetime(tzinfo=UTC) for each in found]
    assert ends[:2] == [datetime(2026, 6, 2, tzinfo=UTC), datetime(2026, 6, 3, tzinfo=UTC)]


async def test_what_was_due_while_nobody_led_is_written_period_by_period(site: Accounts) -> None:
    await site.write(lease(1, hours=100))
    await site.clock.advance(200 * 3600)
    await site.accounting.sweep()
    assert len(await site.written()) == 5
    await site.audit()


async def test_a_pass_looks_at_what_was_touched_and_at_what_is_due(site: Accounts) -> None:
    """With a thousand parts of which nothing is due it asks for the view, and no more."""
    for number in range(1000):
        await site.write(lease(number, hours=10))
    await site.accounting.sweep()
    views = site.ledger.views
    looked: list[str] = []
    agenda = site.accounting._agenda
    look = agenda.look

    def counted(view: object, names: object) -> None:
        found = list(names)  # type: ignore[call-overload]
        looked.extend(found)
        look(view, found)  # type: ignore[arg-type]

    agenda.look = counted  # type: ignore[method-assign]
    await site.accounting.sweep(frozenset())
    await site.accounting.sweep(None)
    assert looked == []
    assert site.ledger.views == views + 2, "the view, and no more"
    ending = lease(7, hours=10).ending(now=START + 5 * MINUTE, reason="CANCELLED")
    await site.clock.advance(300)
    await site.write(ending)
    await site.accounting.sweep(frozenset({ending.name, "sites/north/tenants/demo/clusters/x"}))
    assert len(looked) < 10
    assert [each.part for each in await site.written()] == [ending.name]


async def test_a_new_book_is_looked_at_whole_and_an_old_one_now_and_then(site: Accounts) -> None:
    """Whatever no hint has told of."""
    await site.accounting.sweep()
    site.ledger.book = Book.of(await site.ledger.view())
    await site.write(lease(1, hours=1 / 12))
    await site.clock.advance(300)
    await site.accounting.sweep()
    assert len(await site.written()) == 1
    await site.write(lease(2, hours=1 / 12))
    await site.clock.advance(LOOK_AGAIN_S - 1)
    await site.accounting.sweep()
    assert len(await site.written()) == 1
    await site.clock.advance(1)
    await site.accounting.sweep()
    assert len(await site.written()) == 2


async def test_many_go_in_batches_that_a_transaction_takes(site: Accounts) -> None:
    many = 3 * AT_ONCE + 1
    for number in range(many):
        await site.write(lease(number))
    await site.clock.advance(3600)
    before = len(site.ledger.commits)
    await site.accounting.sweep()
    batches = [each.usage for each in site.ledger.commits[before:] if each.usage]
    assert [len(each.entries) for each in batches] == [AT_ONCE] * 3 + [1]
    assert 3 * AT_ONCE + 3 <= MAX_OPERATIONS, "two puts and an account each, and what signs them"
    assert [each.certificate_is_new for each in batches] == [True, False, False, False]
    assert [each.number for each in await site.written()] == list(range(1, many + 1))
    assert (await site.audit()).checkpoints == 4


async def test_large_records_go_in_batches_that_a_transaction_has_room_for(
    site: Accounts,
) -> None:
    """Each workspace has something of its own, so that none are told together."""
    for number in range(6):
        wide = lease(number, workspaces=900)
        unlike = tuple(
            replace(each, allocation=replace(each.allocation, memory_mib=100 + at))
            for at, each in enumerate(wide.spec.workspaces)
        )
        await site.write(replace(wide, spec=replace(wide.spec, workspaces=unlike)))
    await site.clock.advance(3600)
    before = len(site.ledger.commits)
    await site.accounting.sweep()
    batches = [each.usage for each in site.ledger.commits[before:] if each.usage]
    assert sum(len(each.entries) for each in batches) == 6
    assert len(batches) > 1
    assert all(sum(map(len, each.bodies)) <= BATCH_BYTES for each in batches)


async def test_an_answer_that_is_lost_writes_nothing_twice_and_misses_nothing(
    site: Accounts,
) -> None:
    for number in range(AT_ONCE + 5):
        await site.write(lease(number))
    await site.clock.advance(3600)
    site.ledger.loses_answer = True
    with pytest.raises(EtcdUnavailable):
        await site.accounting.sweep()
    await site.accounting.sweep()
    found = await site.written()
    assert len({each.part for each in found}) == len(found) == AT_ONCE + 5
    await site.audit()


async def test_a_leader_that_is_none_any_more_writes_nothing_and_the_next_goes_on(
    site: Accounts,
) -> None:
    await site.write(lease(1, hours=20))
    await site.clock.advance(13 * 3600)
    await site.accounting.sweep()
    site.ledger.leading = False
    await site.clock.advance(10 * 3600)
    with pytest.raises(NotLeading):
        await site.accounting.sweep()
    site.ledger.leading = True
    site.another_leads()
    await site.accounting.sweep()
    assert [each.final for each in await site.written()] == [False, True]
    await site.audit()


async def test_an_end_that_comes_between_deciding_and_writing_wins(site: Accounts) -> None:
    """The midnight's record is not written of a part that has changed meanwhile."""
    made = lease(1, hours=20)
    await site.write(made)
    await site.clock.advance(13 * 3600)
    head, view = site.chain.head, site.ledger.view

    async def overtaken() -> Versioned[UsageHead] | None:
        """While it is asked, the part's end is written; and the view that follows is older."""
        site.chain.head = head  # type: ignore[method-assign]
        now = await view()
        before = replace(now, parts=dict(now.parts), accounts=dict(now.accounts))
        await site.write(made.ending(now=START + 11 * HOUR, reason="CANCELLED"))

        async def once() -> LedgerView:
            site.ledger.view = view  # type: ignore[method-assign]
            return before

        site.ledger.view = once  # type: ignore[method-assign]
        return await head()

    site.chain.head = overtaken  # type: ignore[method-assign]
    with pytest.raises(StaleWrite):
        await site.accounting.sweep()
    assert await site.written() == []
    await site.accounting.sweep()
    [record] = await site.written()
    assert record.final
    assert record.period.end_time.ToDatetime(tzinfo=UTC) == START + 11 * HOUR


async def test_a_part_is_not_forgotten_before_it_is_written_down(site: Accounts) -> None:
    over = lease(1).move(PartState.ENDED, now=START + HOUR)
    never = replace(lease(2), state=PartState.RELEASED, end_time=START)
    for each in (over, never):
        await site.write(each)
    await site.clock.advance(30 * 3600)
    await site.retention.sweep()
    assert [each.value for each in await site.ledger.parts()] == [over]
    await site.accounting.sweep()
    await site.retention.sweep()
    assert await site.ledger.parts() == ()
    assert dict((await site.ledger.view()).accounts) == {}, "and its account goes with it"
    assert len(await site.written()) == 1, "what was written stays"


async def test_a_tenant_is_shown_its_own_and_can_follow_the_chain_through_others(
    site: Accounts,
) -> None:
    for number in range(9):
        await site.write(lease(number, tenant=("demo", "other", "third")[number % 3]))
    await site.clock.advance(3600)
    await site.accounting.sweep()
    assert {each.tenant for each in await site.written("other")} == {"other"}
    assert len(await site.written("other")) == 3
    pages = await site.pages("other", size=4)
    entries = [each for page in pages for each in page.entries]
    assert [each.number for each in entries] == list(range(1, 10))
    assert sum(bool(each.record) for each in entries) == 3
    assert all(bool(each.record) != each.withheld for each in entries)
    octets = b"".join(page.SerializeToString() for page in pages)
    assert b"tenants/other" in octets
    assert b"demo" not in octets
    assert b"third" not in octets
    verdict = await site.audit("other")
    assert (verdict.records, verdict.shown) == (9, 3)


async def test_an_end_that_was_taken_away_where_it_was_signed_is_found(site: Accounts) -> None:
    """What is left is a chain with a checkpoint at its end; what the site had signed says more."""
    for number in range(AT_ONCE + 5):
        await site.write(lease(number))
    await site.clock.advance(3600)
    await site.accounting.sweep()
    for number in range(AT_ONCE + 1, AT_ONCE + 6):
        del site.chain.chain[number]
        del site.chain.stored["demo", number]
    for size in (5, 100):
        with pytest.raises(ChainBroken, match="is missing") as caught:
            await site.audit(size=size)
        assert caught.value.number == AT_ONCE + 1


async def test_a_record_cannot_be_guessed_by_its_digest(site: Accounts) -> None:
    """Whoever knows all of it but the salt."""
    of = lease(1)
    known = Usage(number=1, part=of, period=of.window, final=True)
    scribe = SigningScribe("north", SIGNER)
    first, second = scribe.write(known), scribe.write(known)
    assert digest_of(first) != digest_of(second)
    salts = [usage_pb2.UsageRecord.FromString(each).salt for each in (first, second)]
    assert [len(each) for each in salts] == [16, 16]


async def test_a_span_of_time_has_what_meets_it(site: Accounts) -> None:
    await site.write(lease(1, hours=60))
    await site.clock.advance(61 * 3600)
    await site.accounting.sweep()

    async def numbers(start: float, end: float) -> list[int]:
        request = usage_pb2.ListUsageRequest(parent="sites/-/tenants/demo")
        request.start_time.FromDatetime(START + start * HOUR)
        request.end_time.FromDatetime(START + end * HOUR)
        return [each.number for each in (await site.servicer.List(request, None)).records]

    assert await numbers(0, 12) == [1]
    assert await numbers(12, 36) == [2]
    assert await numbers(11, 37) == [1, 2, 3]
    assert await numbers(60, 70) == []
    with pytest.raises(FieldInvalid, match="end_time"):
        await numbers(5, 5)


async def test_a_page_token_of_another_list_is_refused(site: Accounts) -> None:
    for number in range(3):
        await site.write(lease(number))
    await site.clock.advance(3600)
    await site.accounting.sweep()
    request = usage_pb2.ListUsageRequest(parent="sites/-/tenants/demo", page_size=1)
    token = (await site.servicer.List(request, None)).next_page_token
    assert token
    request.page_token, request.parent = token, "sites/-/tenants/-"
    with pytest.raises(FieldInvalid, match="page_token"):
        await site.servicer.List(request, None)
