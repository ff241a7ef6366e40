"""What of a request could be changed, and how far: for each requirement its steps, from the least.

A step is a change of the request itself, by its fields, such that the user could make it.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from intertie.common.spec import ANY_HYPERVISOR, Affinity, AffinityKind, ClusterSpec
from intertie.common.spec_rules import MAX_LATENCY
from intertie.common.term_rules import MIN_MEMORY_MIB
from intertie.common.values import replace
from intertie.metasched.domain.costs import COST_SCALE
from intertie.metasched.domain.problem import Problem, listed
from intertie.metasched.domain.requirements import Asked, Times, What, image_sizes, in_ms

Value = int | float | str | timedelta | datetime | tuple[str, ...] | tuple[Affinity, ...]

_TOKEN = re.compile(r"(\w+)|\[(\d+)\]")
_MICROSECOND = timedelta(microseconds=1)
_AFFINITIES = "spec.placement.affinities"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One way of asking for less in one respect."""

    changes: Mapping[str, Value]
    """By field."""
    message: str
    slots: tuple[int, ...] = ()
    """Windows that it is for; none: those that are asked for anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever:
    """Steps of one kind, made of their values."""

    values: Sequence[Any]
    step: Callable[[Any], Step]
    ordered: bool = True
    """What fits with one value fits with every later one; else the values are tried in turn."""
    loosest: Step | None = None
    """Where that is not the last one's."""
    of_cost: Callable[[float], Sequence[Any]] | None = None
    """Its values, once it is known what the cheapest plan costs, with the others as loose as they
    can be."""

    def most(self) -> Step:
        return self.loosest or self.step(self.values[-1])


def value_at(spec: ClusterSpec, field: str) -> Any:
    value: Any = spec
    for name, number in _tokens(field):
        value = getattr(value, name) if name else value[int(number)]
    return value


def changed(spec: ClusterSpec, changes: Mapping[str, Value]) -> ClusterSpec:
    """The specification with other values in these fields."""
    for field, value in changes.items():
        spec = _put(spec, _tokens(field), value)
    return spec


def levers_of(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> list[Lever]:
    """None for what has no smaller change than to leave it out. `problem` is over all windows."""
    make = _MAKERS.get(asked.what)
    found = list(make(asked, spec, problem, times)) if make else []
    return [each for each in found if each.values or each.of_cost]


def _tokens(field: str) -> list[tuple[str, str]]:
    return [(each[1] or "", each[2] or "") for each in _TOKEN.finditer(field.removeprefix("spec."))]


def _put(value: Any, tokens: list[tuple[str, str]], new: Value) -> Any:
    if not tokens:
        return new
    (name, number), rest = tokens[0], tokens[1:]
    if name:
        return replace(value, **{name: _put(getattr(value, name), rest, new)})
    at = int(number)
    return (*value[:at], _put(value[at], rest, new), *value[at + 1 :])


Maker = Callable[[Asked, ClusterSpec, Problem, Times], Iterator[Lever]]


def _number(
    asked: Asked, spec: ClusterSpec, values: Callable[[int], Sequence[int]], words: str
) -> Lever:
    """Of a field that is a number; `words` has a place for the new one and for the old one."""
    now = value_at(spec, asked.field)
    return Lever(
        values=values(now),
        step=lambda value: Step(
            changes={asked.field: value}, message=words.format(new=value, old=now)
        ),
    )


def _down(least: int) -> Callable[[int], Sequence[int]]:
    return lambda now: range(now - 1, least - 1, -1)


def _up(most: int) -> Callable[[int], Sequence[int]]:
    return lambda now: range(now + 1, most + 1)


def _count(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    group = problem.groups[asked.group]
    words = f"{{new}} {group.name} instead of {{old}}"
    yield _number(asked, spec, _down(max(group.min_sites, 1)), words)


def _vcpus(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    words = f"{{new}} vCPU instead of {{old}} for each {_name(asked, problem)}"
    yield _number(asked, spec, _down(1), words)


def _memory(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    words = f"{{new}} MiB of memory instead of {{old}} for each {_name(asked, problem)}"
    yield _number(asked, spec, _down(MIN_MEMORY_MIB), words)


def _disk(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    """Less, but no less than images need; or what the image at some site needs."""
    group = problem.groups[asked.group]
    sizes = image_sizes(problem, group)
    words = f"{{new}} MiB of disk instead of {{old}} for each {group.name}"
    larger = [each for each in sizes if each > group.need.disk_mib]
    held = [each for each in sizes if each <= group.need.disk_mib]
    yield _number(asked, spec, _down(max(held, default=1) or 1), words)
    yield _number(asked, spec, lambda _: larger, f"{words}, as its image needs")


def _rate(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    """Of the disk: what is counted is the cap, and no guarantee is above it."""
    group = problem.groups[asked.group]
    guarantee = asked.field.replace("cap_", "guarantee_")
    promised = value_at(spec, guarantee)
    alone = replace(group, further=())
    taken = max((getattr(site.takes(alone), asked.what.value) for site in problem.sites), default=0)
    unit = "operations a second" if asked.what is What.IOPS else "MiB/s"

    def step(value: int) -> Step:
        changes: dict[str, Value] = {guarantee: value} if promised > value else {}
        changes[asked.field] = value
        message = f"{value} {unit} of disk instead of {taken} for each {group.name}"
        return Step(changes=changes, message=message)

    yield Lever(values=range(taken - 1, 0, -1), step=step)


def _nic(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    words = f"{{new}} Mbit/s instead of {{old}} for each NIC of {_name(asked, problem)}"
    yield _number(asked, spec, _down(0), words)


def _pair(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    between = asked.message.partition(" between ")[2]
    words = f"{{new}} Mbit/s instead of {{old}} between {between}"
    yield _number(asked, spec, _down(1), words)


def _latency(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    """In microseconds, up to what all links have together."""
    now = value_at(spec, asked.field)
    links = (each.latency for site in problem.sites for each in site.offers[0].links.values())
    most = min(sum(links, timedelta()), MAX_LATENCY)
    between = asked.message.partition(" between ")[2]

    def step(value: int) -> Step:
        span = value * _MICROSECOND
        words = f"{in_ms(span)} instead of {in_ms(now)} between {between}"
        return Step(changes={asked.field: span}, message=words)

    yield Lever(values=_up(most // _MICROSECOND)(now // _MICROSECOND), step=step)


def _allow(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    """One more site, else all."""
    group = problem.groups[asked.group]
    others = [site.name for site in problem.sites if site.name not in group.allow_sites]
    yield Lever(
        values=[each for each in others if each not in group.deny_sites],
        step=lambda site: Step(
            changes={asked.field: (*group.allow_sites, site)},
            message=f"{group.name} at {site} as well",
        ),
        ordered=False,
        loosest=Step(changes={asked.field: ()}, message=f"{group.name} at any site"),
    )


def _deny(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    group = problem.groups[asked.group]
    yield Lever(
        values=[site.name for site in problem.sites if site.name in group.deny_sites],
        step=lambda site: Step(
            changes={asked.field: tuple(each for each in group.deny_sites if each != site)},
            message=f"{group.name} at {site} as well",
        ),
        ordered=False,
        loosest=Step(changes={asked.field: ()}, message=f"{group.name} at any site"),
    )


def _per_site(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    group = problem.groups[asked.group]
    words = f"{{new}} {group.name} at one site instead of {{old}}"
    yield _number(asked, spec, _up(group.fewest), words)


def _per_host(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    group = problem.groups[asked.group]
    words = f"{{new}} {group.name} on one host instead of {{old}}"
    yield _number(asked, spec, _up(group.fewest), words)


def _min_sites(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    words = f"{_name(asked, problem)} at {{new}} or more sites instead of {{old}}"
    yield _number(asked, spec, _down(1), words)


def _max_sites(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    words = "at most {new} sites in all instead of {old}"
    yield _number(asked, spec, _up(len(problem.sites)), words)


def _affinity(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    """Without one of its groups, else without all of it. The list of all is told, for of what is
    left out no other path may speak."""
    every = spec.placement.affinities
    at = int(_tokens(asked.field)[-1][1])
    groups, one = every[at].groups, every[at].kind is AffinityKind.TOGETHER
    places = "at one site" if one else "at different sites"

    def step(name: str | None) -> Step:
        left = tuple(each for each in groups if each != name)
        kept = (replace(every[at], groups=left),) if name is not None else ()
        said = f"{listed(left)} {places} instead of {listed(groups)}"
        if name is None:
            said = f"{listed(groups)} at any sites instead of {places}"
        return Step(changes={_AFFINITIES: (*every[:at], *kept, *every[at + 1 :])}, message=said)

    fewer = groups if len(groups) > (1 if one else 2) else ()
    yield Lever(values=[*fewer, None], step=step, ordered=False)


def _max_cost(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    """What the cheapest plan costs; or a little more, where the planner, which rounds what each
    unit costs up, takes it for that."""
    now = value_at(spec, asked.field)
    units = sum(group.most for group in problem.groups) + sum(
        promise.mbit_s * problem.group(promise.a).most * problem.group(promise.b).most
        for promise in problem.promises
    )
    if any(offer.asks_for_room for site in problem.sites for offer in site.offers):
        units += sum(
            each.most * (each.need.vcpus + 1 + each.need.memory_mib // 1024)
            for each in problem.groups
        )

    def values(cost: float) -> list[float]:
        least = ceil(cost * COST_SCALE - 1e-3)
        return [(least + more) / COST_SCALE for more in (0, units, 8 * units)]

    def step(value: float) -> Step:
        words = f"a budget of {value:.10g} instead of {now:.10g}"
        return Step(changes={asked.field: value}, message=words)

    any_cost = Step(changes={asked.field: 0.0}, message="at any cost")
    yield Lever(values=(), step=step, loosest=any_cost, of_cost=values)


def _hypervisor(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    now = value_at(spec, asked.field)
    message = f"any hypervisor instead of {now} for {_name(asked, problem)}"
    step = Step(changes={asked.field: ANY_HYPERVISOR}, message=message)
    yield Lever(values=[ANY_HYPERVISOR], step=lambda _: step)


def _start(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    """The first that is later; what fits later need not fit later still."""
    lease = spec.lease
    latest = max(problem.windows[slot].start for slot in times.asked)

    def giving(slot: int) -> str:
        start = problem.windows[slot].start
        said = [s.name for s in problem.sites if any(e <= start for e in s.offers[0].room_from)]
        return " and ".join(said)

    def step(slot: int) -> Step:
        window = problem.windows[slot]
        changes: dict[str, Value] = {"spec.lease.start_time": window.start}
        if lease.deadline is not None:
            changes = {"spec.lease.deadline": window.end}
        elif lease.end_time is not None:
            changes["spec.lease.end_time"] = window.end
        later = window.start - latest
        what = "done by" if lease.deadline is not None else "at"
        moment = window.end if lease.deadline is not None else window.start
        message = f"{_span(later)} later, {what} {moment:%Y-%m-%d %H:%M:%SZ}"
        if slot in times.made:
            message += f", once leases have given way that may have to at {giving(slot)}"
        return Step(changes=changes, message=message, slots=(slot,))

    every = Step(changes={}, message="later", slots=times.later)
    yield Lever(values=times.later, step=step, ordered=False, loosest=every)


def _duration(asked: Asked, spec: ClusterSpec, problem: Problem, times: Times) -> Iterator[Lever]:
    ends = asked.field.endswith("end_time")
    whole = problem.windows[times.asked[0]].duration

    def step(slot: int) -> Step:
        window = problem.windows[slot]
        return Step(
            changes={asked.field: window.end if ends else window.duration},
            message=f"for {_span(window.duration)} instead of {_span(whole)}",
            slots=(slot,),
        )

    yield Lever(values=times.shorter, step=step)


_MAKERS: dict[What, Maker] = {
    What.COUNT: _count,
    What.VCPUS: _vcpus,
    What.MEMORY: _memory,
    What.DISK: _disk,
    What.IOPS: _rate,
    What.THROUGHPUT: _rate,
    What.NIC: _nic,
    What.PAIR: _pair,
    What.LATENCY: _latency,
    What.ALLOW_SITES: _allow,
    What.DENY_SITES: _deny,
    What.MAX_PER_SITE: _per_site,
    What.MAX_PER_HOST: _per_host,
    What.MIN_SITES: _min_sites,
    What.MAX_SITES: _max_sites,
    What.AFFINITY: _affinity,
    What.MAX_COST: _max_cost,
    What.HYPERVISOR: _hypervisor,
    What.START: _start,
    What.DURATION: _duration,
}
"""Of an image, an architecture and a network there is no less."""


def _name(asked: Asked, problem: Problem) -> str:
    return problem.groups[asked.group].name


def _span(span: timedelta) -> str:
    """`40 min`, `1 h 5 min`, `1 min 30 s`."""
    minutes, seconds = divmod(round(span.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (seconds, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)
