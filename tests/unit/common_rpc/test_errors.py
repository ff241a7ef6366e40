"""The one table of errors: complete, unambiguous, and read back as it was written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest

from intertie.common import errors
from intertie.common.explanation import (
    Change,
    Conflict,
    CounterOffer,
    Explanation,
    Requirement,
)
from intertie.common.rpc.errors import CODES, from_status, sentence, to_status
from intertie.common.values import replace

SHORTFALL = errors.Shortfall(
    site="north", resource="vcpus", wanted=8, available=3, unit="vCPU", message="north is short"
)
NARROW = errors.Shortfall(
    site="north",
    peer="south",
    resource="link_egress",
    message="the link is narrow",
    until=datetime(2026, 3, 1, 13, tzinfo=UTC),
    field="spec.groups[0].allocation.pairs[0].bandwidth.guarantee_mbit_s",
)
LATER = datetime(2026, 3, 1, 13, 30, tzinfo=UTC)
EXPLANATION = Explanation(
    conflicts=(
        Conflict(
            requirements=(
                Requirement(field="spec.groups[1].count", message="12 worker", enough=True),
                Requirement(field="spec.lease.max_delay", message="a start at once"),
            )
        ),
    ),
    counter_offers=(
        CounterOffer(
            changes=(Change(field="spec.groups[1].count", value="11"),),
            message="11 worker instead of 12",
            start_time=LATER,
            cost=3.25,
        ),
    ),
)
SAMPLES: list[errors.DomainError] = [
    errors.FieldInvalid("spec.groups[1].count", "must be 1 or more"),
    errors.NotFound("sites/north/hosts/n1"),
    errors.NameTaken("a"),
    errors.RequestIdReuse("r-1"),
    errors.NoCapacity((SHORTFALL, NARROW), EXPLANATION),
    errors.PlanStale("its sites have less room", (SHORTFALL,)),
    errors.ImageNotReady("debian", "north", "spec.groups[1].environment.image"),
    errors.ClockSkew(timedelta(seconds=-2.5)),
    errors.HoldExpired("p"),
    errors.PartOver("p", "RELEASED"),
    errors.DecisionPending("p"),
    errors.DecisionInvalid("a receipt is missing"),
    errors.EtagStale("a"),
    errors.ClusterOver("sites/north/tenants/demo/clusters/one"),
    errors.LeaseEnding("sites/north/tenants/demo/clusters/one", "2026-03-01T13:00:00+00:00"),
    errors.ActionIllegal("PAUSE", "worker-0", "STOPPED", "START"),
    errors.AmendPending("sites/north/tenants/demo/clusters/c1"),
    errors.TermsStale("sites/north/tenants/demo/parts/p1", 2, 1),
    errors.StaleWrite("k"),
    errors.Aborted("t1", "south refused"),
    errors.NotLeading("broker-1"),
    errors.EtcdUnavailable("timed out"),
    errors.LedgerFull("82 of 100 MiB"),
    errors.SiteUnreachable("south", "no route"),
    errors.SolverFailed("it was ended"),
    errors.IdentityUnknown("no certificate"),
    errors.RoleDenied("spiffe://a/b", "/x/Y", "not its own"),
    errors.WorkspaceNotRunning("w-0", "STAGING"),
    errors.ConnectionRefused("w-0", 22),
    errors.ConsoleTaken("w-0"),
    errors.DigestMismatch("b3:1", "b3:2"),
    errors.OffsetMismatch(5, 7),
    errors.PutInProgress("b3:1"),
    errors.StoreFull(10, 3),
]


def _below(kind: type[errors.DomainError]) -> Iterator[type[errors.DomainError]]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)


def test_every_domain_error_has_a_code_and_its_own_reason() -> None:
    known = set(_below(errors.DomainError))
    assert known == set(CODES)
    assert len({error.reason for error in known}) == len(known)
    assert all(re.fullmatch(r"[A-Z]+(_[A-Z]+)*", error.reason) for error in known)


def test_there_is_a_sample_of_every_error() -> None:
    assert {type(error) for error in SAMPLES} == set(CODES)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: error.reason)
def test_an_error_is_read_back_as_it_was_written(error: errors.DomainError) -> None:
    status = to_status(error)
    assert status.code == CODES[type(error)].value[0]
    assert status.message == str(error)
    back = from_status(status)
    assert type(back) is type(error)
    for field in fields(error):  # type: ignore[arg-type]
        assert getattr(back, field.name) == getattr(error, field.name)


def test_a_status_of_others_is_none_of_ours() -> None:
    status = to_status(errors.NotFound("a"))
    status.ClearField("details")
    assert from_status(status) is None


def test_a_huge_refusal_stays_small_enough_for_metadata() -> None:
    error = errors.NoCapacity((SHORTFALL,) * 10_000)
    status = to_status(error)
    assert status.ByteSize() < 32 * 1024
    back = from_status(status)
    assert isinstance(back, errors.NoCapacity)
    assert 0 < len(back.shortfalls) < 100


def test_a_huge_explanation_stays_small_enough_and_says_nothing_by_half() -> None:
    offers = replace(EXPLANATION, counter_offers=EXPLANATION.counter_offers * 900)
    conflicts = replace(EXPLANATION, conflicts=EXPLANATION.conflicts * 900)
    for many, left in ((offers, EXPLANATION.conflicts), (conflicts, ())):
        status = to_status(errors.NoCapacity((NARROW,) * 900, many))
        assert status.ByteSize() < 32 * 1024
        back = from_status(status)
        assert isinstance(back, errors.NoCapacity)
        assert 0 < len(back.shortfalls) < 100
        assert back.explanation.conflicts == left
        assert set(back.explanation.counter_offers) <= set(EXPLANATION.counter_offers)


def test_a_value_that_is_too_long_to_be_told_is_not_told_as_another() -> None:
    [known] = EXPLANATION.counter_offers
    long = replace(known, changes=(Change(field="spec.groups[0].networks", value="9" * 9999),))
    told = replace(EXPLANATION, counter_offers=(long, known))
    back = from_status(to_status(errors.NoCapacity((NARROW,), told)))
    assert isinstance(back, errors.NoCapacity)
    assert back.explanation == EXPLANATION


@pytest.mark.parametrize(
    "error",
    [
        errors.FieldInvalid("name", f"{'x' * 500_000!r} must end in /clusters/NAME"),
        errors.NotFound("x" * 500_000),
        errors.ImageNotReady("x" * 500_000, "y" * 500_000, "z" * 500_000),
        errors.NoCapacity(
            (replace(SHORTFALL, site="s" * 99_999, message="m" * 99_999 + "; mend"),) * 99
        ),
    ],
    ids=lambda error: error.reason,
)
def test_a_refusal_repeats_little_of_what_was_sent(error: errors.DomainError) -> None:
    """The bug: it repeated all of it, and the answer was too large for its caller to read. What
    would be right, at the end, is still said."""
    status = to_status(error)
    assert status.ByteSize() < 60 * 1024
    assert type(from_status(status)) is type(error)
    assert len(sentence(error)) <= 1000
    if isinstance(error, errors.FieldInvalid):
        assert status.message.endswith(" must end in /clusters/NAME")
