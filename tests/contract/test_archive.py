"""What every ledger promises of what is put aside: it is shown as it was, is in one place at a
time, is not begun again, and goes with its tombstone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from intertie.broker.domain.account import Account
from intertie.broker.domain.archiving import KEPT, Move
from intertie.broker.domain.cluster import ClusterRecord, ClusterState
from intertie.broker.domain.ledger import Versioned
from intertie.broker.domain.part import PartState
from intertie.broker.domain.ports import Ledger
from intertie.broker.domain.records import Change, Erase, Record, Write
from intertie.common.errors import StaleWrite
from intertie.common.values import replace
from tests.contract.ledgers import Kind
from tests.contract.test_ledger import a_cluster
from tests.unit.broker.samples import HOUR, NOW, part

ENDED = part(state=PartState.ENDED, end_time=NOW, end_reason="CANCELLED")
OVER = replace(a_cluster(), state=ClusterState.CANCELLED, end_time=NOW)
ACCOUNT = Account(name=ENDED.name, until=NOW, number=1)


async def put(ledger: Ledger, *records: Record) -> None:
    await ledger.commit(Change(writes=tuple(Write(record=each) for each in records)))


async def standing(ledger: Ledger) -> Move:
    view = await ledger.view()
    return Move(
        part=view.parts[ENDED.name],
        account=view.accounts[ENDED.name],
        cluster=view.clusters[OVER.name],
    )


async def put_aside(ledger: Ledger) -> Move:
    await put(ledger, ENDED, ACCOUNT, OVER)
    move = await standing(ledger)
    await ledger.commit(move.change(now=NOW))
    return move


async def test_what_is_put_aside_is_shown_as_it_was_and_in_no_view(kind: Kind) -> None:
    ledger = kind.ledger
    await put_aside(ledger)
    view = await ledger.view()
    assert (dict(view.parts), dict(view.clusters), dict(view.accounts)) == ({}, {}, {})
    [tomb] = view.tombs.values()
    assert (tomb.value.name, tomb.value.state) == (ENDED.name, "ENDED")
    assert tomb.value.until == NOW + HOUR + KEPT
    found = await ledger.part(ENDED.path)
    assert found == Versioned(value=ENDED, revision=0)
    assert await ledger.cluster("demo", "one") == Versioned(value=OVER, revision=0)
    whole = await ledger.whole_cluster("demo", "one")
    assert whole is not None
    assert whole.part is not None
    assert (whole.cluster.value, whole.part.value) == (OVER, ENDED)
    for tenant, there in (("demo", True), ("", True), ("other", False)):
        assert [each.value for each in await ledger.parts(tenant)] == [ENDED] * there
        assert [each.value for each in await ledger.clusters(tenant)] == [OVER] * there


async def test_of_what_was_written_meanwhile_nothing_is_put_aside(kind: Kind) -> None:
    ledger = kind.ledger
    await put(ledger, ENDED, ACCOUNT, OVER)
    move = await standing(ledger)
    assert move.account is not None
    later = Write(record=replace(ACCOUNT, number=2), read_at=move.account.revision)
    await ledger.commit(Change(writes=(later,)))
    with pytest.raises(StaleWrite):
        await ledger.commit(move.change(now=NOW))
    view = await ledger.view()
    assert view.tombs == {}
    assert ENDED.name in view.parts
    assert [each.revision for each in await ledger.parts()] != [0]


async def test_it_is_put_aside_once_and_never_begun_again(kind: Kind) -> None:
    ledger = kind.ledger
    move = await put_aside(ledger)
    with pytest.raises(StaleWrite):
        await ledger.commit(move.change(now=NOW))
    for state in (PartState.HELD, PartState.CONFIRMED, PartState.ENDED):
        with pytest.raises(StaleWrite):
            await put(ledger, part(state=state))
    assert dict((await ledger.view()).parts) == {}
    assert [each.value for each in await ledger.parts()] == [ENDED]


def named_anew() -> ClusterRecord:
    return replace(
        a_cluster(),
        uid="u2",
        part="sites/north/tenants/demo/parts/t2",
        create_time=NOW + timedelta(minutes=5),
    )


async def test_a_name_may_be_used_again_and_the_new_one_is_shown(kind: Kind) -> None:
    ledger = kind.ledger
    await put_aside(ledger)
    before = await ledger.cluster("demo", "one")
    assert before is not None
    again = Write(record=named_anew(), read_at=before.revision)
    await ledger.commit(Change(writes=(again,)))
    found = await ledger.cluster("demo", "one")
    assert found is not None
    assert found.value.uid == "u2"
    assert [each.value.uid for each in await ledger.clusters()] == ["u2"]

    # The second goes the same way, and the first is forgotten before it.
    over = replace(named_anew(), state=ClusterState.ENDED, end_time=NOW + HOUR)
    await ledger.commit(Change(writes=(Write(record=over, read_at=found.revision),)))
    view = await ledger.view()
    await ledger.commit(Move(cluster=view.clusters[OVER.name]).change(now=NOW))
    found = await ledger.cluster("demo", "one")
    assert found is not None
    assert found.value.uid == "u2"
    tombs = (await ledger.view()).tombs
    first = tombs[ENDED.name]
    await ledger.commit(Change(erasures=(Erase(record=first.value, read_at=first.revision),)))
    assert [each.value.uid for each in await ledger.clusters()] == ["u2"]
    assert await ledger.parts() == ()


async def test_what_was_put_aside_goes_with_its_tombstone(kind: Kind) -> None:
    ledger = kind.ledger
    await put_aside(ledger)
    [tomb] = (await ledger.view()).tombs.values()
    erasure = Erase(record=tomb.value, read_at=tomb.revision)
    await ledger.commit(Change(erasures=(erasure,)))
    assert (await ledger.view()).tombs == {}
    assert await ledger.part(ENDED.path) is None
    assert await ledger.cluster("demo", "one") is None
    assert await ledger.whole_cluster("demo", "one") is None
    assert (await ledger.parts(), await ledger.clusters()) == ((), ())
