"""A cluster of this site that stands gets other terms: its difference is placed, no more.

Workspaces that stay keep their addresses, see `other_counts`; and `difference` for where they and
new ones are.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.fewest import GivesWay
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.giving_way import said_of
from intertie.broker.domain.growing import amended_before_others, more_from, more_than_counted
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.other_counts import OtherCounts
from intertie.broker.domain.part import Part
from intertie.broker.domain.planning import (
    as_many_as_fit,
    elsewhere,
    why_not_more,
)
from intertie.broker.domain.price import amended as priced
from intertie.broker.domain.price import amount_of, applied, shortened, with_rooms
from intertie.broker.domain.refusing import check_budget, check_window
from intertie.broker.domain.room_paid import asks_for_room, rooms_of_more
from intertie.broker.domain.usage import charged_until
from intertie.common.amend_rules import (
    DURATION,
    END_TIME,
    GROUPS,
    LAST_MINUTES,
    amended,
    window_of,
)
from intertie.common.calendar import Demand
from intertie.common.errors import AmendPending, ClusterOver, LeaseEnding, NoCapacity
from intertie.common.intervals import Window
from intertie.common.names import ClusterName
from intertie.common.spec import ClusterSpec, Group
from intertie.common.values import Struct, replace


class Amendment(Struct, frozen=True, kw_only=True):
    record: ClusterRecord
    part: Part
    takes_more: bool
    """Of anything at any moment to come."""


def check_open(record: ClusterRecord, *, now: datetime) -> None:
    """ClusterOver where there is nothing left to change."""
    past = record.waits is None and now >= record.window.end
    if record.over or record.end_requested_time is not None or past:
        raise ClusterOver(record.name)


def amend(
    record: ClusterRecord,
    part: Part,
    asked: ClusterSpec,
    paths: Sequence[str],
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
) -> Amendment | None:
    """The cluster and its part with new terms; None where they are those in force.

    FieldInvalid for what may not be asked for, NoCapacity for what is not there, LeaseEnding where
    it is too late for more. A group whose range was changed gets as many as fit; of others, none
    comes or goes.
    """
    spec = amended(record.spec, asked, paths, record.window, now=now)
    if spec == record.spec:
        return None
    if part.moving:
        raise AmendPending(record.name)
    if shortfall := elsewhere(spec, policy.site):
        raise NoCapacity((shortfall,))
    window = window_of(spec.lease, record.window)
    if window.end > record.window.end:
        check_window(window, policy, ClusterName.parse(record.name).tenant, now=now)
    at = OtherCounts(record, part, spec, window, view, policy, now)
    had = dict(record.counts)
    kept = {
        old.name: had[old.name] if _range(old) == _range(new) else _within(new, had[old.name])
        for old, new in zip(record.spec.groups, spec.groups, strict=True)
    }
    bounds = replace(
        spec,
        groups=tuple(
            replace(new, count=had[new.name]) if _range(old) == _range(new) else new
            for old, new in zip(record.spec.groups, spec.groups, strict=True)
        ),
    )
    counts, found, short = as_many_as_fit(bounds, kept, at(kept), at)
    if found.takes_more and record.window.end - now < LAST_MINUTES:
        raise LeaseEnding(record.name, record.window.end.isoformat(timespec="seconds"))
    found_account = view.accounts.get(part.name)
    account = found_account.value if found_account else None
    asked_for = priced(part.price, part.spec, found.part.spec, view, policy, now=now)
    price = shortened(asked_for, account)
    after = replace(
        record,
        spec=spec,
        window=found.part.window,
        counts=tuple(counts.items()),
        cost=amount_of(price),
        reasons=(f"{policy.site} has room for all of it", *why_not_more(spec, counts)),
        shortfalls=short,
        terms=record.terms + 1,
    )
    charged = charged_until(part, account, now=now)
    return Amendment(
        record=after,
        part=replace(found.part, charged=charged, price=price),
        takes_more=found.takes_more,
    )


def amend_before_others(
    record: ClusterRecord,
    part: Part,
    asked: ClusterSpec,
    paths: Sequence[str],
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
    alone: bool = True,
) -> tuple[Amendment | None, tuple[GivesWay, ...]]:
    """As `amend`, and who gives way for it, see `amended_before_others`."""

    def amendment(view: LedgerView) -> Amendment | None:
        return amend(record, part, asked, paths, view, policy, now=now)

    moments = more_from(
        record.window,
        longer=END_TIME in paths or DURATION in paths,
        larger=GROUPS in paths,
        now=now,
    )

    def takes(found: Amendment | None) -> Iterable[Demand]:
        return more_than_counted(part, found.part if found else part, policy, now=now)

    after, aside = amended_before_others(
        amendment, moments, view, policy, takes=takes, now=now, alone=alone
    )
    if after is None:
        return None, ()
    if aside:
        reasons = (*after.record.reasons, *said_of(aside))
        after = replace(after, record=replace(after.record, reasons=reasons))
        after = _with_room_paid(after, part, view, policy, now=now)
    # Not while room is looked for: nobody gives way for somebody else's budget.
    check_budget(after.record.spec, after.part.price, policy.site)
    return after, aside


def _with_room_paid(
    after: Amendment, part: Part, view: LedgerView, policy: Policy, *, now: datetime
) -> Amendment:
    """At what is asked for the room that others make as well."""
    if not asks_for_room(policy):
        return after
    spec, last = after.part.spec, after.part.price[-1]
    rest = replace(last, window=Window(max(spec.window.start, now), spec.window.end))
    rooms = rooms_of_more(part.price, part.spec, spec, view, policy, now=now)
    asked = with_rooms((rest,), spec, rooms)
    known = view.accounts.get(part.name)
    account = known.value if known else None
    price = shortened(applied(part.price, spec, asked, now=now), account)
    return replace(
        after,
        record=replace(after.record, cost=amount_of(price)),
        part=replace(after.part, price=price),
    )


def _range(group: Group) -> tuple[int, int]:
    return group.fewest, group.most


def _within(group: Group, count: int) -> int:
    return min(max(count, group.fewest), group.most)
