"""A reader of all clusters of a tenant, and what etcd itself remembers of them, read by code that
shares nothing with what the broker follows.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.api.nodeagent.v1 import records_pb2
from intertie.common.errors import DomainError, EtcdUnavailable
from intertie.common.etcd.client import Etcd
from intertie.common.names import uid_of
from intertie.common.rpc.client import to_domain_error
from intertie.common.settings import TlsSettings
from tests.integration.broker_site import Site

DEMO = "-/tenants/demo"
Response = clusters_pb2.WatchClustersResponse
Reason = Response.SnapshotBegin
WITHIN_S = 60
AGAIN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""No leader now, another was first, no room for so many at once."""


class Service(Protocol):
    """A replica of a broker or a meta-scheduler."""

    def clusters(self, tls: TlsSettings | None = None) -> clusters_pb2_grpc.ClustersAsyncStub: ...


@dataclass
class Told:
    """What one reader has been told over all its streams, and its streams."""

    parent: str = DEMO
    tls: Any = None
    events: list[Response] = field(default_factory=list)
    _task: Any = None

    @property
    def token(self) -> str:
        return next((each.resume_token for each in self.events[::-1] if each.resume_token), "")

    @property
    def kinds(self) -> list[str]:
        return [str(each.WhichOneof("event")) for each in self.events]

    @property
    def reasons(self) -> list[int]:
        begun = (each for each in self.events if each.WhichOneof("event") == "snapshot_begin")
        return [each.snapshot_begin.reason for each in begun]

    @property
    def changed(self) -> list[cluster_pb2.Cluster]:
        return [each.changed for each in self.events if each.WhichOneof("event") == "changed"]

    def clusters(self) -> dict[str, cluster_pb2.Cluster]:
        """All that the reader knows."""
        known: dict[str, cluster_pb2.Cluster] = {}
        for each in self.events:
            match each.WhichOneof("event"):
                case "snapshot_begin":
                    known = {}
                case "snapshot_clusters":
                    known.update((one.name, one) for one in each.snapshot_clusters.clusters)
                case "changed":
                    known[each.changed.name] = each.changed
                case "gone":
                    del known[each.gone.name]
        return known

    async def read(
        self,
        at: Service,
        until: Callable[[], bool],
        *,
        token: str | None = None,
        patient: bool = False,
    ) -> None:
        """From where it was, until that is so."""
        request = clusters_pb2.WatchClustersRequest(
            parent=self.parent, resume_token=self.token if token is None else token
        )
        stream = at.clusters(self.tls).WatchAll(request)
        try:
            async with asyncio.timeout(None if patient else WITHIN_S):
                while not until():
                    message = await stream.read()
                    assert isinstance(message, Response), "it does not end by itself"
                    self.events.append(message)
        finally:
            stream.cancel()

    async def read_some(self, at: Service, count: int, until: Callable[[], bool]) -> None:
        """So many more, or until that is so."""
        most = len(self.events) + count
        await self.read(at, lambda: len(self.events) >= most or until())

    @asynccontextmanager
    async def reading(self, at: Service, *, lasting: bool = False) -> AsyncIterator[None]:
        """Meanwhile. `lasting`: goes on with its token where the service has no etcd for long."""
        read = self._read_on if lasting else self._read_once
        self._task = task = asyncio.create_task(read(at))
        try:
            await self.until(lambda: "snapshot_end" in self.kinds)
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _read_once(self, at: Service) -> None:
        await self.read(at, lambda: False, patient=True)

    async def _read_on(self, at: Service) -> None:
        while True:
            try:
                await self._read_once(at)
            except grpc.aio.AioRpcError as error:
                if not isinstance(to_domain_error(error), EtcdUnavailable):
                    raise
            await asyncio.sleep(0.05)

    async def until_states(self, states: list[int]) -> None:
        await self.until(lambda: [each.state for each in self.clusters().values()] == states)

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not reached():
                if self._task.done():
                    await self._task
                await asyncio.sleep(0.05)


async def refusal(at: Service, tls: Any = None, **request: str) -> DomainError | None:
    stream = at.clusters(tls).WatchAll(clusters_pb2.WatchClustersRequest(**request))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    return to_domain_error(caught.value)


async def delete(at: Site, cluster_id: str) -> None:
    name = f"{DEMO}/clusters/{cluster_id}"
    await at.clusters().Delete(clusters_pb2.DeleteClusterRequest(name=name))


# etcd's own history


async def history(etcd: Etcd, first: int, last: int) -> list[list[Any]]:
    """The events of each revision, by etcd's own watch."""
    found: dict[int, list[Any]] = {}
    prefix = etcd.prefix.encode()
    answers: Any = etcd._watches.watch(prefix, prefix[:-1] + b"0", first)
    async for answer in answers:
        for event in answer.events:
            if event.kv.mod_revision <= last:
                found.setdefault(event.kv.mod_revision, []).append(event)
            else:
                await answers.aclose()
                return [found[number] for number in sorted(found)]
    raise AssertionError("etcd ended the watch")


def states_in(revisions: list[list[Any]], prefix: str) -> dict[str, list[Any]]:
    """By cluster's name: each state that it passed through."""
    records: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    seen: dict[tuple[str, str], records_pb2.SeenPart] = {}
    found: dict[str, list[Any]] = {}
    for revision in revisions:
        for event in revision:
            key = event.kv.key.decode().removeprefix(prefix)
            match key.split("/"):
                case ["clusters", _, _]:
                    records[key] = json.loads(event.kv.value) if event.type == 0 else None
                case ["parts", tenant, part]:
                    name = f"sites/north/tenants/{tenant}/parts/{part}"
                    parts[name] = json.loads(event.kv.value) if event.type == 0 else None
                case ["seen", host, "parts", uid]:
                    seen[host, uid] = records_pb2.SeenPart.FromString(event.kv.value)
        for record in records.values():
            if record is None:
                continue
            state = as_stored(record, parts.get(record["part"]), seen)
            passed = found.setdefault(record["name"], [])
            if not passed or passed[-1] != state:
                passed.append(state)
    return found


def as_stored(record: Any, part: Any, seen: dict[tuple[str, str], records_pb2.SeenPart]) -> Any:
    workspaces: list[tuple[int, bool]] = []
    for placed in part["placed"]:
        said = seen.get((placed["host"], uid_of(part["name"])))
        one = (
            next((w for w in said.workspaces if w.name == placed["workspace"]), None)
            if (said)
            else None
        )
        if part["state"] in ("ENDED", "RELEASED"):
            workspaces.append((cluster_pb2.Workspace.ENDED, False))
        elif one is not None:
            workspaces.append((one.state, one.ready))
        else:
            workspaces.append((cluster_pb2.Workspace.PLANNED, False))
    return record["state"], bool(record.get("end_requested_time")), workspaces


def as_told(cluster: cluster_pb2.Cluster) -> Any:
    return (
        cluster_pb2.Cluster.State.Name(cluster.state),
        cluster.HasField("end_requested_time"),
        [(each.state, each.ready) for each in cluster.workspaces],
    )
