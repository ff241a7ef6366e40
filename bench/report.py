"""What a bench says: a table for a person and, last, one JSON object."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure: what was measured, and what it is measured against in the same run."""

    what: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None
    """Value ÷ the ceiling or the peer."""


def show(title: str, rows: Sequence[Row], result: Mapping[str, object]) -> None:
    """Prints both. `result` is what other programs read."""
    table = Table(title=title, title_justify="left")
    for heading in ("what", "value", "against", "ratio"):
        table.add_column(heading, justify="left" if heading in ("what", "against") else "right")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.what, f"{row.value:,.1f} {row.unit}", row.against, ratio)
    Console(width=110).print(table)
    print(json.dumps({"bench": title, **result}))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
