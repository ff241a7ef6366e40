"""When a decision is applied to a part, and when it is refused."""

from datetime import timedelta

import pytest

from intertie.broker.domain.decision import (
    Decision,
    OpenedReceipt,
    Outcome,
    ReceiptBody,
    applied,
    check,
)
from intertie.broker.domain.networks import Endpoint
from intertie.broker.domain.part import Part, PartState
from intertie.common.errors import DecisionInvalid, PartOver
from intertie.common.values import replace
from tests.unit.broker.samples import COORDINATOR, NOW, part

COMMIT = Decision(tx="t1", outcome=Outcome.COMMIT, digest="d", decided_by=COORDINATOR)
ABORT = Decision(tx="t1", outcome=Outcome.ABORT, decided_by="whoever")
ENDPOINT = Endpoint(network="lan", address="10.250.0.12", port=4790, vni=7)


def receipt(site: str, **changes: object) -> OpenedReceipt:
    body = ReceiptBody(
        tx="t1",
        digest="d",
        site=site,
        part=f"sites/{site}/tenants/demo/parts/t1",
        state=PartState.PREPARED,
        sign_time=NOW,
        endpoints=(ENDPOINT,),
    )
    return OpenedReceipt(signer=site, body=replace(body, **changes))  # type: ignore[arg-type]


ALL = (receipt("north"), receipt("south"))


def apply(state: PartState, decision: Decision) -> Part:
    return applied(part("t1", state), decision, ALL, site="north", now=NOW)


@pytest.mark.parametrize(
    ("decision", "receipts"),
    [
        (COMMIT, ALL[:1]),
        (COMMIT, (ALL[0], receipt("south", digest="other"))),
        (COMMIT, (ALL[0], receipt("south", tx="t2"))),
        (COMMIT, (ALL[0], receipt("south", state=PartState.HELD))),
        (COMMIT, (ALL[0], receipt("south", sign_time=NOW - timedelta(minutes=10, seconds=1)))),
        (COMMIT, (ALL[0], replace(ALL[1], signer="north"))),
        (COMMIT, (ALL[0], replace(ALL[1], signer=""))),
        (replace(COMMIT, decided_by="another"), ALL),
        (replace(COMMIT, digest="other"), ALL),
        (replace(COMMIT, tx="t2"), ALL),
        (replace(ABORT, tx="t2"), ()),
        (replace(ABORT, outcome=Outcome.OPEN), ()),
    ],
)
def test_what_is_no_decision_on_this_part(
    decision: Decision, receipts: tuple[OpenedReceipt, ...]
) -> None:
    with pytest.raises(DecisionInvalid):
        check(part("t1", PartState.PREPARED), decision, receipts)


def test_a_good_decision_passes() -> None:
    check(part("t1", PartState.PREPARED), COMMIT, ALL)
    check(part("t1", PartState.HELD), ABORT, ())


def test_a_part_of_this_site_alone_takes_no_decision() -> None:
    with pytest.raises(DecisionInvalid):
        check(replace(part(), tx=""), replace(ABORT, tx=""), ())


def test_commit_confirms_and_remembers_where_the_others_are() -> None:
    confirmed = apply(PartState.PREPARED, COMMIT)
    assert confirmed.state is PartState.CONFIRMED
    assert [(each.site, each.endpoint) for each in confirmed.remotes] == [("south", ENDPOINT)]


@pytest.mark.parametrize("state", [PartState.CONFIRMED, PartState.ENDED])
def test_commit_again_changes_nothing(state: PartState) -> None:
    assert apply(state, COMMIT) == part("t1", state)


@pytest.mark.parametrize("state", [PartState.RELEASED, PartState.EXPIRED])
def test_commit_of_what_was_let_go_is_refused_loudly(state: PartState) -> None:
    with pytest.raises(PartOver):
        apply(state, COMMIT)


def test_commit_of_what_was_never_prepared_is_refused() -> None:
    with pytest.raises(DecisionInvalid):
        apply(PartState.HELD, COMMIT)


@pytest.mark.parametrize("state", [PartState.HELD, PartState.PREPARED])
def test_abort_releases(state: PartState) -> None:
    assert apply(state, ABORT).state is PartState.RELEASED


@pytest.mark.parametrize("state", [PartState.RELEASED, PartState.EXPIRED])
def test_abort_again_changes_nothing(state: PartState) -> None:
    assert apply(state, ABORT) == part("t1", state)


@pytest.mark.parametrize("state", [PartState.CONFIRMED, PartState.ENDED])
def test_abort_after_commit_is_refused(state: PartState) -> None:
    with pytest.raises(DecisionInvalid):
        apply(state, ABORT)
