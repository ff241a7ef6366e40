"""Small problems with items to be brought, over links that are the same all the time or change."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from intertie.common.intervals import Window
from intertie.common.values import replace
from intertie.metasched.domain.data import Item
from intertie.metasched.domain.problem import GroupNeed, LinkRoom, Problem, Site
from tests.unit.metasched.problems import NOW, group, link, offer

SPAN = timedelta(minutes=5)
Links = Mapping[tuple[str, str], LinkRoom | int]


def item(name: str, size_mib: int, *at: str, groups: Sequence[str] = ("worker",)) -> Item:
    return Item(name=name, size_mib=size_mib, at=frozenset(at), groups=frozenset(groups))


def rooms(links: Links, sites: Sequence[str]) -> dict[str, dict[str, LinkRoom]]:
    """What each site says of these links, the same from both ends."""
    found: dict[str, dict[str, LinkRoom]] = {name: {} for name in sites}
    for (one, two), given in links.items():
        room = link(given) if isinstance(given, int) else given
        found[one][two] = found[two][one] = room
    return found


def staged(
    hosts: Mapping[str, int],
    links: Links | Sequence[Links],
    items: Sequence[Item],
    *,
    groups: Sequence[GroupNeed] | None = None,
    starts: Sequence[int] = (0, 1, 2),
    forwards: Sequence[str] = (),
    prices: Mapping[str, float] | None = None,
) -> Problem:
    """`hosts`: vCPUs of one host a site. `links`: of all spans of five minutes, or of each.
    `starts`: candidate windows, by how many spans they come after the first one. `prices`: of a
    vCPU, and a hundredth of it for a Mbit/s."""
    times: list[Links] = [links] * 3 if isinstance(links, Mapping) else list(links)
    spans = [rooms(each, list(hosts)) for each in times]
    sites = []
    for name, vcpus in hosts.items():
        there = offer(vcpus, links=spans[-1][name])
        price = (prices or {}).get(name, 0.0)
        rates = replace(there.rates, vcpu_hour=price, link_mbit_s_hour=price / 100)
        sites.append(
            Site(
                name=name,
                offers=(replace(there, rates=rates),) * len(starts),
                forwards=name in forwards,
                before=tuple(each[name] for each in spans),
            )
        )
    return Problem(
        groups=tuple(groups or (group(),)),
        sites=tuple(sites),
        windows=tuple(
            Window(NOW + SPAN * at, NOW + SPAN * at + timedelta(hours=1)) for at in starts
        ),
        items=tuple(items),
        spans=tuple(Window(NOW + SPAN * at, NOW + SPAN * (at + 1)) for at in range(len(spans))),
    )
