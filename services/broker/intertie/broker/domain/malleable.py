"""Best-effort leases of this site that have as many workspaces as there is room for, between the
least and the most of each group: what they are with more, or with fewer, while they run.

Either is other terms for a part that stands, as an Update's are: workspaces that stay keep hosts
and addresses, and those with the highest indices go.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import takewhile

from intertie.broker.domain.cluster import ClusterRecord, ClusterState
from intertie.broker.domain.difference import Found
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.other_counts import OtherCounts
from intertie.broker.domain.pace import paces_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.planning import as_many_as_fit, why_not_more
from intertie.broker.domain.price import amount_of, at_agreed_rates, shortened
from intertie.broker.domain.running import Running, chosen
from intertie.broker.domain.snapshots import under_way
from intertie.broker.domain.stretches import GIVEN_UP_WITHIN, may_give_way, save_of
from intertie.broker.domain.usage import charged_until
from intertie.common.errors import NoCapacity
from intertie.common.intervals import Window
from intertie.common.names import workspace_label
from intertie.common.spec import Kind
from intertie.common.values import Struct, replace


class Resized(Struct, frozen=True, kw_only=True):
    record: ClusterRecord
    part: Part


class FewerOf:
    """One lease that can do with fewer workspaces, down to the least of each group; one of which an
    image is being made stays."""

    def __init__(
        self,
        record: Versioned[ClusterRecord],
        part: Part,
        view: LedgerView,
        policy: Policy,
        now: datetime,
    ) -> None:
        self.record = record
        self.part = part
        self._to_spare = _to_spare(record.value, part, view)
        self.most = sum(self._to_spare.values())
        """Workspaces that it can do without."""
        self._view = view
        self._policy = policy
        self._now = now
        self._at: OtherCounts | None = None
        """Made when it is asked: mostly few of many are."""

    def without(self, number: int) -> Resized:
        """So many of them, of the last group first, as the first got the most."""
        counts, left = dict(self.record.value.counts), number
        for group in reversed(self.record.value.spec.groups):
            goes = min(self._to_spare[group.name], left)
            counts[group.name] -= goes
            left -= goes
        return self.left_with(counts, f"left with {number} fewer, for others")

    def left_with(self, counts: Mapping[str, int], why: str) -> Resized:
        record = self.record.value
        if self._at is None:
            self._at = _other_counts(record, self.part, self._view, self._policy, self._now)
        found = self._at(counts)
        reasons = (why, *why_not_more(record.spec, counts))
        return _resized(record, self.part, counts, found, reasons, self._view, now=self._now)


def fewer_of(
    running: Sequence[Running], view: LedgerView, policy: Policy, *, now: datetime
) -> Iterator[FewerOf]:
    """Those of them that are left with fewer before anybody is put aside, in the policy's order."""
    may = [
        (record, part)
        for record, part in running
        if _may_have_fewer((record, part), now=now)
        and any(_to_spare(record.value, part, view).values())
    ]
    for record, part in chosen(may, policy.queue.resizing.for_others, view, policy, now):
        yield FewerOf(record, part, view, policy, now)


def without_failed(
    record: Versioned[ClusterRecord],
    part: Part,
    failed: Collection[str],
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
) -> Resized | None:
    """It goes on without those workspaces, and those of higher indices, where it wants no more than
    the others: what it has got in addition does not end it. What the policy says is of those
    that are left with fewer for others. None where it wants them."""
    counts = _counts_without(record.value, failed)
    if counts is None or not _may_have_fewer((record, part), now=now):
        return None
    fewer = FewerOf(record, part, view, policy, now)
    return fewer.left_with(counts, f"goes on without what failed: {', '.join(sorted(failed))}")


def waits_to_do_without(record: ClusterRecord, part: Part, failed: Collection[str]) -> bool:
    """It goes on without those, but not before all of it is at one host each."""
    return (
        _is_malleable(record, part)
        and _is_between_hosts(part)
        and _counts_without(record, failed) is not None
    )


def _counts_without(record: ClusterRecord, failed: Collection[str]) -> dict[str, int] | None:
    counts = dict(record.counts)
    for group in record.spec.groups:
        labels = (workspace_label(group.name, index) for index in range(counts[group.name]))
        counts[group.name] = sum(1 for _ in takewhile(lambda each: each not in failed, labels))
        if counts[group.name] < group.fewest:
            return None
    return counts


def more_for(
    running: Sequence[Running], view: LedgerView, policy: Policy, *, now: datetime
) -> Iterator[Running]:
    """Those of them that get more where there is room, in the policy's order: that run to their
    end, have been all there, and have not been resized a moment ago."""
    may = [each for each in running if _may_have_more(each, policy, now=now)]
    yield from chosen(may, policy.queue.resizing.for_more, view, policy, now)


def grown(
    record: ClusterRecord, part: Part, view: LedgerView, policy: Policy, *, now: datetime
) -> Resized | None:
    """With as many more as there is room for until it ends; None where that is none."""
    at = _other_counts(record, part, view, policy, now)
    had = dict(record.counts)
    try:
        counts, found, short = as_many_as_fit(record.spec, had, at(had), at)
    except NoCapacity:
        return None  # a host of it has less than was promised on it
    if counts == had:
        return None
    reasons = (f"{policy.site} has room for more of it", *why_not_more(record.spec, counts))
    after = _resized(record, part, counts, found, reasons, view, now=now)
    assert after.part.keeping is not None
    save = save_of(after.part, record, paces_of(view, policy))
    keeping = replace(after.part.keeping, save=save)
    return Resized(
        record=replace(after.record, shortfalls=short), part=replace(after.part, keeping=keeping)
    )


def _resized(
    record: ClusterRecord,
    part: Part,
    counts: Mapping[str, int],
    found: Found,
    reasons: tuple[str, ...],
    view: LedgerView,
    *,
    now: datetime,
) -> Resized:
    """Its owner has not asked for it now, so the price of each is what was agreed on when the
    stretch began."""
    assert record.waits is not None
    assert part.keeping is not None
    known = view.accounts.get(part.name)
    account = known.value if known is not None else None
    price, runs_from = part.price, part.window.start + part.keeping.restore
    if runs_from < part.window.end:
        priced = replace(found.part.spec, window=Window(runs_from, part.window.end))
        price = shortened(at_agreed_rates(price, part.spec, priced, now=now), account)
    after = replace(found.part, price=price, charged=charged_until(part, account, now=now))
    return Resized(
        record=replace(
            record,
            counts=tuple(counts.items()),
            cost=record.cost if part.keeping.until else amount_of(price),
            reasons=reasons,
            shortfalls=(),
            terms=after.terms,
            waits=replace(record.waits, resized=now),
        ),
        part=after,
    )


def _other_counts(
    record: ClusterRecord, part: Part, view: LedgerView, policy: Policy, now: datetime
) -> OtherCounts:
    return OtherCounts(record, part, record.spec, part.window, view, policy, now)


def _may_be_resized(running: Running, *, now: datetime) -> bool:
    record, part = running[0].value, running[1]
    return (
        _is_malleable(record, part)
        and record.end_requested_time is None
        and not _is_between_hosts(part)
        and part.window.start <= now
        and may_give_way(part, now=now)
    )


def _may_have_fewer(running: Running, *, now: datetime) -> bool:
    """It is not over before it could have given them up."""
    return _may_be_resized(running, now=now) and running[1].window.end > now + GIVEN_UP_WITHIN


def _is_malleable(record: ClusterRecord, part: Part) -> bool:
    return record.spec.lease.kind is Kind.BEST_EFFORT and not part.coordinator


def _is_between_hosts(part: Part) -> bool:
    return bool(part.moving or part.left) or part.vacating is not None


def _to_spare(record: ClusterRecord, part: Part, view: LedgerView) -> dict[str, int]:
    """Of each group."""
    least = {each.name: each.fewest for each in record.spec.groups}
    copied = under_way(part, view.seen.get(part.uid, {}))
    for each in part.spec.workspaces:
        if each.label in copied:
            least[each.group] = max(least[each.group], each.index + 1)
    return {group: count - least[group] for group, count in record.counts}


def _may_have_more(running: Running, policy: Policy, *, now: datetime) -> bool:
    record, part = running[0].value, running[1]
    if not _may_be_resized(running, now=now) or record.state is not ClusterState.ACTIVE:
        return False
    assert record.waits is not None
    assert part.keeping is not None
    rests = record.waits.resized is not None and (
        now < record.waits.resized + policy.queue.resize_pause
    )
    if rests or part.shed or part.keeping.until is not None:
        return False
    counts = dict(record.counts)
    wants = any(counts[each.name] < each.most for each in record.spec.groups)
    return wants and part.window.end - now > policy.queue.worth
