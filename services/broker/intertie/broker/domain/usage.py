"""What a tenant had reserved: which periods of a part are to be written down, and the chain that
their records make.

A part is reserved from when it is confirmed, and not before its window, until its window is over
or its end was asked for: how long hosts take to clear up after that is the site's own affair. That
time is cut at each midnight, UTC, and where the part was amended, so the periods of a part are the
same whenever they are written.

A part that its site may put aside is reserved from its first stretch to its end: in a stretch all
of its terms, between two the disk that its guests and their memory take.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta

from intertie.broker.domain.account import Account, ChainEntry, UsageHead
from intertie.broker.domain.amounts import amounts_of, fixed_amounts
from intertie.broker.domain.charge import Alike, Charge, PastCharge, Reserved
from intertie.broker.domain.fleet import SeenPart
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import hosts_of
from intertie.broker.domain.price import amount_of, terms_of
from intertie.broker.domain.refunds import owed_at_end
from intertie.broker.domain.used import UsedIn
from intertie.common.intervals import Window
from intertie.common.names import workspace_label
from intertie.common.price import PriceTerm
from intertie.common.quantities import DIMENSIONS, Vector
from intertie.common.refund import RefundItem
from intertie.common.usage_chain import before_first, digest_of, link
from intertie.common.values import Struct, replace

DAY = timedelta(days=1)
LAST_WORD = timedelta(minutes=2)
"""For which hosts are waited for, to tell what a part that is over has used."""


class Usage(Struct, frozen=True, kw_only=True):
    """What is to be a record."""

    number: int
    part: Part
    period: Window
    final: bool
    """It is the part's last."""
    used: tuple[UsedIn, ...] = ()
    price: tuple[PriceTerm, ...] = ()
    refunds: tuple[RefundItem, ...] = ()


def reserved_window(part: Part) -> Window | None:
    """From when to when the part is reserved, as far as it is known; None: not at all, or not yet
    known to be."""
    if part.state not in (PartState.CONFIRMED, PartState.ENDED):
        return None
    begins = part.window.start
    if part.keeping is not None:  # with its first stretch, which is priced as it is reserved
        begins = part.price[0].window.start if part.price else part.create_time
    start = max(begins, part.confirm_time or part.create_time)
    ends = (part.ends, part.end_requested_time, part.end_time)
    end = min(each for each in ends if each is not None)
    return Window(start, end) if start < end else None


def next_period(part: Part, account: Account | None) -> Window | None:
    """The first one that is not written down yet, which may be when it has ended; None: there is
    none any more. What was written stays, should an end be told later that was before it."""
    whole = reserved_window(part)
    if whole is None:
        return None
    start = max(whole.start, account.until) if account else whole.start
    cuts = (*(each.until for each in part.charged), part.window.end)
    amended = (each for each in cuts if each > start)
    end = min(whole.end, _midnight_after(start), *amended)
    return Window(start, end) if start < end else None


def due_of(part: Part, account: Account | None, seen: Mapping[str, SeenPart]) -> datetime | None:
    """When the next period is to be written down: once it has ended; the last one once its hosts
    have nothing of it any more, and so have told what it used, or have had their time to. None
    for as long, too, as what is given back at its end is not on record: no later one has it."""
    period = next_period(part, account)
    if period is None:
        return None
    tells = any(each.used for report in seen.values() for each in report.workspaces)
    if not is_final(part, period):
        return period.end
    if owed_at_end(part) is not None:
        return None
    waits = not part.over and (tells or part.used)
    return period.end + LAST_WORD if waits else period.end


def is_final(part: Part, period: Window) -> bool:
    whole = reserved_window(part)
    return whole is not None and period.end == whole.end


def _midnight_after(moment: datetime) -> datetime:
    return datetime.combine(moment.astimezone(UTC).date() + DAY, time(), tzinfo=UTC)


def charge_during(part: Part, period: Window) -> Charge:
    """By the terms that were in force then."""
    past = (each.charge for each in part.charged if period.end <= each.until)
    now = charge_kept if period.start >= part.window.end else charge_of
    return next(past, None) or now(part)


def charged_until(part: Part, account: Account | None, *, now: datetime) -> tuple[PastCharge, ...]:
    """What is still to be written down by terms that are in force no more, once the part is amended
    now."""
    written = account.until if account else None
    unwritten = tuple(each for each in part.charged if written is None or each.until > written)
    whole = reserved_window(part)
    if whole is None:
        return unwritten
    ends = (written, *(each.until for each in unwritten[-1:]))
    if now <= max((whole.start, *(each for each in ends if each is not None))):
        return unwritten
    return (*unwritten, PastCharge(until=now, charge=charge_of(part)))


def charged_when_on(
    part: Part, account: Account | None, *, now: datetime
) -> tuple[PastCharge, ...]:
    """What is still to be written down of a part that was put aside and goes on now: its stretch,
    and what was kept since."""
    written = account.until if account else None
    over = PastCharge(until=part.window.end, charge=charge_of(part))
    kept = PastCharge(until=now, charge=charge_kept(part))
    charged = (*part.charged, over, kept)
    return tuple(each for each in charged if written is None or each.until > written)


def charge_kept(part: Part) -> Charge:
    """Of its hosts between two stretches: its disks, and as much again as it has memory."""
    alike = tuple(
        replace(each, each=Vector(disk_mib=each.each.disk_mib + each.each.memory_mib))
        for each in _alike(part)
    )
    disk = sum(len(each.indices) * each.each.disk_mib for each in alike)
    return Charge(reserved=Reserved(hosts=Vector(disk_mib=disk), links=()), workspaces=alike)


def charge_of(part: Part) -> Charge:
    """By the terms in force."""
    return Charge(reserved=_reserved(part), workspaces=_alike(part))


def _reserved(part: Part) -> Reserved:
    """As the ledger counts it: by the function that admissions go by."""
    amounts = amounts_of(part.spec, hosts_of(part.placed), part.gateway)
    sums = dict.fromkeys(DIMENSIONS, 0)
    links: dict[str, dict[str, int]] = {}
    for key, amount in amounts.items():
        kind, place, what = key.split("/")
        if kind == "host":
            sums[what] += amount
        else:
            links.setdefault(place, {})[what] = amount
    return Reserved(
        hosts=Vector(**sums),
        links=tuple(
            (peer, each.get("egress", 0), each.get("ingress", 0))
            for peer, each in sorted(links.items())
        ),
    )


def _alike(part: Part) -> tuple[Alike, ...]:
    """The part's workspaces, those of a group that have the same together."""
    found: dict[tuple[str, Vector, str], list[int]] = {}
    for each in part.spec.workspaces:
        has = fixed_amounts(each)
        found.setdefault((each.group, has, each.environment.image), []).append(each.index)
    return tuple(
        Alike(group=group, indices=tuple(indices), each=has, image=image)
        for (group, has, image), indices in found.items()
    )


def price_during(part: Part, period: Window, *, first: bool) -> tuple[PriceTerm, ...]:
    """What a record of the period says of the price: all records together say all of it, that of
    the time before it was confirmed, of what was sent before its window, and of what was left at
    its end too."""
    windows = [each.window for each in part.agreed]
    if not windows:
        return ()
    start = min(period.start, *(each.start for each in windows)) if first else period.start
    end = period.end
    if is_final(part, period):
        end = max(end, *(each.end for each in windows))
    return terms_of(part.agreed, part.path.site, Window(start, end))


def refunds_since(part: Part, account: Account | None, period: Window) -> tuple[RefundItem, ...]:
    """What is not in a record before that of the period. All records together never give back more
    than they say of the price, which may yet become less: what that leaves over is in a later one,
    the last one at the latest, as far as the whole price goes."""
    return tuple(item for item, _ in _refunding(part, account, period) if item is not None)


def refunded(
    part: Part, account: Account | None, period: Window
) -> tuple[tuple[datetime, float], ...]:
    """As an account has it after the record of the period."""
    return tuple(written for _, written in _refunding(part, account, period))


def _refunding(
    part: Part, account: Account | None, period: Window
) -> Iterator[tuple[RefundItem | None, tuple[datetime, float]]]:
    """Of each item, what the record of the period has of it, and what all have with that."""
    before = account.refunded if account else ()
    room = _price_until(part, period) - sum(amount for _, amount in before)
    for number, item in enumerate(part.refunds):
        until, had = before[number] if number < len(before) else (item.window.start, 0.0)
        owed = item.amount - had
        gets = max(min(owed, room), 0.0)
        room -= gets
        longer = until < item.window.end
        window = Window(until, item.window.end) if longer else item.window
        news = longer or gets > 0
        yield (
            replace(item, window=window, amount=gets) if news else None,
            (item.window.end, item.amount if gets == owed else had + gets),
        )


def _price_until(part: Part, period: Window) -> float:
    """What all records say of the price, with that of the period."""
    if not part.agreed or is_final(part, period):
        return amount_of(part.agreed)
    start = min(each.window.start for each in part.agreed)
    return amount_of(part.agreed, Window(start, period.end)) if start < period.end else 0.0


def labels_of(charge: Charge) -> tuple[str, ...]:
    return tuple(
        workspace_label(each.group, index) for each in charge.workspaces for index in each.indices
    )


def chained(
    site: str, head: UsageHead | None, tenants: Sequence[str], bodies: Sequence[bytes]
) -> tuple[ChainEntry, ...]:
    """The entries of records that follow on `head`."""
    number, before = (head.number, head.hash) if head else (0, before_first(site))
    entries = []
    for tenant, body in zip(tenants, bodies, strict=True):
        number, digest = number + 1, digest_of(body)
        before = link(before, number, digest)
        entries.append(ChainEntry(number=number, tenant=tenant, digest=digest, hash=before))
    return tuple(entries)


def settled(part: Part, account: Account | None) -> bool:
    """Nothing of it is left to be written down, now or later: no period, and nothing that is given
    back, of one that ended before its window too."""
    return part.over and owed_at_end(part) is None and next_period(part, account) is None
