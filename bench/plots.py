"""Two plots of a replay, as SVG files that need nothing to be drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from bench.replay import Replay

WIDTH, HEIGHT, MARGIN = 900, 360, 60
DAY_S = 86_400
HOUR_S = 3600


def draw(replay: Replay, folder: Path, *, nodes: int) -> None:
    """`utilization.svg`: share of nodes held, hour by hour. `wait.svg`: wait against nodes, a dot
    a job."""
    folder.mkdir(parents=True, exist_ok=True)
    held = hourly(replay.busy, replay.completion_s)
    days = max(1.0, replay.completion_s / DAY_S)
    line = " ".join(
        f"{_x(hour * HOUR_S / DAY_S / days):.1f},{_y(share / nodes):.1f}"
        for hour, share in enumerate(held)
    )
    (folder / "utilization.svg").write_text(
        _frame(
            "Share of nodes held, mean of each hour",
            "days",
            [(day / days, f"{day}") for day in range(0, math.ceil(days), 5)],
            [(share / 4, f"{share * 25} %") for share in range(5)],
            f'<polyline fill="none" stroke="#1f5fa8" points="{line}"/>',
        )
    )
    longest = max([10, *(outcome.wait_s for outcome in replay.outcomes)])
    decades = math.ceil(math.log10(longest))
    dots = "".join(
        f'<circle cx="{_x(math.log2(outcome.job.nodes) / math.log2(max(nodes, 2))):.1f}" '
        f'cy="{_y(math.log10(max(1, outcome.wait_s)) / decades):.1f}" r="2"/>'
        for outcome in replay.outcomes
    )
    sizes = [2**power for power in range(int(math.log2(nodes)) + 1)]
    (folder / "wait.svg").write_text(
        _frame(
            "Wait of each job against its nodes",
            "nodes",
            [(math.log2(size) / math.log2(max(nodes, 2)), f"{size}") for size in sizes],
            [(power / decades, f"{10**power:,} s") for power in range(decades + 1)],
            f'<g fill="#1f5fa8" fill-opacity="0.35">{dots}</g>',
        )
    )


def hourly(busy: Sequence[tuple[int, int]], until_s: int) -> list[float]:
    """The mean of a step function in each hour up to `until_s`."""
    sums = [0.0] * math.ceil(until_s / HOUR_S)
    for (start_s, held), (end_s, _) in zip(busy, [*busy[1:], (until_s, 0)], strict=True):
        end_s = min(end_s, until_s)
        while start_s < end_s:
            hour = start_s // HOUR_S
            upto_s = min(end_s, (hour + 1) * HOUR_S)
            sums[hour] += held * (upto_s - start_s)
            start_s = upto_s
    return [total / HOUR_S for total in sums]


def _x(share: float) -> float:
    return MARGIN + share * (WIDTH - 2 * MARGIN)


def _y(share: float) -> float:
    return HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN)


def _frame(
    title: str,
    below: str,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
    inside: str,
) -> str:
    across = "".join(
        f'<text x="{_x(share):.1f}" y="{HEIGHT - MARGIN + 18}" text-anchor="middle">{text}</text>'
        for share, text in x_ticks
    )
    up = "".join(
        f'<text x="{MARGIN - 6}" y="{_y(share) + 4:.1f}" text-anchor="end">{text}</text>'
        f'<path stroke="#ddd" d="M{_x(0)} {_y(share):.1f}H{_x(1)}"/>'
        for share, text in y_ticks
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="{MARGIN}" y="30" font-size="14">{title}</text>'
        f'<text x="{_x(1)}" y="{HEIGHT - 20}" text-anchor="end">{below}</text>'
        f"{up}{across}{inside}</svg>\n"
    )
