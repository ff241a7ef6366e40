"""What the site could give over a window, and what of its hosts is free now."""

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

from intertie.broker.domain.amounts import link_key
from intertie.broker.domain.counted_as import counted_as
from intertie.broker.domain.fleet import HostFacts, LinkPolicy, Policy
from intertie.broker.domain.ledger import LedgerView, calendar_of, free_hosts, free_vector
from intertie.broker.domain.load import scarcest
from intertie.broker.domain.lost_hosts import HostRecord
from intertie.broker.domain.part import PartState
from intertie.broker.domain.planning import Image
from intertie.broker.domain.preemptible import being_saved, could_give_way, free_from
from intertie.broker.domain.room_paid import asks_for_room, free_together
from intertie.broker.domain.tariff import kind_of
from intertie.common.calendar import Calendar
from intertie.common.errors import NotFound
from intertie.common.intervals import Window, spread
from intertie.common.quantities import Vector
from intertie.common.tariff import Rates
from intertie.common.values import Struct, replace

MAX_WINDOWS = 64
MAX_MOMENTS = 8
"""Of those from which on there could be more."""
INSTANT = timedelta(microseconds=1)
_S = timedelta(seconds=1)
_EPOCH = datetime.fromtimestamp(0, UTC)


class HostOffer(Struct, frozen=True, kw_only=True):
    free: Vector
    hypervisors: tuple[str, ...]
    architecture: str


class LinkFree(Struct, frozen=True, kw_only=True):
    """A link and what of both its halves is free."""

    link: LinkPolicy
    egress_mbit_s: int
    ingress_mbit_s: int


class ImageOffer(Struct, frozen=True, kw_only=True):
    asked: str
    image: Image | None
    """None: not at this site."""


class Offer(Struct, frozen=True, kw_only=True):
    site: str
    window: Window
    hosts: tuple[HostOffer, ...]
    links: tuple[LinkFree, ...]
    images: tuple[ImageOffer, ...]
    rates: Rates
    """Of a lease that is agreed on now and says of no kind that it is."""
    kinds: Mapping[str, Rates]
    """Of kinds that have rates of their own."""
    pricing: str
    site_time: datetime
    default_disk_cap_iops: int = 0
    default_disk_cap_mib_s: int = 0
    room_from: tuple[datetime, ...] = ()
    """Later than the window's start, the earliest first."""
    free_together: Vector | None = None
    """Of all hosts, while nobody gives way; None: nothing is asked for room that others make."""


def offers_of(
    view: LedgerView,
    policy: Policy,
    windows: tuple[Window, ...],
    images: tuple[ImageOffer, ...],
    *,
    now: datetime,
    before_others: bool = False,
) -> tuple[Offer, ...]:
    """One for each window. Promises nothing: only a hold does. `before_others`: as for a lease that
    does not wait, for which others are put aside: who could be saved when a window begins is out of
    its way, and the offer says from when on more would be. Who is over by then stays as it is."""
    calendar = calendar_of(view, policy)

    def offered(window: Window) -> Offer:
        return _offer(view, calendar, policy, window, images, now)

    if not before_others:
        return tuple(map(offered, windows))
    leases = could_give_way(view, policy, now=now)
    free = dict[Window, Vector]()
    if asks_for_room(policy):
        free = {w: free_together(calendar, view, policy, w, now=now) for w in windows}
    moments = (*being_saved(view, now), *(each.free_from for each in leases))
    saved = sorted(set(map(_whole, moments)))
    stay = sorted(leases, key=lambda each: free_from(each.part))
    found: dict[Window, Offer] = {}
    with ExitStack() as aside:
        for window in sorted(windows, key=lambda each: each.start, reverse=True):
            while stay and free_from(stay[-1].part) > window.start:
                each = stay.pop()  # who is being saved is counted until it is
                before, after = {each.part.name: each.part}, {each.part.name: each.after}
                aside.enter_context(counted_as(calendar, before, after, policy.admission))
            later = [moment for moment in saved if moment > window.start]
            found[window] = replace(
                offered(window),
                room_from=spread(later, MAX_MOMENTS),
                free_together=free.get(window),
            )
    return tuple(found[each] for each in windows)


def _whole(moment: datetime) -> datetime:
    """The next whole second."""
    return -(-(moment - _EPOCH) // _S) * _S + _EPOCH


def _offer(
    view: LedgerView,
    calendar: Calendar,
    policy: Policy,
    window: Window,
    images: tuple[ImageOffer, ...],
    now: datetime,
) -> Offer:
    hosts = free_hosts(calendar, view, policy, window, now=now)
    pricing = policy.pricing

    def rates(kind: str) -> Rates:
        return pricing.rates(kind, window, lambda: scarcest(view, policy, hosts))

    return Offer(
        site=policy.site,
        window=window,
        hosts=tuple(
            HostOffer(
                free=free.at_least_zero(),
                hypervisors=view.fleet.facts[host].hypervisors,
                architecture=view.fleet.facts[host].architecture,
            )
            for host, free in hosts.items()
        ),
        links=links_free(calendar, policy, window),
        images=images,
        rates=rates(kind_of(window, now=now)),
        kinds={kind: rates(kind) for kind in pricing.tariff.kinds},
        pricing=pricing.name,
        site_time=now,
        default_disk_cap_iops=policy.default_disk_cap_iops,
        default_disk_cap_mib_s=policy.default_disk_cap_mib_s,
    )


def links_free(calendar: Calendar, policy: Policy, window: Window) -> tuple[LinkFree, ...]:
    return tuple(
        LinkFree(
            link=link,
            egress_mbit_s=max(calendar.free(link_key(link.peer, "egress"), window), 0),
            ingress_mbit_s=max(calendar.free(link_key(link.peer, "ingress"), window), 0),
        )
        for link in policy.links
    )


class HostView(Struct, frozen=True, kw_only=True):
    site: str
    facts: HostFacts
    capacity: Vector
    free: Vector
    alive: bool
    workspaces: int
    record: HostRecord | None = None
    """None: nothing but UP was ever said of it."""


class SiteView(Struct, frozen=True, kw_only=True):
    site: str
    capacity: Vector
    free: Vector
    hosts: int
    hosts_alive: int
    links: tuple[LinkFree, ...]
    ledger_generation: int
    site_time: datetime
    leader: str


def hosts_of(view: LedgerView, policy: Policy, *, now: datetime) -> tuple[HostView, ...]:
    """Every admitted host that has ever reported, with what of it is free at this moment."""
    calendar = calendar_of(view, policy)
    window = Window(now, now + INSTANT)
    on_it = Counter(
        placed.host
        for each in view.parts.values()
        if each.value.state is PartState.CONFIRMED and each.value.window.contains(now)
        for placed in each.value.placed
    )
    return tuple(
        HostView(
            site=policy.site,
            facts=facts,
            capacity=policy.promisable(facts),
            free=free_vector(calendar, facts, policy, window).at_least_zero(),
            alive=facts.alive(now=now),
            workspaces=on_it[facts.host],
            record=record.value if (record := view.hosts.get(facts.host)) else None,
        )
        for facts in view.fleet.members()
    )


def host_named(hosts: tuple[HostView, ...], host: str, name: str) -> HostView:
    for each in hosts:
        if each.facts.host == host:
            return each
    raise NotFound(name)


def site_of(view: LedgerView, policy: Policy, *, leader: str, now: datetime) -> SiteView:
    hosts = hosts_of(view, policy, now=now)
    capacity, free = Vector(), Vector()
    giving = [each for each in hosts if each.alive and each.facts.host not in view.fleet.held]
    for each in giving:
        capacity, free = capacity + each.capacity, free + each.free
    window = Window(now, now + INSTANT)
    return SiteView(
        site=policy.site,
        capacity=capacity,
        free=free,
        hosts=len(policy.hosts),
        hosts_alive=len(giving),
        links=links_free(calendar_of(view, policy), policy, window),
        ledger_generation=view.generation,
        site_time=now,
        leader=leader,
    )
