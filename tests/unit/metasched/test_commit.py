"""What may be decided, and from which facts; the pieces that sites agree on."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from intertie.common.errors import IllegalMove, StaleWrite
from intertie.common.values import Struct, replace
from intertie.metasched.domain import cluster, commit
from intertie.metasched.domain.commit import (
    ReceiptFacts,
    TxRecord,
    TxState,
    abort_of,
    why_not_commit,
)
from intertie.metasched.domain.parts import agreement_digest, digest_of, part_specs, said
from tests.unit.metasched.world import World, order, spec

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TX = TxRecord(
    tx="t1",
    cluster="metascheds/meta/tenants/demo/clusters/c1",
    cluster_uid="u1",
    coordinator="spiffe://meta.meta.intertie/metasched",
    owner="alice",
    digest="b2:1",
    parts={site: f"sites/{site}/tenants/demo/parts/t1" for site in ("north", "south")},
    create_time=NOW,
    decide_by=NOW + timedelta(seconds=20),
)
FACTS = {
    site: ReceiptFacts(tx="t1", digest="b2:1", site=site, part=part, prepared=True)
    for site, part in TX.parts.items()
}


def test_all_receipts_in_time_commit() -> None:
    assert why_not_commit(TX, FACTS, now=TX.decide_by - timedelta(microseconds=1)) is None


def test_decide_by_itself_is_too_late() -> None:
    assert why_not_commit(TX, FACTS, now=TX.decide_by)


def test_one_missing_receipt_is_enough() -> None:
    for site in FACTS:
        rest = {name: facts for name, facts in FACTS.items() if name != site}
        assert why_not_commit(TX, rest, now=NOW) == f"{site} has not prepared"


@pytest.mark.parametrize(
    "wrong",
    [
        {"tx": "t2"},
        {"digest": "b2:2"},
        {"site": "north"},
        {"part": "sites/south/tenants/demo/parts/t2"},
        {"prepared": False},
    ],
)
def test_a_receipt_of_something_else_commits_nothing(wrong: dict[str, object]) -> None:
    facts = {**FACTS, "south": replace(FACTS["south"], **wrong)}  # type: ignore[arg-type]
    assert "south" in (why_not_commit(TX, facts, now=NOW) or "")


def test_only_the_tables_edges_are_moves() -> None:
    for state, to in product(TxState, TxState):
        tx = replace(TX, state=state)
        if to in commit.NEXT[state]:
            assert tx.move(to).state is to
        else:
            with pytest.raises(IllegalMove):
                tx.move(to)


async def test_clusters_move_along_their_tables_edges_only() -> None:
    record = (await (await World().process()).create.plan_only(order())).record
    for state, to in product(cluster.ClusterState, cluster.ClusterState):
        at = replace(record, state=state)
        if to in cluster.NEXT[state]:
            moved = at.move(to, now=NOW)
            assert moved.state is to
            assert (moved.end_time is not None) is moved.over
        else:
            with pytest.raises(IllegalMove):
                at.move(to, now=NOW)


async def test_a_transaction_without_a_decision_is_not_forgotten() -> None:
    """The bug: `settle` compared the lead alone, though it said that it compared the decision."""
    register = (await World().process()).register
    record = (await (await World().process()).create.plan_only(order())).record
    await register.begin(TX, record, read_at=0, request=None)
    with pytest.raises(StaleWrite):
        await register.settle(TX, now=NOW)
    assert await register.transactions() == (TX,)
    await register.abort(abort_of(TX.tx, by="north", reason="in doubt", now=NOW))
    await register.settle(TX, now=NOW)
    assert await register.transactions() == ()


async def test_the_digest_is_of_everything_that_was_agreed_and_of_nothing_else() -> None:
    record = (await (await World().process()).create.plan_only(order(what=spec(5)))).record
    specs = part_specs(record.name, record.uid, record.spec, record.plan, record.layout())
    digest = agreement_digest(specs)
    assert digest == agreement_digest(dict(reversed(specs.items())))
    for site, part in specs.items():
        for changed in (
            replace(part, cluster_uid="other"),
            replace(part, workspaces=part.workspaces[1:]),
            replace(part, host_entries=()),
            replace(part, window=replace(part.window, end=part.window.end + timedelta(seconds=1))),
        ):
            assert agreement_digest({**specs, site: changed}) != digest


def test_a_field_that_is_added_changes_no_digest_of_what_does_not_use_it() -> None:
    """A bug: a Create that was asked again after an upgrade was refused as another request."""

    class Older(Struct, frozen=True, kw_only=True):
        image: str
        parts: tuple["Older", ...] = ()

    class Newer(Struct, frozen=True, kw_only=True):
        image: str
        parts: tuple["Newer", ...] = ()
        added: str = ""

    older = Older(image="", parts=(Older(image="a"),))
    newer = Newer(image="", parts=(Newer(image="a"),))
    assert digest_of(said(older)) == digest_of(said(newer))
    used = replace(newer, parts=(Newer(image="a", added="b"),))
    assert digest_of(said(used)) != digest_of(said(newer))
