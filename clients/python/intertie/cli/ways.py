"""Ways between a cluster's sites: what is declared and measured, and since when one is lost."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from intertie.api.cluster.v1.cluster_pb2 import Plan, PlannedLink
from intertie.cli.tables import BAD, moment, table
from intertie.cli.terminal import styled
from intertie.client.spans import format_span


def known_ways(plan: Plan) -> tuple[PlannedLink, ...]:
    """One for any two sites, of those of which something is known: the other direction is the
    same way."""
    found: dict[frozenset[str], PlannedLink] = {}
    for link in plan.links:
        if link.HasField("round_trip") or link.HasField("lost_since"):
            found.setdefault(frozenset({link.from_site, link.to_site}), link)
    return tuple(found.values())


def ways(plan: Plan) -> Table:
    made = table(
        "LINK BETWEEN", "AND", "LATENCY", "ROUND TRIP", "LOST SINCE",
        right=("LATENCY", "ROUND TRIP"),
    )  # fmt: skip
    for each in known_ways(plan):
        made.add_row(
            styled(each.from_site),
            styled(each.to_site),
            format_span(each.latency.ToNanoseconds()) if each.HasField("latency") else "",
            f"{each.round_trip.ToNanoseconds() / 1e6:.1f}ms" if each.HasField("round_trip") else "",
            styled(moment(each.lost_since), BAD),
        )
    return made


def said_of_ways(plan: Plan) -> Iterator[tuple[str, str, bool]]:
    """Of each: between which sites, in a few words how it is, and whether it is lost. That it is
    there is worth a word only after it was not."""
    for each in known_ways(plan):
        lost = each.HasField("lost_since")
        how = f"link lost since {moment(each.lost_since)}" if lost else "link is there again"
        yield f"{each.from_site}, {each.to_site}", how, lost
