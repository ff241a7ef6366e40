"""Whatever was decided, written, cancelled and ended: the book in memory counts what a ledger that
is read anew counts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from intertie.broker.domain.book import Book
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.difference import with_terms
from intertie.broker.domain.fleet import Fleet
from intertie.broker.domain.ledger import LedgerView, Versioned, calendar_of
from intertie.broker.domain.migrating import arrived, dropped
from intertie.broker.domain.moving import Moving
from intertie.broker.domain.networks import NetworkId
from intertie.broker.domain.part import NEXT, Part, PartState
from intertie.broker.domain.records import Change, Erase, Unchanged, Write
from intertie.common.errors import StaleWrite
from intertie.common.intervals import Window
from intertie.common.values import replace
from tests.unit.broker.samples import HOUR, NOW, POLICY, facts, part, part_spec, workspace

FLEET = Fleet.of([facts("n1"), facts("n2")], POLICY)
RESOURCES = [f"host/n1/{each}" for each in ("vcpus", "memory_mib", "iops", "uplink_mbit_s")]


class Ledger(RuleBasedStateMachine):
    """`etcd` is what is written; `line` what was decided and is not."""

    def __init__(self) -> None:
        super().__init__()
        self.etcd: dict[str, Versioned[Part]] = {}
        self.vnis: dict[int, str] = {}
        self.generation = self.revision = self.generation_revision = 0
        self.book = Book.of(self.written())
        self.line: list[Change] = []
        self.numbers = iter(range(10_000))

    def written(self) -> LedgerView:
        return LedgerView(
            generation=self.generation,
            generation_revision=self.generation_revision,
            parts=dict(self.etcd),
            vnis=dict(self.vnis),
            fleet=FLEET,
        )

    @rule(
        hours=st.integers(0, 4),
        vcpus=st.integers(1, 3),
        state=st.sampled_from([PartState.HELD, PartState.PREPARED, PartState.CONFIRMED]),
    )
    def admit(self, hours: int, vcpus: int, state: PartState) -> None:
        number = next(self.numbers)
        start = NOW + hours * HOUR
        spec = part_spec(workspace(vcpus=vcpus), window=Window(start, start + HOUR))
        vni = self.book.next_vni
        made = part(
            f"t{number}", state, spec=spec, network_ids=(NetworkId(network="lan", vni=vni),)
        )
        change = Change(
            writes=(Write(record=made),),
            admitted_on=self.book.generation,
            vnis=((vni, made.uid),),
        )
        self.book.reserve(change)
        self.line.append(change)

    @rule(data=st.data(), vcpus=st.integers(1, 3), hours=st.integers(1, 3))
    def amend(self, data: Any, vcpus: int, hours: int) -> None:
        """A part that is written gets other terms; where it takes more, that is reserved, and not
        twice before the first of it is written or given up."""
        living = [each for each in self.etcd.values() if each.value.counted]
        if not living:
            return
        found = data.draw(st.sampled_from(living))
        old = found.value
        window = Window(old.window.start, old.window.start + hours * HOUR)
        changed = with_terms(old, part_spec(workspace(vcpus=vcpus), window=window), old.placed)
        more = demands_of(changed) != demands_of(old)
        change = Change(
            writes=(Write(record=changed, read_at=found.revision),),
            admitted_on=self.book.generation if more else None,
        )
        pending = {each.name for each in self.reserved()}
        if more and old.name in pending:
            with pytest.raises(StaleWrite):
                self.book.reserve(change)
            return
        self.book.reserve(change)
        self.line.append(change)

    @rule(data=st.data())
    def migrate(self, data: Any) -> None:
        """A workspace sets out for the other host, which is reserved there."""
        staying = [
            each
            for each in self.etcd.values()
            if each.value.counted and each.value.placed and not each.value.moving
        ]
        if not staying:
            return
        found = data.draw(st.sampled_from(staying))
        old, at = found.value, found.value.placed[0]
        to = {"n1": "n2", "n2": "n1"}[at.host]
        moving = Moving(workspace=at.workspace, host=to, number=self.revision + 1, since=NOW)
        change = Change(
            writes=(Write(record=replace(old, moving=(moving,)), read_at=found.revision),),
            admitted_on=self.book.generation,
        )
        if old.name in {each.name for each in self.reserved()}:
            with pytest.raises(StaleWrite):
                self.book.reserve(change)
            return
        self.book.reserve(change)
        self.line.append(change)

    @rule(data=st.data(), there=st.booleans())
    def is_there_or_stays(self, data: Any, there: bool) -> None:
        going = [each for each in self.etcd.values() if each.value.moving]
        if going:
            found = data.draw(st.sampled_from(going))
            part, moving = found.value, found.value.moving[0]
            after = arrived(part, moving) if there else dropped(part, moving, "why")
            self.line.append(Change(writes=(Write(record=after, read_at=found.revision),)))

    @rule(data=st.data())
    def give_up(self, data: Any) -> None:
        """Hosts have obeyed."""
        amended = [each for each in self.etcd.values() if each.value.shed]
        if amended:
            found = data.draw(st.sampled_from(amended))
            obeyed = Write(record=replace(found.value, shed=()), read_at=found.revision)
            self.line.append(Change(writes=(obeyed,)))

    @rule()
    def decided_on_less(self) -> None:
        """What was decided before another admission is refused, and counts nothing."""
        change = Change(writes=(Write(record=part("late")),), admitted_on=self.book.generation - 1)
        with pytest.raises(StaleWrite):
            self.book.reserve(change)

    @rule(data=st.data())
    def end(self, data: Any) -> None:
        """Or the next step of one that is not yet confirmed."""
        living = [each for each in self.etcd.values() if not each.value.over]
        if living:
            found = data.draw(st.sampled_from(living))
            to = data.draw(st.sampled_from(sorted(NEXT[found.value.state], key=lambda to: to.name)))
            over = found.value.move(to, now=NOW, reason="CANCELLED")
            change = Change(writes=(Write(record=over, read_at=found.revision),))
            self.book.reserve(change)
            self.line.append(change)

    @rule(data=st.data())
    def forget(self, data: Any) -> None:
        over = [each for each in self.etcd.values() if each.value.over]
        if over:
            found = data.draw(st.sampled_from(over))
            erase = Erase(record=found.value, read_at=found.revision)
            self.line.append(Change(erasures=(erase,)))

    @rule()
    def write(self) -> None:
        """The first in line: written, or found in conflict, exactly as its compares would be."""
        if not self.line:
            return
        change = self.line.pop(0)
        conflict = self.book.conflict(change)
        assert bool(conflict) == (not self.holds(change))
        if conflict:
            self.book.cancel(change)
            return
        self.revision += 1
        if change.admitted_on is not None:
            self.generation, self.generation_revision = self.generation + 1, self.revision
        for write in change.writes:
            assert isinstance(write.record, Part)
            self.etcd[write.record.name] = Versioned(value=write.record, revision=self.revision)
        for erasure in change.erasures:
            assert isinstance(erasure.record, Part)
            del self.etcd[erasure.record.name]
        self.vnis.update(change.vnis)
        for vni in change.vnis_given_back():
            self.vnis.pop(vni, None)
        self.book.apply(change, self.revision)

    def holds(self, change: Change) -> bool:
        changed: tuple[Write | Erase, ...] = (*change.writes, *change.erasures)
        compared = [
            (each.record.name, each.read_at) for each in changed if isinstance(each.record, Part)
        ]
        return all(
            (self.etcd[name].revision if name in self.etcd else 0) == read_at
            for name, read_at in compared
        )

    @rule()
    def withdraw(self) -> None:
        """The last in line."""
        if self.line:
            self.book.cancel(self.line.pop())

    def reserved(self) -> list[Part]:
        """What stands in line and can still be written."""
        return [
            write.record
            for change in self.line
            if change.admitted_on is not None
            for write in change.writes
            if isinstance(write.record, Part)
            if write.read_at
            == (known.revision if (known := self.etcd.get(write.record.name)) else 0)
        ]

    @invariant()
    def the_book_is_what_is_written_and_what_stands_in_line(self) -> None:
        view = self.book.view(FLEET, {})
        assert dict(view.parts) == self.etcd
        assert set(view.undecided()) == set(replace(view, open=None).undecided())
        assert (self.book.written, self.book.written_revision) == (
            self.generation,
            self.generation_revision,
        )
        standing = self.reserved()
        expected = replace(
            self.written(),
            parts={
                **self.etcd,
                **{each.name: Versioned(value=each, revision=0) for each in standing},
            },
        )
        ours, anew = calendar_of(view, POLICY), calendar_of(expected, POLICY)
        for hours in range(6):
            start = NOW + hours * HOUR - timedelta(minutes=30)
            window = Window(start, start + HOUR)
            for resource in RESOURCES:
                assert ours.free(resource, window) == anew.free(resource, window)
        taken = {vni: uid for change in self.line for vni, uid in change.vnis}
        assert dict(view.vnis) == {**self.vnis, **taken}


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_what_was_only_read_is_compared_too() -> None:
    held = part("t1")
    book = Book.of(LedgerView(parts={held.name: Versioned(value=held, revision=3)}))
    unchanged = Unchanged(kind=Part, name=held.name, read_at=3)
    assert not book.conflict(Change(unchanged=(unchanged,)))
    assert book.conflict(Change(unchanged=(replace(unchanged, read_at=2),))) == held.name
    assert book.conflict(Change(unchanged=(replace(unchanged, read_at=0),))) == held.name


def test_what_is_given_up_counts_no_more_and_what_is_reserved_goes_with_its_own_change() -> None:
    key, window = "host/n1/vcpus", Window(NOW, NOW + HOUR)
    old = part("t1", spec=part_spec(workspace(vcpus=3)))
    book = Book.of(LedgerView(parts={old.name: Versioned(value=old, revision=1)}))
    less = with_terms(old, part_spec(workspace(vcpus=1)), old.placed)
    book.apply(Change(writes=(Write(record=less, read_at=1),)), 2)
    assert book.demands.peak(key, window) == 3
    book.apply(Change(writes=(Write(record=replace(less, shed=()), read_at=2),)), 3)
    assert book.demands.peak(key, window) == 1

    known = book.parts[old.name].value
    more = with_terms(known, part_spec(workspace(vcpus=2)), old.placed)
    change = Change(writes=(Write(record=more, read_at=3),), admitted_on=book.generation)
    book.reserve(change)
    assert book.demands.peak(key, window) == 2
    book.apply(Change(writes=(Write(record=replace(known, generation=7), read_at=3),)), 4)
    assert book.conflict(change), "it was decided on what is no more"
    assert book.demands.peak(key, window) == 1
    again = Write(record=replace(more, generation=7), read_at=4)
    book.reserve(replace(change, writes=(again,), admitted_on=book.generation))
    book.cancel(change)
    assert book.demands.peak(key, window) == 2, "the second one's is still reserved"
