"""`intertie cluster watch` of all clusters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any

from intertie.api.cluster.v1.cluster_pb2 import Cluster
from intertie.cli import render, terminal
from intertie.cli.command import Format, Run
from intertie.client import (
    Alive,
    Changed,
    ClusterEvent,
    Gone,
    Snapshot,
    SnapshotReason,
)

WHY = {
    SnapshotReason.TOO_OLD: "What has changed since that token is not remembered any more",
    SnapshotReason.FELL_BEHIND: "There were more changes than were read",
    SnapshotReason.STORE_REPLACED: "The service's store is not the one that the token is of",
}


async def watch_all(run: Run, token: str) -> None:
    """For ever; Ctrl-C ends it, and is told how to go on."""
    lines = Lines(run)
    try:
        async with (
            await run.connect() as client,
            aclosing(client.clusters.watch_all(resume_token=token)) as events,
        ):
            async for event in events:
                if run.output is Format.TABLE:
                    lines.show(event)
                else:
                    run.write_change(plain(run, event))
                token = event.token
    except asyncio.CancelledError:
        if token and run.output is Format.TABLE:
            run.note(f"Go on from here with: intertie cluster watch --resume {token}")
        raise


def plain(run: Run, event: ClusterEvent) -> dict[str, Any]:
    """As a document, of which `event` says what else is in it."""
    told: dict[str, Any]
    match event:
        case Snapshot():
            clusters = [run.plain(each) for each in event.clusters]
            told = {"event": "snapshot", "reason": event.reason.value, "clusters": clusters}
        case Changed():
            told = {"event": "changed", "cluster": run.plain(event.cluster)}
        case Gone():
            told = {"event": "gone", "name": event.name, "uid": event.uid}
        case Alive():
            told = {"event": "alive"}
    return {**told, "token": event.token}


class Lines:
    """What differs from what was said before, each with its cluster."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._said: dict[str, dict[str, str]] = {}
        """By cluster's name."""

    def show(self, event: ClusterEvent) -> None:
        match event:
            case Snapshot():
                if why := WHY.get(event.reason):
                    self._run.note(f"{why}: from here on, what there is now.")
                self._all(event.clusters)
            case Changed():
                self._one(event.cluster)
            case Gone():
                self._gone(event.name)

    def _all(self, clusters: Iterable[Cluster]) -> None:
        there = {each.name: each for each in clusters}
        for name in [each for each in self._said if each not in there]:
            self._gone(name)
        for each in there.values():
            self._one(each)

    def _one(self, cluster: Cluster) -> None:
        lines = render.changes(cluster, self._said.setdefault(cluster.name, {}))
        self._print(cluster.name, lines)

    def _gone(self, name: str) -> None:
        self._said.pop(name, None)
        self._print(name, ["cleared away"])

    def _print(self, name: str, lines: Iterable[str]) -> None:
        stamp = self._run.wiring.clock.now().strftime("%H:%M:%SZ")
        for line in lines:
            text = f"{stamp}  {render.last(name):<16} {line}"
            self._run.results.print(terminal.styled(text), soft_wrap=True)
