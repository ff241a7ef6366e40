"""What could be brought to a site, were there more time: how long it takes, and from when on a
cluster could begin there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from intertie.common.errors import Shortfall
from intertie.common.intervals import Window
from intertie.common.values import replace
from intertie.metasched.domain.bringing import (
    Before,
    lacks_any,
    spans_until,
    with_images_brought,
)
from intertie.metasched.domain.candidates import allowed
from intertie.metasched.domain.data import TransferPlan
from intertie.metasched.domain.problem import GroupNeed, LinkRoom, Problem
from intertie.metasched.domain.transfers import Delivery, Draft, Staging

TO_ASK_AGAIN = timedelta(minutes=2)
"""From a refusal to a request that takes up what it offers. Who takes longer may be refused again:
the time until a start is then what it takes, and no more."""
AHEAD = 32
"""Spans of the time ahead, over each of which sites say what their links have free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """What sites have free of their halves of links, over spans of the time to come."""

    spans: tuple[Window, ...]
    room: Before

    def until(self, moments: Sequence[datetime]) -> tuple[tuple[Window, ...], Before]:
        """Over spans up to these moments, as sites would say it of those."""
        last = self.spans[-1].end
        spans = spans_until((min(each, last) for each in moments), self.spans[0].start)
        room = {name: [self._least(of, span) for span in spans] for name, of in self.room.items()}
        return spans, room

    def _least(self, of: Sequence[Mapping[str, LinkRoom]], span: Window) -> dict[str, LinkRoom]:
        over = [
            links
            for links, each in zip(of, self.spans, strict=True)
            if each.intersect(span) is not None
        ]
        peers = set[str]().union(*over).intersection(*over)
        return {peer: _narrowest([each[peer] for each in over]) for peer in sorted(peers)}


def spans_ahead(since: datetime, horizon: timedelta) -> tuple[Window, ...]:
    """Up to the horizon, ever longer."""
    shares = ((number / AHEAD) ** 2 for number in range(1, AHEAD + 1))
    return spans_until((since + horizon * share for share in shares), since)


def with_any_brought(problem: Problem, links: Links | None) -> Problem:
    """The problem in which what some site lacks may be brought there, whether or not its groups may
    be there: they may, should that be given up."""
    if links is None:
        return problem
    spans, room = links.until([each.start for each in problem.windows])
    unbound = replace(problem, groups=tuple(map(_anywhere, problem.groups)))
    if not spans or not lacks_any(unbound):
        return problem
    return replace(with_images_brought(unbound, spans, room), groups=problem.groups)


def too_late(problem: Problem, links: Links, latest: datetime) -> tuple[Shortfall, ...]:
    """What a site lacks where a group may be, and what could be there, but only after the latest
    start: each as if nothing else were brought."""
    far = Window(links.spans[-1].end, links.spans[-1].end + timedelta(hours=1))
    once = replace(
        problem,
        windows=(far,),
        sites=tuple(replace(each, offers=each.offers[:1]) for each in problem.sites),
    )
    asked = with_images_brought(once, links.spans, links.room)
    return tuple(_each_too_late(asked, latest)) if asked.items else ()


def _each_too_late(asked: Problem, latest: datetime) -> Iterator[Shortfall]:
    staging = Staging(asked)
    names = {found.digest: name for site in asked.sites for name, found in site.images.items()}
    wanted: dict[Delivery, GroupNeed] = {}
    for group in asked.groups:
        for at, site in enumerate(asked.sites):
            if allowed(group, site.name):
                for item in staging.missing(group.name, at):
                    wanted.setdefault((item, at), group)
    for (item, at), group in wanted.items():
        move = Draft(staging, staging.until_us[0]).at_once(item, at)
        if move is None:
            continue
        (sent,) = staging.transfers((move,))
        if sent.end > latest:
            yield _late(names[sent.item], sent, group, latest)


def _late(name: str, sent: TransferPlan, group: GroupNeed, latest: datetime) -> Shortfall:
    ready = _whole_second(sent.end)
    takes = _whole_second_of(sent.end - sent.begin)
    return Shortfall(
        site=sent.to_site,
        resource="data",
        group=group.name,
        peer=sent.from_site,
        until=ready,
        message=f"{sent.to_site} has no image {name} for {group.name}; to bring it from "
        f"{sent.from_site} takes {takes} at {sent.mbit_s} Mbit/s, too long for a start by "
        f"{latest:%Y-%m-%d %H:%M:%SZ}: it could start there from {ready:%Y-%m-%d %H:%M:%SZ} on",
    )


def _whole_second(moment: datetime) -> datetime:
    whole = moment.replace(microsecond=0)
    return whole if whole == moment else whole + timedelta(seconds=1)


def _whole_second_of(span: timedelta) -> timedelta:
    return timedelta(seconds=-(-span // timedelta(seconds=1)))


def _anywhere(group: GroupNeed) -> GroupNeed:
    return replace(group, allow_sites=(), deny_sites=())


def _narrowest(rooms: Sequence[LinkRoom]) -> LinkRoom:
    return replace(
        rooms[0],
        egress_mbit_s=min(each.egress_mbit_s for each in rooms),
        ingress_mbit_s=min(each.ingress_mbit_s for each in rooms),
    )
