"""The demo's tables, and the judgement whether what was promised was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

CAP_TOLERANCE = 1.1
"""A burst that was saved up before counts in a measurement of a few seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One promise, and what a guest found."""

    what: str
    owner: str
    """The workspace that measured."""
    peer: str = ""
    """The other end, of bandwidth."""
    promised: float
    cap: float
    measured: float
    unit: str

    @property
    def where(self) -> str:
        return f"{self.owner} to {self.peer}" if self.peer else self.owner

    @property
    def kept(self) -> bool:
        return self.measured >= self.promised

    @property
    def verdict(self) -> tuple[str, str]:
        """In a word, and its colour. A cap is no promise to the guest: above it is a remark."""
        if not self.kept:
            return "BROKEN", "bold red"
        if self.cap and self.measured > self.cap * CAP_TOLERANCE:
            return "kept, above its cap", "yellow"
        return "kept", "green"


def _table(*titles: str) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in titles:
        made.add_column(title, no_wrap=True)
    return made


def ping_matrix(names: Sequence[str], trips: Mapping[tuple[str, str], float | None]) -> Table:
    """Milliseconds from the row's guest to the column's."""
    made = _table("PING ms", *names)
    for source in names:
        cells = [Text(source)]
        for target in names:
            if source == target:
                cells.append(Text("-"))
                continue
            trip = trips.get((source, target))
            cells.append(Text("no answer", "red") if trip is None else Text(f"{trip:.1f}", "green"))
        made.add_row(*cells)
    return made


def unanswered(trips: Mapping[tuple[str, str], float | None]) -> list[str]:
    return [f"{source} to {target}" for (source, target), trip in trips.items() if trip is None]


def pairs_of(guarantees: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Promised pairs in both directions, whichever of the two the cluster lists."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for each in guarantees:
        if each["kind"] == "PAIR_BANDWIDTH":
            found[each["from"], each["to"]] = each
            found.setdefault((each["to"], each["from"]), each)
    return found


def measuring_order(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Who measures towards whom, so that every pair is measured once, from few guests."""
    left = {frozenset(pair) for pair in pairs if pair[0] != pair[1]}
    order: dict[str, list[str]] = {}
    while left:
        names = sorted({name for pair in left for name in pair})
        busiest = max(names, key=lambda name: sum(name in pair for pair in left))
        mine = [pair for pair in left if busiest in pair]
        order[busiest] = sorted(next(iter(pair - {busiest})) for pair in mine)
        left.difference_update(mine)
    return order


def bandwidths(
    pairs: Mapping[tuple[str, str], Mapping[str, Any]], rates: Mapping[tuple[str, str], float]
) -> list[Comparison]:
    return [
        Comparison(
            what="bandwidth",
            owner=source,
            peer=target,
            promised=pairs[source, target]["guarantee"],
            cap=pairs[source, target]["cap"],
            measured=rate,
            unit="Mbit/s",
        )
        for (source, target), rate in rates.items()
    ]


def disks(guarantees: Iterable[Mapping[str, Any]], rates: Mapping[str, float]) -> list[Comparison]:
    return [
        Comparison(
            what="disk reads",
            owner=each["from"],
            promised=each["guarantee"],
            cap=each["cap"],
            measured=rates[each["from"]],
            unit="IOPS",
        )
        for each in guarantees
        if each["kind"] == "DISK_IOPS"
    ]


def comparisons(found: Iterable[Comparison]) -> Table:
    made = _table("GUARANTEE", "WHERE", "PROMISED", "AT MOST", "MEASURED IN THE GUEST", "")
    for each in found:
        word, style = each.verdict
        made.add_row(
            each.what,
            each.where,
            f"{each.promised:g} {each.unit}",
            f"{each.cap:g} {each.unit}",
            Text(f"{each.measured:.1f} {each.unit}", style),
            Text(word, style),
        )
    return made


def differences(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[str]:
    """What is on a host now and was not there before, or the other way round."""
    found = []
    for host, lines in before.items():
        now = after[host]
        found += [f"{host}: left over: {line}" for line in now if line not in lines]
        found += [f"{host}: gone: {line}" for line in lines if line not in now]
    return found
