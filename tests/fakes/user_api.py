"""What users speak to, in memory: Clusters, KnownSites, Hosts and Images of one tenant.

`refusals` are raised by the next calls of Create, one each; `cuts` break uploads off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from blake3 import blake3

from intertie.api.broker.v1.site_pb2 import Capacity, Host, ListHostsResponse, Site, SiteLink
from intertie.api.cluster.v1 import clusters_pb2_grpc
from intertie.api.cluster.v1.cluster_pb2 import Address, Cluster, Plan, PlannedPart, Workspace
from intertie.api.cluster.v1.clusters_pb2 import (
    ListClustersResponse,
    PlanClusterResponse,
    PlanOption,
    WatchClustersResponse,
)
from intertie.api.imagestore.v1 import images_pb2_grpc
from intertie.api.imagestore.v1.images_pb2 import Image, ListImagesResponse
from intertie.api.metasched.v1 import sites_pb2_grpc
from intertie.api.metasched.v1.sites_pb2 import KnownSite, ListKnownSitesResponse
from intertie.api.types.v1.action_pb2 import Action
from intertie.api.types.v1.attach_pb2 import AttachResponse
from intertie.api.types.v1.snapshot_pb2 import Snapshot
from intertie.common.errors import (
    ConnectionRefused,
    DomainError,
    NotFound,
    OffsetMismatch,
    RequestIdReuse,
)

AUTHORITY = "metascheds/meta"
SERIAL = b"login: "


class FakeClusters(clusters_pb2_grpc.ClustersServicer):
    def __init__(self) -> None:
        self.clusters: dict[str, Cluster] = {}
        self.requests: list[Any] = []
        self.refusals: list[DomainError] = []
        self.stuck = False
        """Nothing becomes ready."""
        self.silent = False
        """Creates are never answered."""
        self.streams: list[list[WatchClustersResponse | Exception | None]] = []
        """What each stream of all clusters tells before it says no more; at None it ends."""
        self.resumed: list[str] = []
        """The tokens of those streams."""
        self.asked = asyncio.Event()
        """A Create has arrived."""

    async def Create(self, request: Any, context: Any) -> Cluster:
        self.requests.append(request)
        self.asked.set()
        if self.silent:
            await asyncio.Event().wait()
        if self.refusals:
            raise self.refusals.pop(0)
        name = f"{AUTHORITY}/{request.parent.removeprefix('-/')}/clusters/{request.cluster_id}"
        plan = Plan(optimal=True, cost=0.25, reasons=["north has the image"])
        counts = {group.name: group.count for group in request.spec.groups}
        plan.parts.append(PlannedPart(site="north", counts=counts, cost=0.25))
        made = Cluster(name=name, spec=request.spec, plan=plan, uid=request.request_id)
        if request.validate_only:
            return made
        if name in self.clusters:
            if self.clusters[name].spec != request.spec:
                raise RequestIdReuse(request.request_id)
            return self.clusters[name]
        made.state = Cluster.SCHEDULED
        for group in request.spec.groups:
            for index in range(group.count):
                self._add_workspace(made, group.name, index)
        self.clusters[name] = made
        return made

    @staticmethod
    def _add_workspace(made: Cluster, group: str, index: int) -> None:
        number = 10 + len(made.workspaces)
        made.workspaces.append(
            Workspace(
                name=f"{made.name}/workspaces/{group}-{index}",
                group=group,
                index=index,
                site="north",
                host="n1",
                state=Workspace.STAGING,
                staging_done_bytes=512 * 1024,
                staging_total_bytes=1024 * 1024,
                image_digest="b3:00",
                addresses=[Address(network="lan", address=f"10.1.0.{number}/24")],
            )
        )

    def _find(self, name: str) -> Cluster:
        full_name = name.replace("-/", f"{AUTHORITY}/", 1) if name.startswith("-/") else name
        if full_name not in self.clusters:
            raise NotFound(full_name)
        return self.clusters[full_name]

    async def Plan(self, request: Any, context: Any) -> PlanClusterResponse:
        """Everything at north at once, or a half of it at south in an hour for less."""
        self.requests.append(request)
        if self.refusals:
            raise self.refusals.pop(0)
        names = {group.name: group.count for group in request.spec.groups}
        dear = Plan(cost=0.25, parts=[PlannedPart(site="north", counts=names, cost=0.25)])
        cheap = Plan(cost=0.1, parts=[PlannedPart(site="south", counts=names, cost=0.1)])
        first = PlanOption(merits=[PlanOption.EARLIEST], plan=dear, token="a" * 32)
        other = PlanOption(merits=[PlanOption.CHEAPEST], plan=cheap, token="b" * 32)
        for option, cost in ((first, 0.25), (other, 0.1)):
            option.price.amount = cost
            option.accept_before.seconds = 1_800_000_300
        other.plan.start_time.seconds = 1_800_003_600
        other.gives_way.add(site="south", resource="vcpus", wanted=4, available=1, unit="vCPU")
        return PlanClusterResponse(options=[first, other])

    async def Get(self, request: Any, context: Any) -> Cluster:
        return self._find(request.name)

    async def List(self, request: Any, context: Any) -> ListClustersResponse:
        """A page holds one, so that every reader of more must turn pages."""
        names = sorted(self.clusters)
        at = int(request.page_token or 0)
        more = str(at + 1) if at + 1 < len(names) else ""
        page = [self.clusters[name] for name in names[at : at + 1]]
        return ListClustersResponse(clusters=page, next_page_token=more)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Cluster]:
        cluster = self._find(request.name)
        yield cluster
        if self.stuck:
            await asyncio.Event().wait()
        if cluster.HasField("end_requested_time"):
            cluster.state = Cluster.CANCELLED
        else:
            for workspace in cluster.workspaces:
                workspace.state, workspace.ready = Workspace.RUNNING, True
            cluster.state = Cluster.ACTIVE
        yield cluster

    async def Act(self, request: Any, context: Any) -> Cluster:
        self.requests.append(request)
        if self.refusals:
            raise self.refusals.pop(0)
        cluster = self._find(request.name)
        state = {
            Action.STOP: Workspace.STOPPED,
            Action.PAUSE: Workspace.PAUSED,
            Action.SUSPEND: Workspace.SUSPENDED,
        }.get(request.action, Workspace.RUNNING)
        if request.action == Action.SNAPSHOT:
            self._snapshot(cluster, request)
            return cluster
        for each in cluster.workspaces:
            if not request.workspaces or each.name.rpartition("/")[2] in request.workspaces:
                each.state, each.ready = state, state == Workspace.RUNNING
                each.ready_time.GetCurrentTime()
        return cluster

    def _snapshot(self, cluster: Cluster, request: Any) -> None:
        """Done at once; one that is called `broken` is not."""
        for each in cluster.workspaces:
            if each.name.rpartition("/")[2] in request.workspaces:
                each.snapshot.image = f"sites/{each.site}/tenants/demo/images/{request.image}"
                fails = request.image == "broken"
                each.snapshot.state = Snapshot.FAILED if fails else Snapshot.READY
                each.snapshot.message = "the pool is full" if fails else ""
                each.snapshot.taken_time.FromSeconds(1_900_000_000)

    async def Update(self, request: Any, context: Any) -> Cluster:
        self.requests.append(request)
        if self.refusals:
            raise self.refusals.pop(0)
        cluster = self._find(request.cluster.name)
        if request.validate_only:
            copy = Cluster()
            copy.CopyFrom(cluster)
            cluster = copy
        for path in request.update_mask.paths:
            at, _, field = path.removeprefix("spec.").rpartition(".")
            here, there = cluster.spec, request.cluster.spec
            if at:
                here, there = getattr(here, at), getattr(there, at)
            here.ClearField(field)
            if at:
                getattr(here, field).CopyFrom(getattr(there, field))
            else:
                getattr(here, field).extend(getattr(there, field))
        cluster.terms += 1
        return cluster

    async def WatchAll(self, request: Any, context: Any) -> AsyncIterator[WatchClustersResponse]:
        self.resumed.append(request.resume_token)
        for each in self.streams.pop(0) if self.streams else ():
            if isinstance(each, Exception):
                raise each
            if each is None:
                return
            yield each
        await asyncio.Event().wait()

    async def Delete(self, request: Any, context: Any) -> Cluster:
        cluster = self._find(request.name)
        cluster.end_requested_time.FromSeconds(1_800_000_000)
        return cluster

    async def Attach(self, requests: Any, context: Any) -> AsyncIterator[AttachResponse]:
        """An echo: TCP gives back what it is sent, the console greets first. Port 1 refuses."""
        opening = await anext(requests)
        cluster, _, _ = opening.open.workspace.partition("/workspaces/")
        self._find(cluster)
        if opening.open.port == 1:
            raise ConnectionRefused(opening.open.workspace, 1)
        yield AttachResponse(opened=True)
        if not opening.open.port:
            yield AttachResponse(data=SERIAL)
        async for request in requests:
            if request.WhichOneof("frame") == "end":
                break
            yield AttachResponse(data=request.data)
        yield AttachResponse(end=True)


def _capacity(share: int) -> Capacity:
    return Capacity(
        vcpus=16 * share,
        memory_mib=1792 * share,
        disk_mib=8192 * share,
        iops=2000 * share,
        throughput_mib_s=200 * share,
        uplink_mbit_s=400 * share,
    )


def host(site: str, name: str) -> Host:
    return Host(
        name=f"sites/{site}/hosts/{name}",
        capacity=_capacity(1),
        free=_capacity(1),
        gateway=name.endswith("1"),
        alive=True,
    )


class FakeKnownSites(sites_pb2_grpc.KnownSitesServicer):
    async def List(self, request: Any, context: Any) -> ListKnownSitesResponse:
        link = SiteLink(
            peer="south",
            egress_mbit_s=200,
            ingress_mbit_s=200,
            free_egress_mbit_s=160,
            free_ingress_mbit_s=200,
        )
        link.latency.FromMilliseconds(5)
        north = Site(
            name="sites/north",
            capacity=_capacity(2),
            free=_capacity(2),
            hosts=2,
            hosts_alive=2,
            links=[link],
        )
        lost = KnownSite(site=Site(name="sites/south"), reachable=False, message="no answer")
        return ListKnownSitesResponse(sites=[KnownSite(site=north, reachable=True), lost])

    async def ListHosts(self, request: Any, context: Any) -> ListHostsResponse:
        site = request.parent.removeprefix("sites/")
        at = int(request.page_token or 1)
        more = str(at + 1) if at < 2 else ""
        return ListHostsResponse(hosts=[host(site, f"n{at}")], next_page_token=more)


class FakeImages(images_pb2_grpc.ImagesServicer):
    def __init__(self) -> None:
        self.bytes: dict[str, bytes] = {}
        self.names: dict[str, str] = {}
        self.offsets: list[int] = []
        """Where each Put began."""
        self.cuts: list[int] = []
        """The next Puts break off once the store has so many bytes."""

    async def Put(self, requests: Any, context: Any) -> Image:
        header = (await anext(requests)).header
        self.offsets.append(header.offset)
        have = self.bytes.get(header.digest, b"")
        if header.offset != len(have):
            raise OffsetMismatch(header.offset, len(have))
        await context.send_initial_metadata((("intertie-accepted", "1"),))
        cut = self.cuts.pop(0) if self.cuts else None
        async for request in requests:
            have += request.data
            self.bytes[header.digest] = have
            if cut is not None and len(have) >= cut:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        assert f"b3:{blake3(have).hexdigest()}" == header.digest
        self.names[header.image_id] = header.digest
        return self._image(header.image_id, header.digest, header.size_bytes)

    def _image(self, image_id: str, digest: str, size: int) -> Image:
        have = len(self.bytes[digest])
        return Image(
            name=f"sites/north/tenants/demo/images/{image_id}",
            digest=digest,
            size_bytes=size,
            state=Image.READY if digest in self.names.values() else Image.UPLOADING,
            uploaded_bytes=have,
        )

    async def Stat(self, request: Any, context: Any) -> Image:
        name = request.name.rpartition("/")[2]
        digest = self.names.get(name, name)
        if digest not in self.bytes:
            raise NotFound(request.name)
        return self._image(name, digest, len(self.bytes[digest]))

    async def List(self, request: Any, context: Any) -> ListImagesResponse:
        found = [self._image(n, d, len(self.bytes[d])) for n, d in self.names.items()]
        return ListImagesResponse(images=found)

    async def Delete(self, request: Any, context: Any) -> Image:
        name = request.name.rpartition("/")[2]
        if name not in self.names:
            raise NotFound(request.name)
        image = self._image(name, self.names[name], 0)
        del self.bytes[self.names.pop(name)]
        return image
