"""The sites' brokers over gRPC."""

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any, TypeVar

import grpc

from intertie.api.broker.v1 import (
    part_pb2,
    parts_pb2,
    parts_pb2_grpc,
    site_pb2,
    site_pb2_grpc,
)
from intertie.api.types.v1 import attach_pb2
from intertie.common.actions import Action
from intertie.common.clock import Clock
from intertie.common.errors import (
    EtcdUnavailable,
    LedgerFull,
    NoCapacity,
    NotFound,
    Shortfall,
    SiteUnreachable,
)
from intertie.common.intervals import Window
from intertie.common.names import PartName
from intertie.common.rpc.action_proto import action_to_proto
from intertie.common.rpc.attach import relay
from intertie.common.rpc.client import replica_channel, to_domain_error
from intertie.common.rpc.credentials import Credentials
from intertie.common.rpc.spec_proto import part_spec_to_proto
from intertie.common.rpc.terms_proto import (
    timestamp_to_proto,
    window_to_proto,
)
from intertie.common.settings import NamedPeerSettings
from intertie.metasched.convert_parts import (
    decision_to_proto,
    offer_from_proto,
    part_from_proto,
    receipt_from_proto,
)
from intertie.metasched.domain.cluster import PartSeen
from intertie.metasched.domain.commit import Decision
from intertie.metasched.domain.ports import HoldOrder, Prepared, Terms
from intertie.metasched.domain.problem import Offer

T = TypeVar("T")

LOOK_TIMEOUT_S = 3.0
"""Of calls that only look: whoever waits for the answer has an older one."""


_KNOWS_NO_DEADLINES = "its release takes no leases over several sites that have a deadline"


class Broker:
    """One site's stubs."""

    def __init__(self, site: str, connection: grpc.aio.Channel) -> None:
        self.site = site
        self.connection = connection
        self.parts = parts_pb2_grpc.PartsStub(connection)
        self.hosts = site_pb2_grpc.HostsStub(connection)
        self.sites = site_pb2_grpc.SitesStub(connection)


class BrokerSites:
    """Every known site. A broker that is not there, too slow, or without its etcd is
    SiteUnreachable; what brokers refuse is raised as the error that they meant."""

    def __init__(self, brokers: Mapping[str, Broker], *, timeout_s: float) -> None:
        self._brokers = brokers
        self._timeout_s = timeout_s
        self._patient: dict[str, Any] = {"timeout": timeout_s, "wait_for_ready": True}
        """Of calls in the midst of a co-allocation: a broker that is just being restarted is
        waited for as long as one that is slow."""

    @classmethod
    def connect(
        cls,
        peers: tuple[NamedPeerSettings, ...],
        credentials: Credentials,
        clock: Clock,
        *,
        timeout_s: float,
    ) -> "BrokerSites":
        """Lazy: connects with the first call to each. Follows certificate and roots.

        Where no replica of a site leads, the answer is NotLeading at once: a hold says what time
        it is, so whoever waits has to ask anew.
        """
        return cls(
            {
                peer.name: Broker(
                    peer.name,
                    replica_channel(
                        peer.addresses, credentials, peer.server_name, clock, patience_s=0
                    ),
                )
                for peer in peers
            },
            timeout_s=timeout_s,
        )

    async def close(self) -> None:
        for broker in self._brokers.values():
            await broker.connection.close()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._brokers)

    async def offers(
        self,
        site: str,
        tenant: str,
        windows: tuple[Window, ...],
        images: tuple[str, ...],
        *,
        before_others: bool = False,
    ) -> tuple[Offer, ...]:
        request = parts_pb2.ListOffersRequest(
            parent=f"sites/{site}/tenants/{tenant}",
            windows=[window_to_proto(window) for window in windows],
            images=images,
            before_others=before_others,
        )
        broker = self._broker(site)
        answer = await self._answer(site, broker.parts.ListOffers(request, timeout=self._timeout_s))
        if len(answer.offers) != len(windows):
            raise SiteUnreachable(site, f"{len(answer.offers)} offers for {len(windows)} windows")
        return tuple(offer_from_proto(each) for each in answer.offers)

    async def prepare(self, order: HoldOrder) -> Prepared:
        part = order.part
        request = parts_pb2.HoldPartRequest(
            parent=f"sites/{part.site}/tenants/{part.tenant}",
            part_id=part.part_id,
            spec=part_spec_to_proto(order.spec),
            tx=order.tx,
            digest=order.digest,
            coordinator=order.coordinator,
            participants=order.participants,
            decide_by=timestamp_to_proto(order.decide_by),
            coordinator_time=timestamp_to_proto(order.now),
            request_id=order.tx,
            owner=order.owner,
            prepare=True,
            amend=None if order.replaces is None else parts_pb2.PartAmend(replaces=order.replaces),
        )
        broker = self._broker(part.site)
        answer: parts_pb2.HoldPartResponse = await self._answer(
            part.site, broker.parts.Hold(request, **self._patient)
        )
        terms, taken = order.spec.recallable, answer.part.spec.recallable
        if terms is not None and terms.deadline is not None and not taken.HasField("deadline"):
            # That release would put it aside with nothing promised.
            said = f"{part.site}: {_KNOWS_NO_DEADLINES}"
            raise NoCapacity((Shortfall(site=part.site, resource="policy", message=said),))
        return Prepared(
            receipt=receipt_from_proto(answer.receipt), seen=part_from_proto(answer.part)
        )

    async def act(
        self,
        part: PartName,
        action: Action,
        workspaces: Sequence[str],
        *,
        image: str,
        request_id: str,
    ) -> PartSeen:
        request = parts_pb2.ActOnPartRequest(
            name=str(part),
            action=action_to_proto(action),
            workspaces=workspaces,
            image=image,
            request_id=request_id,
        )
        broker = self._broker(part.site)
        answer: part_pb2.Part = await self._answer(
            part.site, broker.parts.Act(request, **self._patient)
        )
        return part_from_proto(answer)

    async def resolve(
        self, part: PartName, decision: Decision, terms: Terms | None = None
    ) -> PartSeen:
        request = parts_pb2.ResolvePartRequest(name=str(part), decision=decision_to_proto(decision))
        if terms is not None:
            request.amend.replaces = terms.replaces
            request.spec.CopyFrom(part_spec_to_proto(terms.spec))
        broker = self._broker(part.site)
        answer: part_pb2.Part = await self._answer(
            part.site, broker.parts.Resolve(request, **self._patient)
        )
        return part_from_proto(answer)

    async def release(self, part: PartName, reason: str) -> None:
        request = parts_pb2.ReleasePartRequest(name=str(part), reason=reason)
        broker = self._broker(part.site)
        await self._answer(part.site, broker.parts.Release(request, **self._patient))

    async def part(self, part: PartName) -> PartSeen:
        request = parts_pb2.GetPartRequest(name=str(part))
        broker = self._broker(part.site)
        answer: part_pb2.Part = await self._answer(
            part.site, broker.parts.Get(request, timeout=LOOK_TIMEOUT_S)
        )
        return part_from_proto(answer)

    async def describe(self, site: str) -> site_pb2.Site:
        """What the site tells of itself, for whoever looks at it."""
        request = site_pb2.GetSiteRequest(name=f"sites/{site}")
        broker = self._named(site)
        return await self._answer(site, broker.sites.Get(request, timeout=LOOK_TIMEOUT_S))

    async def hosts(self, request: site_pb2.ListHostsRequest) -> site_pb2.ListHostsResponse:
        site = request.parent.removeprefix("sites/")
        broker = self._named(site)
        return await self._answer(site, broker.hosts.List(request, timeout=self._timeout_s))

    def attach(
        self,
        site: str,
        opened: Any,
        requests: AsyncIterator[attach_pb2.AttachRequest],
    ) -> AsyncIterator[attach_pb2.AttachResponse]:
        """A byte stream to a workspace that is named as the site names it."""
        return relay(opened, requests, self._broker(site).parts.Attach)

    def _named(self, site: str) -> Broker:
        """Of a site that a caller names."""
        if site not in self._brokers:
            raise NotFound(f"sites/{site}")
        return self._brokers[site]

    def _broker(self, site: str) -> Broker:
        """Of a site that has a part. NotFound would say that the part is not there."""
        broker = self._brokers.get(site)
        if broker is None:
            raise SiteUnreachable(site, "this meta-scheduler's configuration does not name it")
        return broker

    async def _answer(self, site: str, call: Awaitable[T]) -> T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            meant = to_domain_error(error)
            if isinstance(meant, LedgerFull):
                raise LedgerFull(f"{site}: {meant.problem}") from None
            if meant is None or isinstance(meant, EtcdUnavailable):
                problem = f"{error.code().name}: {error.details()}"
                raise SiteUnreachable(site, problem) from None
            raise meant from None
