"""What should have come to its end by the end of a run, and has not: from records as plain JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from intertie.api.nodeagent.v1 import records_pb2
from tests.sim.counting import read, seconds
from tests.sim.waiting import overdue

if TYPE_CHECKING:
    from tests.sim.record import Record

GRACE_S = 40.0
"""After which all that should have come to an end has, once nothing fails any more."""


def undone(record: Record, *, grace_s: float = GRACE_S) -> list[str]:
    """What should have come to its end for so long, and has not."""
    now: dict[tuple[str, str], tuple[float, bytes]] = {}
    for written in record.writes:
        for key, value in written.puts:
            now[written.store, key] = written.at, value
        for key in written.deleted:
            now.pop((written.store, key), None)
    return [*_unsettled(record, now, grace_s), *_left_running(record, now)]


def _unsettled(
    record: Record, now: dict[tuple[str, str], tuple[float, bytes]], grace_s: float
) -> Iterator[str]:
    last = max((each.at for each in record.writes), default=0.0)
    until = max(record.ended_at, last)
    late_s = grace_s + 2 * record.profile.offset_s
    for (store, key), (_, value) in now.items():
        kind = key.partition("/")[0]
        if kind == "txs":
            yield f"{store}: {key} is not settled"
        if kind not in ("parts", "clusters"):
            continue
        each = read(value)
        state = each["state"]
        if kind == "clusters" and store != "meta" and overdue(each, until, late_s):
            yield f"{store}: {key} waits for longer than it may"
        open_part = kind == "parts" and (state in ("HELD", "PREPARED") or each["amend"])
        if open_part or (kind == "clusters" and store == "meta" and state == "PLANNED"):
            yield f"{store}: {key} is {state} for ever"
        elif state in ("CONFIRMED", "SCHEDULED", "ACTIVE"):
            window = each["spec"]["window"] if kind == "parts" else _cluster_window(each)
            asked = each.get("end_requested_time")
            end = seconds(window["end"])
            if kind == "parts" and each["keeping"] and each["keeping"]["until"]:
                end = seconds(each["keeping"]["until"])
            if kind == "clusters" and each.get("waits"):
                continue  # by its part
            if until > end + late_s or (asked and until > seconds(asked) + late_s):
                yield f"{store}: {key} is {state} after its end"


def _cluster_window(cluster: Any) -> Any:
    return cluster["plan"]["window"] if "plan" in cluster else cluster["window"]


def _left_running(record: Record, now: dict[tuple[str, str], tuple[float, bytes]]) -> Iterator[str]:
    wanted = {
        (store, key.split("/")[1], workspace.uid)
        for (store, key), (_, value) in now.items()
        if key.startswith("wanted/")
        for workspace in records_pb2.WantedPart.FromString(value).workspaces
    }
    for place, domains in record.running.items():
        site, _, host = place.partition("/")
        for each in domains:
            if (site, host, each.removeprefix("it-")) not in wanted:
                yield f"{place}: {each} runs, and nobody wants it"
