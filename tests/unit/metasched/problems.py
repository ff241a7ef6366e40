"""Small problems for the planner, with one thing said where it matters and defaults elsewhere."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from intertie.common.intervals import Window
from intertie.common.quantities import Vector
from intertie.common.spec import AffinityKind
from intertie.common.tariff import Rates
from intertie.common.values import replace
from intertie.metasched.domain.problem import (
    Affinity,
    GroupNeed,
    HostRoom,
    ImageFound,
    LinkRoom,
    Offer,
    Problem,
    Promise,
    Site,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DIGEST = "b3:" + "1" * 64
OTHER_DIGEST = "b3:" + "2" * 64
IMAGES = {"guest": ImageFound(digest=DIGEST, virtual_mib=64)}


def window(slot: int = 0) -> Window:
    start = NOW + timedelta(minutes=5 * slot)
    return Window(start, start + timedelta(hours=1))


def room(vcpus: int, **others: Any) -> HostRoom:
    """A host that is short of vCPUs first."""
    amounts = {
        "memory_mib": 65536,
        "disk_mib": 65536,
        "iops": 10000,
        "throughput_mib_s": 10000,
        "uplink_mbit_s": 10000,
    }
    given = {name: value for name, value in others.items() if name in amounts}
    rest = {name: value for name, value in others.items() if name not in amounts}
    return HostRoom(
        free=Vector(vcpus=vcpus, **{**amounts, **given}),
        hypervisors=rest.pop("hypervisors", frozenset({"qemu"})),
        **rest,
    )


def link(mbit_s: int = 100, ms: float = 5, ingress: int | None = None) -> LinkRoom:
    return LinkRoom(
        egress_mbit_s=mbit_s,
        ingress_mbit_s=mbit_s if ingress is None else ingress,
        latency=timedelta(milliseconds=ms),
    )


def offer(
    *hosts: HostRoom | int,
    links: Mapping[str, LinkRoom] | None = None,
    images: Mapping[str, ImageFound] = IMAGES,
    price: float = 0.0,
) -> Offer:
    return Offer(
        hosts=tuple(room(each) if isinstance(each, int) else each for each in hosts),
        links=links or {},
        images=images,
        rates=Rates(vcpu_hour=price),
    )


def group(
    name: str = "worker", fewest: int = 1, most: int = 0, vcpus: int = 1, **more: Any
) -> GroupNeed:
    need = Vector(vcpus=vcpus, memory_mib=256, disk_mib=512)
    return GroupNeed(
        name=name,
        fewest=fewest,
        most=most or fewest,
        need=more.pop("need", need),
        image=more.pop("image", "guest"),
        architecture="x86_64",
        hypervisor=more.pop("hypervisor", "any"),
        networks=more.pop("networks", ("lan",)),
        **more,
    )


def apart(*groups: str, field: str = "apart") -> Affinity:
    return Affinity(groups=groups, kind=AffinityKind.APART, field=field)


def together(*groups: str, field: str = "together") -> Affinity:
    return Affinity(groups=groups, kind=AffinityKind.TOGETHER, field=field)


def promise(a: str, b: str, mbit_s: int) -> Promise:
    return Promise(a=a, b=b, network="lan", mbit_s=mbit_s)


def linked(sites: Mapping[str, Offer | Sequence[Offer]], room_of: LinkRoom) -> dict[str, Any]:
    """The same sites, each with a like link to every other."""
    return {
        name: [
            replace(each, links={peer: room_of for peer in sites if peer != name})
            for each in _listed(offers)
        ]
        for name, offers in sites.items()
    }


def chained(
    links: Mapping[tuple[str, str], LinkRoom], offers: Mapping[str, Offer]
) -> dict[str, Offer]:
    """The sites with these links, the same from both ends."""
    found = dict(offers)
    for (one, two), room_of in links.items():
        for here, there in ((one, two), (two, one)):
            found[here] = replace(found[here], links={**found[here].links, there: room_of})
    return found


def forwarding(given: Problem, *names: str) -> Problem:
    """The same, but that these sites forward what others send."""
    sites = (replace(site, forwards=site.name in names) for site in given.sites)
    return replace(given, sites=tuple(sites))


def problem(
    groups: Sequence[GroupNeed], sites: Mapping[str, Offer | Sequence[Offer]], **more: Any
) -> Problem:
    """Sites are given by one offer a candidate window."""
    offers = {name: _listed(each) for name, each in sites.items()}
    slots = len(next(iter(offers.values())))
    return Problem(
        groups=tuple(groups),
        sites=tuple(Site(name=name, offers=each) for name, each in offers.items()),
        windows=tuple(window(slot) for slot in range(slots)),
        **more,
    )


def _listed(offers: Offer | Sequence[Offer]) -> tuple[Offer, ...]:
    return (offers,) if isinstance(offers, Offer) else tuple(offers)


def three_a_host(hosts: int = 10) -> Problem:
    """Workspaces of which three fill a host, at two sites, and one too few of the threes come out
    even: nobody knows that without trying, for about as long as he may."""
    draw = Random(1)
    sizes: list[int] = []
    for _ in range(hosts):
        one, two = draw.randrange(270, 400), draw.randrange(270, 400)
        sizes += [one, two, 1000 - one - two]
    sizes[0], sizes[5] = sizes[0] + 1, sizes[5] - 1
    groups = [
        group(f"g{number}", need=Vector(vcpus=1, memory_mib=size, disk_mib=512))
        for number, size in enumerate(sizes)
    ]
    rooms = [room(8, memory_mib=1000) for _ in range(hosts // 2)]
    return problem(groups, linked({"a": offer(*rooms), "b": offer(*rooms)}, link()))
