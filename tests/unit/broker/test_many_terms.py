"""However terms change: a part with many stretches of a price that are written down comes out with
few. A bug: each way added one, and none took any away."""

from __future__ import annotations

from datetime import timedelta

import pytest

from intertie.broker.domain.account import Account
from intertie.broker.domain.amending import amend
from intertie.broker.domain.fleet import Fleet
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part
from intertie.broker.domain.price import MOST, amount_of
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.stretch import Stretch
from intertie.common.amend_rules import GROUPS
from intertie.common.intervals import Window
from intertie.common.tariff import Rates, part_hour
from intertie.common.values import replace
from tests.fakes.clock import START
from tests.unit.broker import renegotiation as several
from tests.unit.broker.line import asks, part_of, saved, start, with_records
from tests.unit.broker.samples import HOUR, NOW, POLICY, facts
from tests.unit.broker.standing import admitted, group, spec, view_of
from tests.unit.broker.test_giving_way import LATER, after, running

MANY = MOST + 40
STEP = HOUR / 4 / MANY


def with_many(of: Part, step: timedelta = STEP) -> Part:
    """Amended again and again in its first quarter of an hour, or as `step` says, the last time for
    all that is left of its window."""
    start = of.window.start
    rates = Rates(vcpu_hour=1)
    ends = [start + number * step for number in range(1, MANY)]
    windows = map(Window, (start, *ends), (*ends, of.window.end))
    hour = part_hour(rates, of.spec)
    price = (Stretch(window=each, kind="immediate", rates=rates, hour=hour) for each in windows)
    return replace(of, price=tuple(price))


def account_of(of: Part) -> Account:
    """All but the last stretch is written down."""
    return Account(name=of.name, until=of.price[-1].window.start, number=1)


def accounted(before: LedgerView, of: Part) -> LedgerView:
    versioned = Versioned(value=account_of(of), revision=1)
    return replace(before, accounts={of.name: versioned})


def test_by_an_update_at_one_site() -> None:
    fleet = Fleet.of([facts(host, report_time=NOW + HOUR / 2) for host in ("n1", "n2")], POLICY)
    record, part = admitted("one", spec(group("w", 2)), view_of(fleet, ()), now=NOW)
    part = with_many(part)
    here = accounted(view_of(fleet, (part,)), part)
    found = amend(record, part, spec(group("w", 1)), [GROUPS], here, POLICY, now=NOW + HOUR / 2)
    assert found is not None
    assert len(found.part.price) == MOST
    assert found.record.cost == amount_of(found.part.price)


@pytest.mark.parametrize("short", [False, True], ids=["agreed on by all", "nobody was asked"])
async def test_by_an_update_over_several_sites(short: bool) -> None:
    many = with_many(several.PART)
    site = await several.Site(many).up()
    await site.ledger.commit(Change(writes=(Write(record=account_of(many)),)))
    await site.clock.advance((HOUR / 2).total_seconds())
    site.alive()
    if short:
        part = await site.shrink(several.terms(1, hours=0.75))
    else:
        await site.hold(several.terms(2))
        part = await site.commit()
    assert part.window.start == START
    assert len(part.price) == MOST


def test_by_going_on() -> None:
    here = running(8)
    here = saved(after(here, asks(here, 4, now=LATER), now=LATER), "a")
    part = part_of(here, "a")
    assert part.window == Window(NOW, LATER)
    many = with_many(part, STEP / 2)
    on = start(accounted(with_records(here, many), many), "a", now=LATER + HOUR / 60)
    assert len(part_of(on, "a").price) == MOST
