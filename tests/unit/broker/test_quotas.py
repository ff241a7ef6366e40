"""What a site's policy refuses although it would fit: more than a tenant may have at one time, and
leases that are too long or too far ahead."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from intertie.broker.domain.admission_policy import (
    ACCEPT_ALL,
    EACH_OTHER,
    All,
    Quotas,
    WindowBounds,
)
from intertie.broker.domain.amending import amend
from intertie.broker.domain.book import Book
from intertie.broker.domain.decision import Decision, Outcome
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.fleet import Fleet, Policy
from intertie.broker.domain.ledger import LedgerView, Versioned, calendar_of
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.planning import allot
from intertie.broker.domain.quotas import tenant_key
from intertie.broker.domain.recalling import put_aside_as_agreed
from intertie.broker.domain.records import Change, Write
from intertie.common.errors import NoCapacity, Shortfall
from intertie.common.intervals import Window
from intertie.common.spec import LeaseTerms
from intertie.common.values import replace
from tests.fakes.clock import START
from tests.unit.broker.recalling import Recalling
from tests.unit.broker.samples import (
    COORDINATOR,
    HOUR,
    NOW,
    POLICY,
    facts,
    part,
    part_spec,
    workspace,
)
from tests.unit.broker.standing import admitted, group, spec

FLEET = Fleet.of([facts("n1"), facts("n2")], POLICY)
LIMITED = replace(POLICY, admission=Quotas({"demo": {"vcpus": 3}, EACH_OTHER: {"memory_mib": 256}}))


def view(*parts: Part) -> LedgerView:
    return LedgerView(
        parts={each.name: Versioned(value=each, revision=1) for each in parts}, fleet=FLEET
    )


def refused(policy: Policy, *parts: Part, count: int = 1, **lease: Any) -> tuple[Shortfall, ...]:
    asked = spec(group(count=count), lease=LeaseTerms(**{"duration": HOUR, **lease}))
    with pytest.raises(NoCapacity) as error:
        admitted("next", asked, view(*parts), now=NOW, policy=policy)
    return error.value.shortfalls


def standing(count: int, **lease: Any) -> Part:
    asked = spec(group(count=count), lease=LeaseTerms(**{"duration": HOUR, **lease}))
    return admitted("first", asked, view(), now=NOW, policy=LIMITED)[1]


def test_a_tenant_has_no_more_than_its_quota_at_one_time() -> None:
    first = standing(2)
    admitted("next", spec(group()), view(first), now=NOW, policy=LIMITED)
    [short] = refused(LIMITED, first, count=2)
    assert (short.resource, short.wanted, short.available, short.unit) == (
        "quota_vcpus",
        2,
        1,
        "vCPU",
    )
    assert "tenant demo" in short.message
    # As much again, once the first is over.
    later = LeaseTerms(start_time=NOW + HOUR, duration=HOUR)
    admitted("next", spec(group(count=3), lease=later), view(first), now=NOW, policy=LIMITED)


def test_the_quota_of_one_is_none_of_another_s() -> None:
    first = standing(3)
    allotted = allot(part_spec(workspace()), view(first), LIMITED, tenant="other", now=NOW)
    assert allotted.placed
    with pytest.raises(NoCapacity) as error:
        allot(
            part_spec(*(workspace("w", number) for number in range(3))),
            view(),
            LIMITED,
            tenant="other",
            now=NOW,
        )
    [short] = error.value.shortfalls
    assert short.resource == "quota_memory"


def test_where_a_range_is_asked_for_the_quota_is_filled() -> None:
    asked = spec(group(count=0, min_count=1, max_count=8))
    record, part = admitted("one", asked, view(), now=NOW, policy=LIMITED)
    assert dict(record.counts) == {"w": 3}
    assert [each.resource for each in record.shortfalls] == ["quota_vcpus"]
    assert len(part.spec.workspaces) == 3


def test_an_amend_goes_no_further_than_the_quota() -> None:
    record, part = admitted("one", spec(group(count=2)), view(), now=NOW, policy=LIMITED)
    for count, fits in ((3, True), (4, False)):
        asked = replace(record.spec, groups=(replace(record.spec.groups[0], count=count),))
        if fits:
            assert amend(record, part, asked, ["spec.groups"], view(part), LIMITED, now=NOW)
            continue
        with pytest.raises(NoCapacity) as error:
            amend(record, part, asked, ["spec.groups"], view(part), LIMITED, now=NOW)
        assert [each.resource for each in error.value.shortfalls] == ["quota_vcpus"]


def test_what_is_decided_and_on_its_way_counts() -> None:
    book = Book.of(view(), LIMITED.admission)
    first = standing(2)
    book.reserve(Change(writes=(Write(record=first),), admitted_on=0))
    window = Window(NOW, NOW + HOUR)
    calendar = calendar_of(book.view(FLEET, {}), LIMITED)
    assert calendar.free(tenant_key("demo", "vcpus"), window) == 1
    book.apply(Change(writes=(Write(record=first),), admitted_on=0), 7)
    over = first.ending(now=NOW, reason="CANCELLED").move(PartState.ENDED, now=NOW)
    book.apply(Change(writes=(Write(record=over, read_at=7),)), 8)
    assert calendar_of(book.view(FLEET, {}), LIMITED).free(tenant_key("demo", "vcpus"), window) == 3


def test_a_tenant_without_a_quota_is_not_counted() -> None:
    [demand] = demands_of(standing(2), Quotas({"other": {"vcpus": 1}}))
    assert not [key for key in demand.amounts if key.startswith("tenant/")]
    assert demand == demands_of(standing(2), ACCEPT_ALL)[0]


BOUNDED = replace(POLICY, admission=WindowBounds(longest=2 * HOUR, longest_lead=timedelta(days=1)))


@pytest.mark.parametrize(
    ("lease", "why"),
    [
        ({"duration": 3 * HOUR}, "lasts 2:00:00 at most, and this one 3:00:00"),
        ({"start_time": NOW + timedelta(days=2)}, "begins within 1 day"),
    ],
    ids=["too long", "too far ahead"],
)
def test_a_window_that_is_not_taken_is_said_with_its_field(lease: dict[str, Any], why: str) -> None:
    [short] = refused(BOUNDED, **lease)
    assert (short.resource, short.field) == ("policy", "spec.lease")
    assert why in short.message


def test_a_lease_gets_no_longer_by_amends_than_by_creating_it() -> None:
    record, part = admitted("one", spec(group()), view(), now=NOW, policy=BOUNDED)
    for hours, fits in ((2, True), (3, False)):
        asked = replace(record.spec, lease=LeaseTerms(duration=hours * HOUR))
        if fits:
            assert amend(record, part, asked, ["spec.lease.duration"], view(part), BOUNDED, now=NOW)
            continue
        with pytest.raises(NoCapacity):
            amend(record, part, asked, ["spec.lease.duration"], view(part), BOUNDED, now=NOW)


def test_of_several_policies_each_has_its_say() -> None:
    both = All([Quotas({"demo": {"vcpus": 3}}), BOUNDED.admission, Quotas({"demo": {"vcpus": 2}})])
    assert both.most("demo") == {"vcpus": 2}
    assert both.most("other") == {}
    assert both.refusal("demo", Window(NOW, NOW + 3 * HOUR), now=NOW)
    assert not both.refusal("demo", Window(NOW, NOW + HOUR), now=NOW)


def test_how_many_may_wait_is_a_table_of_the_tenants_own() -> None:
    """The least of what several policies say; who is named is not one of the others."""
    quotas = Quotas({"demo": {"vcpus": 3}, EACH_OTHER: {}}, queued={EACH_OTHER: 2})
    assert quotas.most_queued("demo") is None
    assert quotas.most_queued("other") == 2
    both = All([quotas, BOUNDED.admission, Quotas({}, queued={"demo": 5, "other": 1})])
    assert both.most_queued("demo") == 5
    assert both.most_queued("other") == 1
    assert ACCEPT_ALL.most_queued("demo") is None


async def test_what_is_put_aside_is_kept_for_as_long_as_its_tenant_may_have_the_disk() -> None:
    """A bug: hosts were looked at alone, and with a later lease of its own it had more."""
    kept = await (await Recalling().running()).part()
    later = Window(START + 1.5 * HOUR, START + 4 * HOUR)
    other = part("t2", spec=part_spec(workspace(), window=later), create_time=START)
    bounded = replace(POLICY, admission=Quotas({"demo": {"disk_mib": 8 * (128 + 128)}}))
    end, terms = START + HOUR / 6, kept.spec.recallable
    assert terms is not None
    asked = replace(kept.spec, window=Window(START, end), recallable=replace(terms, put_aside=True))
    decision = Decision(tx="s1", outcome=Outcome.COMMIT, digest="d", decided_by=COORDINATOR)
    after = put_aside_as_agreed(kept, decision, asked, view(kept, other), bounded, end)
    assert later.start - timedelta(seconds=1) <= after.ends <= later.start
