"""Users at work: they create, ask, repeat themselves, and end what they have."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.common.rpc.errors import to_domain_error
from tests.sim.network import replicas
from tests.sim.record import Told
from tests.sim.services import addresses
from tests.sim.virtual_loop import Process
from tests.sim.wishes import (
    act_of,
    actions_of,
    amended,
    spec_in_time,
    spec_of,
    switching_of,
    terms_of,
    update_of,
    waiting_spec,
)

if TYPE_CHECKING:
    from tests.sim.world import World

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
        profile, now_s = self.world.profile, self.world.loop.time()
        waits = draw.random() < profile.waits
        stays = not waits and draw.random() < profile.stays
        if waits and self.door == "meta":
            spec = spec_in_time(draw, now_s)
        elif waits:
            spec = waiting_spec(draw, self.door, now_s)
        else:
            spec = spec_of(draw, self.door, now_s, stays=stays)
        request = clusters_pb2.CreateClusterRequest(
            parent="-/tenants/demo",
            cluster_id=cluster_id,
            spec=spec,
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
        if draw.random() < profile.switched:
            await self._switch(told, spec)
        if stays:
            await self._get_other_terms(told, spec, request.request_id)
        if draw.random() < (0.8 if stays else 0.2 if waits else 0.5):
            await self._rest(6.0)
            delete = clusters_pb2.DeleteClusterRequest(name=told.name)
            await self._until_sure("Delete", delete, cluster_id, request.request_id)

    async def _switch(self, told: Told, spec: cluster_pb2.ClusterSpec) -> None:
        """All of a cluster, or one of its workspaces."""
        draw = self.random
        labels = [] if draw.random() < 0.5 else [f"{draw.choice(spec.groups).name}-0"]
        fast = draw.random() < 0.6
        for number, action in enumerate(actions_of(draw)):
            await self._rest(0.7 if fast else 6.0)
            request = act_of(told.name, action, labels, f"a-{told.cluster}-{number}")
            asked = switching_of(request)
            await self._until_sure("Act", request, told.cluster, request.request_id, asked=asked)

    async def _get_other_terms(
        self, told: Told, spec: cluster_pb2.ClusterSpec, request_id: str
    ) -> None:
        """Several times, each time other ones; at times two ask for them at once."""
        draw = self.random
        for number in range(draw.randrange(1, 4)):
            await self._rest(4.0)
            asks = []
            for copy in range(2 if draw.random() < 0.2 else 1):
                after, paths = amended(draw, spec)
                own_id = f"u-{told.cluster}-{number}-{copy}"
                request = update_of(told.name, after, paths, own_id)
                asks.append(
                    self._until_sure(
                        "Update", request, told.cluster, own_id, asked=terms_of(after, paths)
                    )
                )
            if draw.random() < 0.15:
                delete = clusters_pb2.DeleteClusterRequest(name=told.name)
                after_s = draw.random()
                asks.append(
                    self._until_sure("Delete", delete, told.cluster, request_id, after_s=after_s)
                )
            answers = await asyncio.gather(*asks)
            if "Delete" in {each.call for each in answers} and draw.random() < 0.7:
                return
            # Two that ask at once, or one that is not sure: what there is now is to be asked for.
            if len(asks) == 1 and answers[0].outcome == "ok":
                spec = after

    async def _until_sure(
        self,
        method: str,
        request: Any,
        cluster: str = "",
        request_id: str = "",
        *,
        after_s: float = 0.0,
        asked: str = "",
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
                asked,
            )
            if told.outcome != "silence" and told.outcome not in UNSURE:
                break
            await self._rest(2.0)
        return told

    async def _call(
        self, method: str, request: Any, cluster: str, request_id: str, asked: str = ""
    ) -> Told:
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
            began, loop.time(), self.name, method, cluster, request_id, outcome, uid, name, state,
            asked,
        )  # fmt: skip
        self.world.record.told.append(told)
        return told


def _silence(error: grpc.aio.AioRpcError) -> str:
    known = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    return "silence" if error.code() in known else f"{error.code().name}: {error.details()}"
