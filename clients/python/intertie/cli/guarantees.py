"""Promises as a table: what was promised, what is measured, and since when that is below."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from rich.table import Table
from rich.text import Text

from intertie.api.cluster.v1.cluster_pb2 import Guarantee
from intertie.api.types.v1.measured_pb2 import Measured
from intertie.cli.tables import BAD, WAITING, moment, table
from intertie.cli.terminal import quantity, styled
from intertie.client.spans import format_span

_OLD = timedelta(minutes=1)
"""A measured value that is older says so: its host or its site has not been heard of since."""


def guarantees(found: Iterable[Guarantee], now: datetime) -> Table:
    """A line a direction."""
    made = table(
        "GUARANTEE", "WHERE", "PROMISED", "AT MOST", "MEASURED", "BELOW SINCE",
        right=("PROMISED", "AT MOST", "MEASURED"),
    )  # fmt: skip
    made.caption = "Less than promised is below only while more was asked for and had to wait."
    made.caption_justify = "left"
    for each in found:
        measured = {(getattr(one, "from"), one.to): one for one in each.measured}
        for source, target in _directions(each):
            one = measured.get((source, target), Measured())
            made.add_row(
                Guarantee.Kind.Name(each.kind).replace("_", " ").lower(),
                styled(_where(source, target, each.network)),
                quantity(each.guarantee, each.unit),
                quantity(each.cap, each.unit) if each.cap else "",
                _value(one, each.unit, now),
                styled(moment(one.below_since), BAD),
            )
    return made


def _directions(guarantee: Guarantee) -> Iterator[tuple[str, str]]:
    source, target = getattr(guarantee, "from"), guarantee.to
    yield source, target
    if guarantee.kind in (Guarantee.PAIR_BANDWIDTH, Guarantee.NIC_BANDWIDTH):
        yield target, source


def _where(source: str, target: str, network: str) -> str:
    on = f" on {network}" if network else ""
    if not network:
        return f"{source} on {target}" if target else source
    if not source:
        return f"to {target}{on}"
    return f"{source} to {target}{on}" if target else f"from {source}{on}"


def _value(measured: Measured, unit: str, now: datetime) -> Text:
    """To a tenth below ten; with its age where it is old."""
    if not measured.HasField("measured_time"):
        return styled("")
    value = measured.value
    number = f"{value:.1f}" if 0.05 <= value < 9.95 else f"{value:.0f}"
    age = now - datetime.fromtimestamp(measured.measured_time.seconds, tz=now.tzinfo)
    if age < _OLD:
        return styled(quantity(number, unit))
    old = format_span(age // timedelta(minutes=1) * 60_000_000_000)
    return styled(f"{quantity(number, unit)} {old} ago", WAITING)
