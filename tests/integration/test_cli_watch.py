"""`intertie cluster watch` and the SDK, of all clusters: broken streams, tokens, signals."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import pytest

from intertie.api.cluster.v1.cluster_pb2 import Cluster
from intertie.api.cluster.v1.clusters_pb2 import WatchClustersResponse
from intertie.client import (
    Alive,
    Changed,
    Gone,
    Snapshot,
    SnapshotReason,
)
from intertie.common.errors import (
    EtcdUnavailable,
    FieldInvalid,
    NotLeading,
)
from tests.integration.cli_place import Place

SnapshotBegin = WatchClustersResponse.SnapshotBegin


def told(**event: Any) -> WatchClustersResponse:
    return WatchClustersResponse(**event)


def snapshot(token: str, *names: str, reason: int = SnapshotBegin.NO_TOKEN) -> list[Any]:
    """In a message for each cluster."""
    return [
        told(snapshot_begin=SnapshotBegin(reason=reason)),  # type: ignore[arg-type]
        *(told(snapshot_clusters={"clusters": [named(each)]}) for each in names),
        told(snapshot_end={}, resume_token=token),
    ]


def named(name: str) -> Cluster:
    return Cluster(name=f"metascheds/meta/tenants/demo/clusters/{name}", state=Cluster.ACTIVE)


async def test_the_sdk_takes_up_a_broken_stream_with_its_last_token(place: Place) -> None:
    """In the middle of a snapshot, after a change, when the service lets go, and after silence."""
    begun, end = snapshot("t9", "a", "b"), snapshot("t1", "a", "b")
    place.clusters.streams = [
        [*begun[:2], NotLeading("")],
        [*end, told(changed=named("a"), resume_token="t2"), EtcdUnavailable("away")],
        [told(alive={}, resume_token="t3"), None],
        [told(gone={"name": "x", "uid": "u"}, resume_token="t4")],
        snapshot("t5", "b", reason=SnapshotBegin.TOO_OLD),
    ]
    async with await place.connect() as client:
        events = []
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("intertie.client.changes.SILENCE_S", 1.0)
            async with asyncio.timeout(60):
                async for event in client.clusters.watch_all():
                    events.append(event)
                    if event.token == "t5":
                        break
    assert place.clusters.resumed == ["", "", "t2", "t3", "t4"]
    first, changed, alive, gone, last = events
    assert isinstance(first, Snapshot)
    assert [each.name[-1] for each in first.clusters] == ["a", "b"], "whole, and once"
    assert first.reason is SnapshotReason.NO_TOKEN
    assert isinstance(changed, Changed)
    assert changed.cluster == named("a")
    assert isinstance(alive, Alive)
    assert gone == Gone(name="x", uid="u", token="t4")
    assert isinstance(last, Snapshot)
    assert (last.reason, len(last.clusters)) == (SnapshotReason.TOO_OLD, 1)


async def test_the_sdk_gives_up_on_what_does_not_pass(place: Place) -> None:
    place.clusters.streams = [[FieldInvalid("resume_token", "is none; leave it out")]]
    async with await place.connect() as client:
        with pytest.raises(FieldInvalid):
            await anext(client.clusters.watch_all(resume_token="x"))
        place.clusters.streams = [[EtcdUnavailable("away")] for _ in range(99)]
        with pytest.raises(EtcdUnavailable):
            await anext(client.clusters.watch_all(patience_s=1.0))
    assert len(place.clusters.resumed) >= 3


async def test_watch_of_all_prints_an_event_a_line_and_ends_with_ctrl_c(place: Place) -> None:
    place.clusters.streams = [
        [
            *snapshot("t1", "a"),
            told(changed=named("b"), resume_token="t2"),
            told(gone={"name": named("a").name, "uid": "u"}, resume_token="t3"),
            told(alive={}, resume_token="t4"),
        ]
    ]
    process = await place.start("cluster", "watch", "--resume", "t0", "-o", "json")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        lines = [json.loads(await process.stdout.readline()) for _ in range(4)]
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out, err) == (130, b"", b"")
    assert place.clusters.resumed == ["t0"]
    assert [(each["event"], each["token"]) for each in lines] == [
        ("snapshot", "t1"),
        ("changed", "t2"),
        ("gone", "t3"),
        ("alive", "t4"),
    ]
    assert [each["name"] for each in lines[0]["clusters"]] == [named("a").name]
    assert lines[0]["reason"] == "NO_TOKEN"
    assert lines[1]["cluster"]["state"] == "ACTIVE"
    assert lines[2]["name"] == named("a").name


async def test_watch_of_all_in_words_says_how_to_go_on(place: Place) -> None:
    made = named("b")
    made.workspaces.add(name=f"{made.name}/workspaces/w-0", site="north", host="n1", ready=True)
    place.clusters.streams = [
        [
            *snapshot("t1", "a", reason=SnapshotBegin.TOO_OLD),
            told(changed=made, resume_token="t2"),
            told(gone={"name": named("a").name, "uid": "u"}, resume_token="t3"),
        ]
    ]
    process = await place.start("cluster", "watch", "--resume", "t0")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        said = [(await process.stdout.readline()).decode().split(maxsplit=1)[1] for _ in range(4)]
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 130
    assert [each.split()[0] for each in said] == ["a", "b", "b", "a"]
    assert "ACTIVE" in said[0]
    assert "w-0" in said[2]
    assert "cleared away" in said[3]
    assert b"not remembered any more" in err
    assert b"intertie cluster watch --resume t3" in err


async def test_one_cluster_is_not_watched_from_a_token(place: Place) -> None:
    said = await place.say("cluster", "watch", "demo", "--resume", "t")
    assert said.code == 2
    assert "--resume is for all clusters" in said.err
