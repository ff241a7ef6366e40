"""Bugs that are planted, one at a time, to see that the checker finds them.

Each takes away one thing that the product relies on, from outside: no product code knows of them.
What two mechanisms hold together is planted as what is left when both are gone; it says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

import intertie.broker.domain.archiving as archiving
import intertie.broker.domain.beginning as beginning
import intertie.broker.domain.book as book
import intertie.broker.domain.demands as demands
import intertie.broker.domain.difference as difference
import intertie.broker.domain.fewest as fewest
import intertie.broker.domain.giving_way as giving_way
import intertie.broker.domain.ledger as ledger
import intertie.broker.domain.malleable as malleable
import intertie.broker.domain.part as part_module
import intertie.broker.domain.preemptible as preemptible
import intertie.broker.domain.renegotiating as renegotiating
import intertie.broker.domain.resizing as resizing
import intertie.broker.loops.retention as retention
import intertie.broker.main as broker_main
import intertie.broker.usecases.hold_amend as hold_amend
import intertie.metasched.usecases.planning as planning
import intertie.nodeagent.loops.guest_looks as guest_looks
import intertie.nodeagent.loops.knowledge as knowledge
import intertie.nodeagent.loops.report as report
from intertie.broker.adapters import keys
from intertie.broker.adapters.etcd_ledger import EtcdLedger
from intertie.broker.domain.admission_policy import AdmissionPolicy
from intertie.broker.domain.cluster import ClusterState
from intertie.broker.domain.decision import Decision, Outcome
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.keeping import Keeping
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import NEXT, Part, PartState
from intertie.broker.domain.planning import as_many_as_fit
from intertie.broker.domain.records import Change, RequestKey, RequestRecord, Write
from intertie.broker.domain.running import Running
from intertie.broker.loops.in_doubt import InDoubt
from intertie.broker.usecases.admission import Admission, Decide
from intertie.common.actions import Power
from intertie.common.calendar import Calendar, Demand
from intertie.common.errors import EtcdUnavailable
from intertie.common.etcd.client import Compare, Entry, Op, Snapshot, TxnResult
from intertie.common.intervals import Window
from intertie.common.part_spec import Recallable
from intertie.common.spec import ClusterSpec, LeaseTerms
from intertie.common.values import replace as replace_record
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.room_made import windows_with_room_made
from intertie.nodeagent.domain.power import Memory
from intertie.nodeagent.domain.reconcile import (
    DomainState,
    KnownPart,
    Listing,
    Observed,
    Phase,
    Step,
)
from intertie.nodeagent.domain.reconcile import steps as agent_steps
from intertie.nodeagent.loops.moving_memory import MovingMemory
from tests.sim.etcd_client import ModelClient
from tests.sim.hosts import Hypervisor
from tests.sim.record import Profile

Plant = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Bug:
    plant: Plant
    shows: str
    """A piece of what the checker says of it."""
    seed: int = 0
    """The first that it is looked for with: one that finds it, of those below `within`, so that it
    takes no longer than it must. Which do is said where fewer than half of them do."""
    within: int = 12
    """Seeds."""
    profile: Callable[[Profile], Profile] = lambda profile: profile
    """A world in which what it takes happens more often."""


def _without(drop: Callable[[Compare], bool]) -> Plant:
    """Transactions lose what they compare on the way to etcd."""
    whole = ModelClient.txn

    async def txn(self: ModelClient, compare: Sequence[Compare], then: Sequence[Op]) -> TxnResult:
        return await whole(self, [each for each in compare if not drop(each)], then)

    return lambda: mock.patch.object(ModelClient, "txn", txn)


@contextmanager
def _retried_blindly() -> Iterator[None]:
    """A transaction whose answer was lost is sent again, without what it compared."""
    whole = ModelClient.txn

    async def txn(self: ModelClient, compare: Sequence[Compare], then: Sequence[Op]) -> TxnResult:
        try:
            return await whole(self, compare, then)
        except EtcdUnavailable:
            return await whole(self, (), then)

    with mock.patch.object(ModelClient, "txn", txn):
        yield


@contextmanager
def _prepared_expires() -> Iterator[None]:
    whole = Part.expired

    def expired(self: Part, *, now: datetime) -> bool:
        if self.state is PartState.PREPARED:
            return now >= self.create_time + timedelta(seconds=8)
        return whole(self, now=now)

    edges = {PartState.PREPARED: NEXT[PartState.PREPARED] | {PartState.EXPIRED}}
    with mock.patch.object(Part, "expired", expired), mock.patch.dict(part_module.NEXT, edges):
        yield


@contextmanager
def _tombstone_early() -> Iterator[None]:
    with ExitStack() as stack:
        for module in (retention, archiving):
            stack.enter_context(mock.patch.object(module, "KEPT", timedelta(seconds=5)))
        stack.enter_context(mock.patch.object(broker_main, "RETENTION_S", 2.0))
        yield


@contextmanager
def _record_apart() -> Iterator[None]:
    """The part first, and that its request was answered in a second transaction."""

    async def attempt(self: Any, request: RequestKey, decide: Decide) -> RequestRecord:
        view = await self._ledger.view()
        before = view.requests.get((request.caller, request.request_id))
        now = self._clock.now()
        if before is not None and before.value.answers(request, now=now):
            known: RequestRecord = before.value
            return known
        admitted = decide(view, now)
        await self._ledger.submit(admitted.change)
        record = RequestRecord.of(request, answer=admitted.answer, uid=admitted.uid, now=now)
        write = Write(record=record, read_at=before.revision if before else 0)
        await self._ledger.commit(Change(writes=(write,)))
        return record

    with mock.patch.object(Admission, "_attempt", attempt):
        yield


def _on_totals() -> AbstractContextManager[Any]:
    """What a host has counts, and not what others have of it."""

    def peaks(self: Calendar, resources: tuple[str, ...], window: Window) -> tuple[int, ...]:
        return (0,) * len(resources)

    return mock.patch.object(Calendar, "peaks", peaks)


@contextmanager
def _ends_early() -> Iterator[None]:
    """A second too little at the end of every window."""
    whole = demands.demands_of

    def demands_of(part: Part, admission: AdmissionPolicy) -> tuple[Demand, ...]:
        *before, last = whole(part, admission)
        window = Window(last.window.start, last.window.end - timedelta(seconds=1))
        return (*before, Demand(last.key, window, last.amounts))

    with (
        mock.patch.object(book, "demands_of", demands_of),
        mock.patch.object(ledger, "demands_of", demands_of),
    ):
        yield


def _in_force_at_hold() -> AbstractContextManager[Any]:
    """A site gives the old terms up as soon as new ones are held, which may never be committed."""
    whole = renegotiating.held

    def held(*given: Any, now: datetime) -> Part:
        part = whole(*given, now=now)
        assert part.amend is not None
        return replace_record(part, spec=part.amend.spec, placed=part.amend.placed)

    return mock.patch.object(hold_amend, "held", held)


@contextmanager
def _given_up_at_commit() -> Iterator[None]:
    """What other terms give up is free when they are in force, and not when hosts have obeyed."""
    whole = difference.with_terms

    def with_terms(*given: Any, **more: Any) -> Part:
        return replace_record(whole(*given, **more), shed=())

    with (
        mock.patch.object(difference, "with_terms", with_terms),
        mock.patch.object(renegotiating, "with_terms", with_terms),
    ):
        yield


@contextmanager
def _begins_before_saved() -> Iterator[None]:
    """What gives way is counted until its window's end, and not until it is saved."""
    whole = demands.stretch_demands

    def stretch_demands(part: Part, keeping: Keeping, admission: AdmissionPolicy) -> Any:
        first, *rest = whole(part, keeping, admission)
        if keeping.until is not None and part.window.duration:
            first = Demand(first.key, part.window, first.amounts)
        return (first, *rest)

    with (
        mock.patch.object(demands, "stretch_demands", stretch_demands),
        mock.patch.object(fewest, "free_from", lambda part: part.window.end),
        mock.patch.object(preemptible, "free_from", lambda part: part.window.end),
    ):
        yield


def _moves_named_starts() -> AbstractContextManager[Any]:
    """A lease that names its start is put off until others are saved, as one that does not."""
    whole = windows_with_room_made

    def windows(problem: Problem, lease: LeaseTerms, **given: Any) -> tuple[Window, ...]:
        return whole(problem, replace_record(lease, start_time=None), **given)

    return mock.patch.object(planning, "windows_with_room_made", windows)


@contextmanager
def _left_with_fewer_at_once() -> Iterator[None]:
    """What a malleable lease gives up for others is theirs when it is decided, and not when its
    hosts have had the time to end it."""
    with ExitStack() as stack:
        for module in (difference, giving_way, resizing):
            stack.enter_context(mock.patch.object(module, "GIVEN_UP_WITHIN", timedelta()))
        yield


@contextmanager
def _more_than_it_may() -> Iterator[None]:
    """A best-effort lease gets all that there is room for, whatever it wants at most."""
    whole = as_many_as_fit

    def most(spec: ClusterSpec, *given: Any) -> Any:
        groups = tuple(
            replace_record(each, count=0, min_count=each.fewest, max_count=each.most + 2)
            for each in spec.groups
        )
        return whole(replace_record(spec, groups=groups), *given)

    def more_for(
        running: Sequence[Running], view: LedgerView, policy: Policy, *, now: datetime
    ) -> list[Running]:
        return [
            each
            for each in running
            if malleable._may_be_resized(each, now=now)
            and each[0].value.state is ClusterState.ACTIVE
            and not each[1].shed
        ]

    with (
        mock.patch.object(malleable, "as_many_as_fit", most),
        mock.patch.object(resizing, "more_for", more_for),
    ):
        yield


@contextmanager
def _promised_uncounted() -> Iterator[None]:
    """What is promised to a lease over several sites counts only once it was put aside."""
    whole = demands.stretch_demands

    def stretch_demands(part: Part, keeping: Keeping, admission: AdmissionPolicy) -> Any:
        if keeping.until is None:
            keeping = replace_record(keeping, promised=None)
        return whole(part, keeping, admission)

    with mock.patch.object(demands, "stretch_demands", stretch_demands):
        yield


def _recalled_unpromised() -> AbstractContextManager[Any]:
    """A site puts aside what has a deadline, whether or not anything is promised to it."""
    return mock.patch.object(Recallable, "may_be_put_aside", True)


def _goes_on_unsaved() -> AbstractContextManager[Any]:
    """Nobody is asked whether what a lease had in memory is saved before it goes on."""
    return mock.patch.object(beginning, "is_saved", return_value=True)


@contextmanager
def _overlapping() -> Iterator[None]:
    """A guest that is to go on does so while its memory is still being saved: its agent lets it,
    and so does libvirtd, which would refuse."""
    whole = agent_steps

    def steps(phase: Phase, seen: Observed, *given: Any, **also: Any) -> tuple[Step, ...]:
        _, switched, *_ = given
        saving = seen.domain is DomainState.PAUSED and seen.memory is Memory.SAVING
        if saving and phase is Phase.RUN and switched.power is Power.ON:
            return (Step.RESUME,)
        return whole(phase, seen, *given, **also)

    with (
        mock.patch.object(guest_looks, "steps", steps),
        mock.patch.object(MovingMemory, "moving", return_value={}),
        mock.patch.object(Hypervisor, "_free"),
    ):
        yield


def _acts_twice() -> AbstractContextManager[Any]:
    """A request that switches a workspace is not known again when it comes again."""
    whole = RequestRecord.answers

    def answers(self: RequestRecord, key: RequestKey, *, now: datetime) -> bool:
        again = key.request_id.startswith(("a-", "act-"))
        return not again and whole(self, key, now=now)

    return mock.patch.object(RequestRecord, "answers", answers)


@contextmanager
def _stale_generation() -> Iterator[None]:
    """An agent obeys whatever it reads, from a member of etcd that may be behind."""
    whole = ModelClient.range

    async def range_(self: ModelClient, prefix: str, *, without: tuple[str, ...] = ()) -> Snapshot:
        found = await whole(self, prefix, without=without)
        process, store = self._process, self.store
        if process is None or not prefix.startswith("wanted/") or process.random.random() > 0.3:
            return found
        behind = max(found.revision - process.random.randrange(1, 30), 1)
        entries: list[Entry] = []
        for key in sorted(each for each in store._versions if each.startswith(prefix)):
            if (entry := store._at(key, behind)) is not None:
                entries.append(entry)
        return Snapshot(entries=tuple(entries), revision=behind)

    def merge(known: Mapping[str, KnownPart], listing: Listing) -> dict[str, KnownPart]:
        listed = {part.uid: part for part in listing.parts}
        merged = {uid: replace(part, present=False) for uid, part in known.items()}
        for uid, part in listed.items():
            before = known.get(uid, KnownPart(wanted=part))
            merged[uid] = replace(before, wanted=part, present=True)
        return merged

    with (
        mock.patch.object(ModelClient, "range", range_),
        mock.patch.object(knowledge, "merge", merge),
    ):
        yield


@contextmanager
def _no_relist() -> Iterator[None]:
    """Neither does a broker compare what it knows of agents with what there is, nor do agents
    write again what they have written: either heals the other's lack."""

    async def never(self: EtcdLedger) -> None:
        await asyncio.Event().wait()

    with (
        mock.patch.object(EtcdLedger, "_relist", never),
        mock.patch.object(report, "_ALL_S", 1e9),
    ):
        yield


def _decides_alone() -> AbstractContextManager[Any]:
    """A site that is left in doubt does not ask the register, and takes it for an ABORT."""

    async def ask(self: Any, part: Part, tx: str) -> None:
        decision = Decision(tx=tx, outcome=Outcome.ABORT)
        await self._resolve.read_from_register(part.path, decision)

    return mock.patch.object(InDoubt, "_ask", ask)


def _slow(profile: Profile) -> Profile:
    """etcd answers late, and often not at all."""
    return replace(profile, late=0.15, lost=0.03)


def _late(profile: Profile) -> Profile:
    """Many transactions come to etcd when nobody waits for them any more."""
    return replace(
        profile, late=0.3, calls_per_user=96, trouble_s=60.0, stays=0.0, waits=0.0, switched=0.0,
        hosts_lost=0.0,
    )  # fmt: skip


def _waiting(profile: Profile) -> Profile:
    """Many wait for room, and give way."""
    return replace(profile, waits=0.6)


def _switching(profile: Profile) -> Profile:
    """Owners switch workspaces all the time."""
    return replace(profile, switched=0.8)


def _deaf(profile: Profile) -> Profile:
    return replace(profile, event_lost=0.6)


BUGS: dict[str, Bug] = {
    "generation-not-compared": Bug(
        _without(lambda each: each.key == keys.GENERATION), "is promised", seed=28, profile=_late
    ),
    "election-key-not-compared": Bug(
        _without(lambda each: each.key.startswith("election/") and each.number > 0), "leads"
    ),
    "prepared-part-expires": Bug(_prepared_expires, "went from PREPARED to EXPIRED", seed=6),
    "tombstone-dropped-early": Bug(_tombstone_early, "tombstone"),
    "site-in-doubt-decides-alone": Bug(_decides_alone, "let go alone", seed=3, profile=_late),
    "txn-retried-blindly": Bug(_retried_blindly, "leads", profile=_slow),
    "idempotency-record-apart": Bug(_record_apart, "were made for"),
    "decision-written-blindly": Bug(
        _without(lambda each: each.key.startswith("decision/")),
        " was COMMIT, and is ABORT",
        seed=1,
        profile=_slow,
    ),
    "hold-admitted-on-totals": Bug(_on_totals, "is promised"),
    "stale-generation-obeyed": Bug(_stale_generation, "obeys generation"),
    "old-terms-given-up-at-hold": Bug(_in_force_at_hold, "under the same number", seed=1),
    "old-terms-given-up-at-commit": Bug(_given_up_at_commit, "given up before its hosts"),
    "begun-before-others-are-saved": Bug(_begins_before_saved, "is promised", profile=_waiting),
    "named-start-moved-for-others": Bug(
        _moves_named_starts, "is to begin at", seed=1, profile=_waiting
    ),
    "left-with-fewer-at-once": Bug(_left_with_fewer_at_once, "is free at once", profile=_waiting),
    "more-than-it-wants-at-most": Bug(_more_than_it_may, " has [0, 1", profile=_waiting),
    "goes-on-before-it-is-saved": Bug(
        _goes_on_unsaved, "goes on before", seed=12, profile=_waiting
    ),
    "promised-and-not-counted": Bug(_promised_uncounted, "is promised", seed=1, profile=_waiting),
    "put-aside-without-a-promise": Bug(
        _recalled_unpromised, "is promised nothing", profile=_waiting
    ),
    "suspend-and-resume-overlap": Bug(_overlapping, "it is being saved", profile=_switching),
    "action-counted-twice": Bug(_acts_twice, "starts anew", seed=27, profile=_switching),
    "window-ends-a-second-early": Bug(_ends_early, "is promised", seed=1),
    "lost-event-no-relist": Bug(_no_relist, "after its end", profile=_deaf),
}
