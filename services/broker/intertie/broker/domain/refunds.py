"""What of its price the owner of a part is given back: for promises that were not kept while they
were asked for, and for what was left when it ended before its time.

All of it stands on record with the part, so whoever leads goes on from there: one direction of a
promise has one item for a time in which it was below without a break, which grows with it, until
there are as many as a part is to carry: from then on its newest grows with each. An end has one.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from intertie.broker.domain.cluster import CANCELLED, WINDOW_OVER
from intertie.broker.domain.guarantees import guarantees_of
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.price import amount_of
from intertie.broker.domain.refund_policy import RefundPolicy
from intertie.broker.domain.stretch import Stretch
from intertie.common.guarantees import GuaranteeKind, Measured, with_measured
from intertie.common.intervals import Window
from intertie.common.part_spec import PartSpec
from intertie.common.refund import GUARANTEE, RefundItem
from intertie.common.tariff import Rates, hours_of
from intertie.common.values import replace

GROWS_BY = timedelta(seconds=30)
"""An item is not written again for less: what a fail-over can lose of one."""
MOST_OF_ONE = 32
"""Items of one direction."""
MOST_AGAIN = 500
"""Items of a part, from which on no direction gets a second one."""
MOST = 1000
"""Items of promises that a part has at all, some 300 kB: what is too large to be written cannot be
ended either."""


def with_breaches(part: Part, measured: Iterable[Measured], policy: RefundPolicy) -> Part:
    """With what is to be given back by what is measured now; the same part where that is nothing
    new. Who has no price gets nothing back."""
    if part.state is not PartState.CONFIRMED or part.end_requested_time or not part.price:
        return part
    items = list(part.refunds)
    for each in measured:
        _breach(part, items, each, policy)
    return part if tuple(items) == part.refunds else replace(part, refunds=tuple(items))


def _breach(part: Part, items: list[RefundItem], now: Measured, policy: RefundPolicy) -> None:
    since = now.below_since
    if since is None or not now.backlogged or now.at - since < policy.grace:
        return
    start, end = max(since, part.window.start), min(now.at, part.window.end)
    promised = _promised(part.spec, now)
    if start >= end or not promised:
        return
    subject = int(now.kind), now.network, now.source, now.target
    known = _newest(items, subject)
    if len(items) >= MOST and known is None:
        return
    if known is None or (start > items[known].window.end and not _enough(items, subject)):
        item = RefundItem(
            site=part.path.site,
            reason=GUARANTEE,
            kind=int(now.kind),
            network=now.network,
            source=now.source,
            target=now.target,
            window=Window(start, end),
            promised=promised,
            measured=now.value,
            amount=_most(part, items, _worth(part, now.kind, promised, Window(start, end), policy)),
        )
        items.append(item)
        return
    before = items[known]
    if end - before.window.end < GROWS_BY:
        return
    more = Window(max(start, before.window.end), end)
    had, gets = hours_of(before.window), hours_of(more)
    items[known] = replace(
        before,
        window=Window(before.window.start, end),
        promised=promised,
        measured=(before.measured * had + now.value * gets) / (had + gets),
        amount=before.amount + _most(part, items, _worth(part, now.kind, promised, more, policy)),
    )


def _newest(items: Sequence[RefundItem], subject: tuple[int, str, str, str]) -> int | None:
    """Where the newest of that direction is. What began before it ended is more of the same, so no
    moment is in two items."""
    of_it = (n for n, each in enumerate(items) if each.kind and each.subject == subject)
    return max(of_it, default=None)


def _enough(items: Sequence[RefundItem], subject: tuple[int, str, str, str]) -> bool:
    """The newest of that direction grows, over what lies between too, instead of another one."""
    if len(items) >= MOST_AGAIN:
        return True
    return sum(bool(each.kind) and each.subject == subject for each in items) >= MOST_OF_ONE


def _worth(
    part: Part, kind: GuaranteeKind, promised: int, window: Window, policy: RefundPolicy
) -> float:
    """By the rates that were agreed on for the time."""
    return sum(
        hours_of(cut)
        * (policy.factor * promised * _rate(each.rates, kind) + policy.lease_share * each.hour)
        for each in part.price
        if (cut := each.cut(window))
    )


def _rate(rates: Rates, kind: GuaranteeKind) -> float:
    """Of one direction. Each end of a pair is charged by its own site, which measures what that end
    sends; a NIC is promised the same both ways for one price."""
    match kind:
        case GuaranteeKind.PAIR_BANDWIDTH:
            return rates.pair_mbit_s_hour
        case GuaranteeKind.NIC_BANDWIDTH:
            return rates.nic_mbit_s_hour / 2
        case GuaranteeKind.DISK_IOPS:
            return rates.iops_hour
        case GuaranteeKind.DISK_THROUGHPUT:
            return rates.throughput_mib_s_hour
        case GuaranteeKind.LINK_BANDWIDTH:
            return rates.link_mbit_s_hour


def _promised(spec: PartSpec, now: Measured) -> int:
    """0: nothing, by the terms in force."""
    if now.kind is GuaranteeKind.LINK_BANDWIDTH:
        return sum(
            each.egress_mbit_s
            for each in spec.links
            if (each.peer, each.network) == (now.target, now.network)
        )
    told = with_measured(guarantees_of(spec), (now,))
    return next((each.guarantee for each in told if each.measured), 0)


def _most(part: Part, items: Iterable[RefundItem], amount: float) -> float:
    """Never more in all than the price."""
    return min(amount, max(amount_of(part.agreed) - sum(each.amount for each in items), 0.0))


def within_price(refunds: Iterable[RefundItem], price: Iterable[Stretch]) -> tuple[RefundItem, ...]:
    """As they are told: the price may have become less than what had been given back of it, by an
    end that came earlier. What is on record stays, should it become more again."""
    room, told = amount_of(price), []
    for each in refunds:
        gets = min(each.amount, room)
        room -= gets
        told.append(each if gets == each.amount else replace(each, amount=gets))
    return tuple(told)


def owed_at_end(part: Part) -> Window | None:
    """What was left of its window, or of what was to be sent, when its end was asked for or had
    come, as long as that is not on record as given back, or not; None: there is nothing to be
    written down, as of what costs nothing."""
    if part.state not in (PartState.CONFIRMED, PartState.ENDED) or not amount_of(part.agreed):
        return None
    ends = [each for each in (part.end_requested_time, part.end_time) if each is not None]
    if not ends or any(each.reason != GUARANTEE for each in part.refunds):
        return None
    start = max(min(ends), part.window.start)
    unsent = (left.end for each in part.sent if (left := _left_of(part, each)))
    last = max([part.window.end, *unsent])
    return Window(start, last) if start < last else None


def _left_of(part: Part, sent: Stretch) -> Window | None:
    """Of what was to be sent, what was not by its end, before the part's window too."""
    ends = [each for each in (part.end_requested_time, part.end_time) if each is not None]
    start = max(min(ends), sent.window.start)
    return Window(start, sent.window.end) if start < sent.window.end else None


def with_end(part: Part, policy: RefundPolicy) -> Part:
    """With what is given back of the rest. Whatever ends a lease but its owner and its time is the
    site's fault, or at least not its owner's."""
    rest = owed_at_end(part)
    if rest is None:
        return part
    # By an end that its owner has made earlier, what is not sent any more is left over.
    owners = part.end_reason in (CANCELLED, WINDOW_OVER)
    share = policy.cancelled_share if owners else policy.failed_share
    unsent = sum(amount_of((each,), left) for each in part.sent if (left := _left_of(part, each)))
    item = RefundItem(
        site=part.path.site,
        reason=part.end_reason,
        window=rest,
        amount=_most(part, part.refunds, share * (amount_of(part.price, rest) + unsent)),
    )
    return replace(part, refunds=(*part.refunds, item))
