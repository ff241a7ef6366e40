"""What is brought or sent for other terms of a part that stands."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from intertie.broker.domain.account import Account
from intertie.broker.domain.cluster import CANCELLED, WINDOW_OVER
from intertie.broker.domain.decision import Decision, Outcome
from intertie.broker.domain.ledger import calendar_of
from intertie.broker.domain.part import PartState
from intertie.broker.domain.price import MOST, amount_of, sent_for, sent_shortened
from intertie.broker.domain.pricing import Flat
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.refund_policy import RefundPolicy
from intertie.broker.domain.refunds import with_end
from intertie.broker.domain.renegotiating import shrunk
from intertie.broker.domain.sending import (
    GRACE,
    Arrival,
    ArrivalState,
    ImageSource,
    StoreAddress,
)
from intertie.broker.domain.stretch import Stretch
from intertie.broker.domain.tariff import Tariff
from intertie.broker.domain.usage import next_period, price_during
from intertie.broker.loops.bring import Bring
from intertie.broker.loops.tell_gateways import TellGateways
from intertie.broker.usecases.sends import Sends
from intertie.common.errors import FieldInvalid, ImageNotReady, NoCapacity
from intertie.common.intervals import Window
from intertie.common.part_spec import PartSpec, Transfer
from intertie.common.tariff import Rates
from intertie.common.values import replace
from tests.fakes.clock import START
from tests.unit.broker.renegotiation import ABORT, HOUR, PART, Site, terms
from tests.unit.broker.samples import COORDINATOR, DIGEST, POLICY
from tests.unit.broker.test_bring import PlainGrants, Store

S = timedelta(seconds=1)
OTHER = "b3:" + "77" * 32
SENDS = Sends("north", StoreAddress(addresses=("10.0.0.9:1",), server_name="s"), PlainGrants())


def brought(start_s: int = 100, end_s: int = 200, **changes: Any) -> Transfer:
    """From south to north, while the part's window lasts."""
    values = {
        "digest": OTHER,
        "size_bytes": 1000,
        "from_site": "south",
        "to_site": "north",
        "mbit_s": 30,
        "window": Window(START + start_s * S, START + end_s * S),
    }
    return Transfer(**{**values, **changes})


def sent(**changes: Any) -> Transfer:
    return brought(**{"from_site": "north", "to_site": "south", **changes})


def with_new(*transfers: Transfer) -> PartSpec:
    """A second workspace, of another image."""
    spec = terms(2)
    old, new = spec.workspaces
    new = replace(new, environment=replace(new.environment, image=OTHER))
    return replace(spec, workspaces=(old, new), transfers=transfers)


def source(end_s: int = 200) -> ImageSource:
    return ImageSource(
        digest=OTHER,
        from_site="south",
        to_site="north",
        addresses=("10.0.0.1:1",),
        server_name="imagestore.south",
        end_time=START + end_s * S + GRACE,
        grant=b"",
    )


async def taken(site: Site, key: str, second: int) -> int:
    calendar = calendar_of(await site.ledger.view(), POLICY)
    at = START + second * S
    return calendar.peak(key, Window(at, at + S))


async def test_it_counts_in_its_own_window_as_long_as_it_is_held() -> None:
    site = await Site().up()
    await site.hold(with_new(brought()))
    told = [await taken(site, "link/south/ingress", at) for at in (99, 100, 199, 200)]
    assert told == [0, 30, 30, 0]
    await site.resolve(ABORT)
    assert await taken(site, "link/south/ingress", 150) == 0
    assert (await site.part()).spec.transfers == ()


async def test_what_the_link_has_no_room_for_is_refused() -> None:
    site = await Site().up()
    with pytest.raises(NoCapacity) as refused:
        await site.hold(with_new(brought(mbit_s=201)))
    assert [each.resource for each in refused.value.shortfalls] == ["link_ingress"]


async def test_a_commit_has_its_store_bring_it_from_where_the_sender_says() -> None:
    site = await Site().up()
    await site.hold(with_new(brought()))
    decision = site.commit_of(sends=(source(),))
    part = await site.resolve(decision)
    assert (part.spec.transfers, part.sources) == ((brought(),), (source(),))
    store = Store()
    bring = Bring(site.ledger, store, "north", site.clock)
    await site.clock.advance(100)
    await bring.sweep()
    assert store.asked == [("demo", brought(), source())]


async def test_hosts_hear_of_who_waits_once_it_is_there_and_of_the_others_at_once() -> None:
    site = await Site().up()
    before = await site.wanted()
    await site.hold(with_new(brought()))
    part = await site.resolve(site.commit_of(sends=(source(),)))
    assert part.awaiting == ("w-1",)
    assert sum((await site.wanted()).values()) == sum(before.values()) == 1
    site.obey()
    await site.wanted()
    assert (await site.part()).shed == ()
    there = Arrival(digest=OTHER, done_bytes=1000, state=ArrivalState.DONE)
    found = await site.ledger.part(PART.path)
    assert found is not None
    after = replace(found.value, arrivals=(there,))
    await site.ledger.commit(Change(writes=(Write(record=after, read_at=found.revision),)))
    assert sum((await site.wanted()).values()) == 2


async def test_a_part_that_no_host_knows_of_yet_does_not_wait_for_who_came_later() -> None:
    later = Window(START + HOUR / 2, START + 2 * HOUR)
    site = await Site(replace(PART, spec=replace(PART.spec, window=later))).up()
    new = replace(with_new(brought(1900, 2000)), window=later)
    await site.hold(new)
    await site.resolve(site.commit_of(sends=(source(2000),)))
    await site.clock.advance(1800)
    site.alive()
    assert sum((await site.wanted()).values()) == 1


@pytest.mark.parametrize("prepare", [True, False])
async def test_the_senders_receipt_says_by_what_leave_once_it_is_prepared(prepare: bool) -> None:
    site = await Site(sends=SENDS).up()
    await site.hold(replace(terms(1), transfers=(sent(digest=DIGEST),)), prepare=prepare)
    (receipt,) = site.notary.signed
    assert len(receipt.sends) == int(prepare)
    body = await site.prepare()
    assert [(each.digest, each.to_site) for each in body.sends] == [(DIGEST, "south")]
    grants = SENDS._grants
    assert isinstance(grants, PlainGrants)
    assert (grants.last.tx, grants.last.end_time) == ("a1", START + 200 * S + GRACE)


async def test_what_was_sent_for_earlier_terms_gets_no_other_leave() -> None:
    first = replace(PART.spec, transfers=(sent(digest=OTHER),))
    site = await Site(replace(PART, spec=first), sends=SENDS).up()
    receipt = await site.hold(replace(terms(1), transfers=(sent(), sent(digest=DIGEST))))
    assert [each.digest for each in receipt.sends] == [DIGEST]


async def test_who_cannot_send_refuses() -> None:
    site = await Site(sends=Sends("north", None, None)).up()
    with pytest.raises(NoCapacity, match="no address that other sites reach"):
        await site.hold(replace(terms(1), transfers=(sent(),)))


async def test_gateways_leave_room_once_it_is_prepared() -> None:
    site = await Site(sends=SENDS).up()
    tell = TellGateways(site.ledger, "north", site.clock)

    async def told() -> list[int]:
        await tell.sweep()
        hosts = (await site.ledger.view()).hosts
        return [each.mbit_s for host in hosts.values() for each in host.value.reserved]

    await site.clock.advance(60)
    site.alive()
    await site.hold(replace(terms(1), transfers=(sent(),)), prepare=False)
    assert await told() == []
    await site.prepare()
    assert await told() == [30]
    await site.resolve(site.commit_of())
    assert await told() == [30]


async def test_what_may_still_come_is_not_brought_twice() -> None:
    first = replace(PART.spec, transfers=(brought(),))
    site = await Site(replace(PART, spec=first)).up()
    with pytest.raises(FieldInvalid) as refused:
        await site.hold(with_new(brought(300, 400)))
    assert refused.value.field == "spec.transfers[0]"


async def test_what_has_failed_or_is_long_over_is_brought_once_more() -> None:
    first = replace(PART.spec, transfers=(brought(),))
    failed = Arrival(digest=OTHER, done_bytes=5, state=ArrivalState.FAILED)
    standing = replace(PART, spec=first, arrivals=(failed,), sources=(source(),))
    site = await Site(standing).up()
    await site.hold(with_new(brought(300, 400)))
    part = await site.resolve(site.commit_of(sends=(source(400),)))
    assert part.spec.transfers == (brought(300, 400),)
    assert (part.sources, part.arrivals) == ((source(400),), ())


class Empty:
    """A store without images."""

    async def find(self, tenant: str, image: str) -> None:
        return None


async def test_what_is_sent_or_needed_and_not_brought_has_to_be_there() -> None:
    site = await Site(images=Empty(), sends=SENDS).up()
    for asked in (with_new(), replace(terms(1), transfers=(sent(),))):
        with pytest.raises(ImageNotReady):
            await site.hold(asked)
    await site.hold(with_new(brought()))


async def test_what_is_on_its_way_by_the_first_terms_is_enough_for_more_of_them() -> None:
    first = replace(PART.spec, transfers=(brought(),))
    standing = replace(PART, spec=first, sources=(source(),))
    site = await Site(standing, images=Empty()).up()
    await site.hold(with_new())
    part = await site.commit()
    assert (part.spec.transfers, part.sources) == ((brought(),), (source(),))
    assert part.awaiting == ("w-1",)


async def test_both_pay_for_it_at_the_rates_of_when_it_was_held() -> None:
    policy = replace(POLICY, pricing=Flat(tariff=Tariff(rates=Rates(link_mbit_s_hour=0.5))))
    site = await Site(sends=SENDS, policy=policy).up()
    await site.hold(replace(with_new(brought()), transfers=(brought(), sent(digest=DIGEST))))
    part = await site.resolve(site.commit_of(sends=(source(),)))
    assert [each.window for each in part.sent] == [brought().window] * 2
    assert amount_of(part.sent) == pytest.approx(2 * 30 * 0.5 * 100 / 3600)
    await site.hold(
        with_new(brought(), brought(300, 400, digest="b3:" + "0" * 64)), "a2", replaces=1
    )
    assert (await site.part()).sent == part.sent


async def test_a_part_that_joins_is_paid_for_from_now_on() -> None:
    """A bug: it cost as much as if it had been there since the cluster began."""
    site = await Site().up()
    await site.clock.advance(900)
    site.alive()
    name = replace(PART.path, part_id="a1")
    await site.hold(with_new(brought(1000, 1100)), name=name)
    found = await site.ledger.part(name)
    assert found is not None
    (price,) = found.value.price
    assert price.window == Window(START + 900 * S, START + HOUR)
    assert [each.window for each in found.value.sent] == [brought(1000, 1100).window]


def test_what_is_written_down_of_what_was_sent_is_made_one_from_a_number_on() -> None:
    rates = Rates(link_mbit_s_hour=0.5)
    many = [brought(at, at + 10, mbit_s=at) for at in range(1, MOST + 3)]
    sent = sent_for(many, rates, "immediate")
    name = PART.name
    assert sent_shortened(sent, None) == sent
    late = Account(name=name, until=START + HOUR, number=1)
    kept = sent_shortened(sent, late)
    assert len(kept) == MOST
    assert amount_of(kept) == pytest.approx(amount_of(sent))


@pytest.mark.parametrize("second", [-10, 3595])
async def test_what_could_not_come_in_time_is_refused(second: int) -> None:
    site = await Site().up()
    with pytest.raises((NoCapacity, FieldInvalid)):
        await site.hold(with_new(brought(second, second + 10)))
    assert await site.part() == PART


async def test_a_part_that_joins_has_transfers_in_its_window_and_one_of_a_create_has_not() -> None:
    site = await Site().up()
    name = replace(PART.path, part_id="a1")
    order = with_new(brought())
    receipt = await site.hold(order, name=name)
    assert receipt.state is PartState.PREPARED
    first = replace(PART.path, part_id="c1")
    with pytest.raises(FieldInvalid) as refused:
        await site.hold(order, tx="c1", name=first, replaces=None)
    assert refused.value.field == "spec.transfers[0].window"


ASKS = replace(POLICY, pricing=Flat(tariff=Tariff(rates=Rates(vcpu_hour=1, link_mbit_s_hour=1))))


async def test_what_is_not_sent_after_an_end_that_is_made_earlier_is_left_over() -> None:
    """To shorten a lease cost more than to cancel it then: all that would have been sent."""
    site = await Site(policy=ASKS).up()
    await site.hold(with_new(brought(600, 1800)))
    part = await site.resolve(site.commit_of(sends=(source(1800),)))
    end = START + 300 * S
    short = replace(part.spec, window=Window(START, end))
    decision = Decision(tx="a2", outcome=Outcome.COMMIT, digest="d", decided_by=COORDINATOR)
    view = await site.ledger.view()
    shorter = shrunk(part, decision, part.terms, short, None, view, ASKS, now=site.clock.now())
    ended = [part.ending(now=end, reason=CANCELLED), shorter.ending(now=end, reason=WINDOW_OVER)]
    pays = [
        amount_of(each.agreed) - sum(item.amount for item in each.refunds)
        for each in (with_end(part, RefundPolicy()) for part in ended)
    ]
    assert pays[0] == pytest.approx(pays[1])


async def test_records_add_up_where_what_is_sent_is_heard_of_after_midnight() -> None:
    """It was in no record: the time was in one that had been written."""
    window, midnight = Window(START, START + 13 * HOUR), START + 12 * HOUR
    whole = Stretch(window=window, kind="immediate", rates=Rates(vcpu_hour=1), hour=1.0)
    standing = replace(PART, spec=replace(PART.spec, window=window), price=(whole,))
    site = await Site(standing, policy=ASKS).up()
    await site.clock.advance(12 * 3600 - 15)
    site.alive()
    begins = 12 * 3600 - 5
    await site.hold(replace(with_new(brought(begins, begins + 100)), window=window))
    before = await site.part()
    period = next_period(before, None)
    assert period is not None
    assert period.end == midnight
    told = sum(each.amount for each in price_during(before, period, first=True))
    await site.clock.advance(20)
    account = Account(name=before.name, until=midnight, number=1)
    await site.ledger.commit(Change(writes=(Write(record=account),)))
    site.alive()
    part = await site.resolve(site.commit_of(sends=(source(begins + 100),)))
    while period := next_period(part, account):
        told += sum(each.amount for each in price_during(part, period, first=False))
        account = replace(account, until=period.end)
    assert told == pytest.approx(amount_of(part.agreed))
