"""Users at work: they create, ask, repeat themselves, and end what they have."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.api.types.v1 import resources_pb2
from intertie.common.rpc.errors import to_domain_error
from tests.sim.network import replicas
from tests.sim.record import Told
from tests.sim.services import SITES, addresses
from tests.sim.virtual_loop import EPOCH, Process

if TYPE_CHECKING:
    from tests.sim.world import World

GRID_S = 10
"""Leases that are asked for ahead begin and end at multiples of this, so that many touch."""
TRIES = 6
UNSURE = frozenset({"EtcdUnavailable", "NotLeading", "SiteUnreachable", "StaleWrite", "Aborted"})
"""After these a user asks again, with the same request id."""


class User:
    def __init__(self, world: World, name: str, door: str) -> None:
        self.world = world
        self.name = name
        self.door = door
        self.process = Process(world.loop, f"user-{name}", offset_s=0.0, seed=world.profile.seed)
        self.random = self.process.random
        domain = "meta.meta.intertie" if door == "meta" else f"{door}.site.intertie"
        self.spiffe = f"spiffe://{domain}/tenant/demo/user/{name}"
        channel = replicas(
            world.network, self.spiffe, addresses(door), self.process, patience_s=5.0
        )
        self.stub: Any = clusters_pb2_grpc.ClustersStub(channel)
        self._under_way: list[asyncio.Task[None]] = []

    async def live(self) -> None:
        """A number of wishes, over the time that the world is busy."""
        profile = self.world.profile
        wishes = max(profile.calls_per_user // 4, 1)
        for number in range(wishes):
            await self._rest(profile.busy_s / wishes)
            wish = self._wish(f"{self.name}-{number}", number)
            self._under_way.append(asyncio.create_task(wish))
        await asyncio.gather(*self._under_way)

    async def _rest(self, mean_s: float) -> None:
        await self.world.loop.sleep(self.random.expovariate(1 / mean_s))

    async def _wish(self, cluster_id: str, number: int) -> None:
        draw = self.random
        request = clusters_pb2.CreateClusterRequest(
            parent="-/tenants/demo",
            cluster_id=cluster_id,
            spec=self._spec(),
            request_id=f"r-{cluster_id}",
        )
        copies = [self._until_sure("Create", request)]
        if draw.random() < 0.25:
            copies.append(self._until_sure("Create", request, after_s=draw.random() * 2))
        told = (await asyncio.gather(*copies))[0]
        if draw.random() < 0.4:
            await self._rest(3.0)
            await self._until_sure("Create", request)
        if told.outcome != "ok":
            return
        await self._rest(5.0)
        get = clusters_pb2.GetClusterRequest(name=told.name)
        await self._call("Get", get, cluster_id, request.request_id)
        if draw.random() < 0.5:
            await self._rest(6.0)
            delete = clusters_pb2.DeleteClusterRequest(name=told.name)
            await self._until_sure("Delete", delete, cluster_id, request.request_id)

    def _spec(self) -> cluster_pb2.ClusterSpec:
        draw = self.random
        if draw.random() < (0.75 if self.door == "meta" else 0.35):
            groups = [self._group(f"g-{site}", site) for site in SITES]
        else:
            groups = [self._group("worker", "" if self.door == "meta" else self.door)]
        lease = cluster_pb2.LeaseTerms()
        if draw.random() < 0.5:
            ahead = int(self.world.loop.time() / GRID_S) + draw.randrange(1, 4)
            lease.start_time.FromDatetime(EPOCH + timedelta(seconds=ahead * GRID_S))
            lease.duration.FromSeconds(draw.choice((GRID_S, GRID_S, 2 * GRID_S, 2 * GRID_S + 1)))
        else:
            lease.duration.FromSeconds(draw.randrange(10, 50))
        if draw.random() < 0.3:
            lease.max_delay.FromSeconds(30)
        # Without one, no VXLAN id is taken, which would be compared beside all else.
        lan = [cluster_pb2.Network(name="lan", subnet="10.1.0.0/24")]
        networks = lan if draw.random() < 0.6 else []
        return cluster_pb2.ClusterSpec(groups=groups, networks=networks, lease=lease)

    def _group(self, name: str, site: str) -> cluster_pb2.Group:
        draw = self.random
        return cluster_pb2.Group(
            name=name,
            count=draw.choice((1, 1, 2)),
            environment=resources_pb2.Environment(
                image="guest", readiness=resources_pb2.Environment.RUNNING
            ),
            allocation=resources_pb2.Allocation(
                vcpus=draw.choice((2, 4, 4, 6)), memory_mib=256, disk_mib=128,
                disk=resources_pb2.DiskTerm(guarantee_iops=100),
            ),
            placement=cluster_pb2.GroupPlacement(allow_sites=[site] if site else []),
        )  # fmt: skip

    async def _until_sure(
        self,
        method: str,
        request: Any,
        cluster: str = "",
        request_id: str = "",
        *,
        after_s: float = 0.0,
    ) -> Told:
        """Repeats a call while nobody can say what came of it."""
        if after_s:
            await self.world.loop.sleep(after_s)
        for _ in range(TRIES):
            told = await self._call(
                method,
                request,
                cluster or request.cluster_id,
                request_id or request.request_id,
            )
            if told.outcome != "silence" and told.outcome not in UNSURE:
                break
            await self._rest(2.0)
        return told

    async def _call(self, method: str, request: Any, cluster: str, request_id: str) -> Told:
        loop = self.world.loop
        began, timeout_s = loop.time(), self.random.choice((5.0, 20.0))
        uid = name = state = ""
        try:
            answer = await getattr(self.stub, method)(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            meant = to_domain_error(error)
            outcome = type(meant).__name__ if meant is not None else _silence(error)
        else:
            outcome, uid, name = "ok", answer.uid, answer.name
            state = cluster_pb2.Cluster.State.Name(answer.state)
        told = Told(
            began, loop.time(), self.name, method, cluster, request_id, outcome, uid, name, state
        )
        self.world.record.told.append(told)
        return told


def _silence(error: grpc.aio.AioRpcError) -> str:
    known = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    return "silence" if error.code() in known else f"{error.code().name}: {error.details()}"
