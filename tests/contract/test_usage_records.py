"""What every chain of usage promises: held by the one in etcd and by the one in memory."""

from __future__ import annotations

import pytest

from intertie.broker.adapters import keys
from intertie.broker.adapters.etcd_reads import EtcdReads
from intertie.broker.adapters.scribe import SigningScribe
from intertie.broker.domain.account import Account, UsageBatch
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.records import Change, Erase, Unchanged, Write
from intertie.broker.domain.usage import Usage
from intertie.broker.loops.accounting import AT_ONCE, Accounting, batch_of
from intertie.common.errors import NotLeading, StaleWrite
from intertie.common.etcd.client import Etcd, Put, Snapshot
from tests.contract.ledgers import InEtcd, Kind
from tests.fakes.accounts import SIGNER, START, AwakeClock
from tests.unit.broker.samples import HOUR, NOW, POLICY, part

SCRIBE = SigningScribe("north", SIGNER)


def a_part(number: int, tenant: str = "demo") -> Part:
    return part(name=f"sites/north/tenants/{tenant}/parts/t{number}")


async def admit(kind: Kind, *parts: Part) -> dict[str, int]:
    """The revision of each."""
    return {
        each.name: await kind.ledger.commit(Change(writes=(Write(record=each),))) for each in parts
    }


async def batch(kind: Kind, *parts: Part) -> UsageBatch:
    head = await kind.usage.head()
    first = head.value.number if head else 0
    bodies = [
        SCRIBE.write(Usage(number=first + at, part=each, period=each.window, final=True))
        for at, each in enumerate(parts, start=1)
    ]
    tenants = [each.path.tenant for each in parts]
    return batch_of("north", SCRIBE, head, tenants, bodies, now=START)


def account(of: Part, number: int) -> Account:
    return Account(name=of.name, until=of.window.end, number=number)


async def test_records_are_written_whole_and_read_back_in_order(kind: Kind) -> None:
    assert await kind.usage.head() is None
    assert await kind.usage.entries(after=0, most=9) == ()
    parts = [a_part(number, ("demo", "other")[number % 2]) for number in range(12)]
    await admit(kind, *parts)
    first, second = None, None
    for some in (parts[:7], parts[7:]):
        usage = await batch(kind, *some)
        writes = tuple(
            Write(record=account(each, entry.number))
            for each, entry in zip(some, usage.entries, strict=True)
        )
        await kind.ledger.commit(Change(writes=writes, usage=usage))
        first, second = second, usage
    assert first is not None
    assert second is not None

    head = await kind.usage.head()
    assert head is not None
    assert head.value == second.head
    entries = await kind.usage.entries(after=0, most=100)
    assert entries == first.entries + second.entries
    assert await kind.usage.entries(after=5, most=2) == entries[5:7]
    assert await kind.usage.bodies(entries) == dict(
        enumerate(first.bodies + second.bodies, start=1)
    )
    mine = await kind.usage.records("other", after=0, most=100)
    assert [each.number for each in mine] == [2, 4, 6, 8, 10, 12]
    assert all(each.period == parts[0].window for each in mine)
    assert [each.number for each in await kind.usage.records("other", after=4, most=2)] == [6, 8]
    assert [each.number for each in await kind.usage.records("", after=4, most=2)] == [5, 6]
    assert await kind.usage.records("third", after=0, most=9) == ()
    assert await kind.usage.checkpoints(1, 12) == (first.checkpoint, second.checkpoint)
    assert await kind.usage.checkpoints(1, 11) == (first.checkpoint,)
    accounts = (await kind.ledger.view()).accounts
    assert {each.value.number for each in accounts.values()} == set(range(1, 13))


async def test_of_two_that_follow_on_one_end_the_second_is_refused_whole(kind: Kind) -> None:
    one, other = a_part(1), a_part(2)
    await admit(kind, one, other)
    first, second = await batch(kind, one), await batch(kind, other)
    await kind.ledger.commit(Change(writes=(Write(record=account(one, 1)),), usage=first))
    with pytest.raises(StaleWrite):
        await kind.ledger.commit(Change(writes=(Write(record=account(other, 1)),), usage=second))
    assert await kind.usage.entries(after=0, most=9) == first.entries
    assert set((await kind.ledger.view()).accounts) == {one.name}


async def test_nothing_is_written_of_a_part_that_has_changed_or_is_accounted_already(
    kind: Kind,
) -> None:
    made = a_part(1)
    revisions = await admit(kind, made)
    usage = await batch(kind, made)
    same = Unchanged(kind=Part, name=made.name, read_at=revisions[made.name])
    write = Write(record=account(made, 1))
    over = made.move(PartState.ENDED, now=NOW + HOUR)
    await kind.ledger.commit(Change(writes=(Write(record=over, read_at=revisions[made.name]),)))
    with pytest.raises(StaleWrite):
        await kind.ledger.commit(Change(writes=(write,), unchanged=(same,), usage=usage))
    await kind.ledger.commit(Change(writes=(write,), usage=usage))
    again = await batch(kind, made)
    with pytest.raises(StaleWrite):
        await kind.ledger.commit(Change(writes=(write,), usage=again))
    assert len(await kind.usage.entries(after=0, most=9)) == 1


async def test_a_replica_that_leads_no_more_adds_nothing(kind: Kind) -> None:
    made = a_part(1)
    await admit(kind, made)
    usage = await batch(kind, made)
    await kind.depose()
    with pytest.raises(NotLeading):
        await kind.ledger.commit(Change(writes=(Write(record=account(made, 1)),), usage=usage))
    assert await kind.usage.head() is None


async def test_an_account_goes_with_its_part(kind: Kind) -> None:
    made = a_part(1)
    revisions = await admit(kind, made)
    usage = await batch(kind, made)
    at = await kind.ledger.commit(Change(writes=(Write(record=account(made, 1)),), usage=usage))
    gone = (
        Erase(record=made, read_at=revisions[made.name]),
        Erase(record=account(made, 1), read_at=at),
    )
    await kind.ledger.commit(Change(erasures=gone))
    view = await kind.ledger.view()
    assert (dict(view.parts), dict(view.accounts)) == ({}, {})
    assert len(await kind.usage.entries(after=0, most=9)) == 1


async def test_as_many_as_go_together_are_a_transaction_that_is_taken(kind: Kind) -> None:
    """The largest batch there is, with a certificate that is new."""
    await admit(kind, *(a_part(number) for number in range(AT_ONCE + 2)))
    clock = AwakeClock(START)
    accounting = Accounting(kind.ledger, kind.usage, SCRIBE, "north", clock)
    await accounting.sweep()
    found = await kind.usage.entries(after=0, most=100)
    assert len(found) == AT_ONCE + 2
    signed = await kind.usage.checkpoints(1, 100)
    assert [each.number for each in signed] == [AT_ONCE, AT_ONCE + 2]
    await accounting.sweep()
    assert len(await kind.usage.entries(after=0, most=100)) == AT_ONCE + 2


@pytest.mark.etcd
async def test_what_a_book_is_compared_with_leaves_the_chain_out(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain grows for ever: neither a fail-over nor the comparison reads it, and what is
    written of it does not cost the leader its book."""
    kind = await InEtcd.of(etcd)
    made = a_part(1)
    await admit(kind, made)
    usage = await batch(kind, made)
    await kind.ledger.commit(Change(writes=(Write(record=account(made, 1)),), usage=usage))
    book = (await kind.ledger.view()).parts
    await kind.ledger.read_again()  # type: ignore[attr-defined]
    assert (await kind.ledger.view()).parts is book
    read: list[str] = []
    ranged = etcd.range

    async def spied(prefix: str, *, without: tuple[str, ...] = ()) -> Snapshot:
        snapshot = await ranged(prefix, without=without)
        read.extend(each.key for each in snapshot.entries)
        return snapshot

    monkeypatch.setattr(etcd, "range", spied)
    await EtcdReads(etcd, POLICY).mirrored()
    assert read == [
        "accounts/demo/t1",
        "election/broker",
        "parts/demo/t1",
    ]


@pytest.mark.etcd
async def test_what_is_damaged_in_the_store_is_read_as_far_as_it_goes(etcd: Etcd) -> None:
    """Whoever verifies is to be told which it is, so reading must not fail."""
    kind = await InEtcd.of(etcd)
    parts = [a_part(number) for number in range(3)]
    await admit(kind, *parts)
    usage = await batch(kind, *parts)
    await kind.ledger.commit(Change(usage=usage))
    await etcd.txn(
        [],
        [
            Put(keys.entry_key(2), b"?"),
            Put(keys.usage_record_key("demo", 3), b"\xff"),
            Put(keys.checkpoint_key(3), b"?"),
        ],
    )
    entries = await kind.usage.entries(after=0, most=9)
    assert [(each.number, bool(each.hash)) for each in entries] == [
        (1, True),
        (2, False),
        (3, True),
    ]
    assert set(await kind.usage.bodies(entries)) == {1, 2, 3}, "all that stand, of the others"
    records = await kind.usage.records("demo", after=0, most=9)
    assert [each.period is None for each in records] == [False, False, True]
    [checkpoint] = await kind.usage.checkpoints(1, 3)
    assert (checkpoint.number, checkpoint.body) == (3, b"")
