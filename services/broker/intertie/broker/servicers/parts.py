"""The Parts API: a site's side of co-allocation."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from intertie.api.broker.v1 import part_pb2, parts_pb2, parts_pb2_grpc
from intertie.api.types.v1 import attach_pb2
from intertie.broker import batch_proto, convert, site_proto
from intertie.broker.domain.part import Part
from intertie.broker.receipts_proto import decision_from_proto, receipt_to_proto
from intertie.broker.servicers.clusters import caller
from intertie.broker.servicers.streams import Agents
from intertie.broker.usecases.act import ActOnPart
from intertie.broker.usecases.find_workspace import FindWorkspace
from intertie.broker.usecases.get_parts import GetParts
from intertie.broker.usecases.hold_amend import HoldAmend
from intertie.broker.usecases.hold_part import HoldPart
from intertie.broker.usecases.list_offers import ListOffers
from intertie.broker.usecases.prepare_part import PreparePart
from intertie.broker.usecases.release_part import ReleasePart
from intertie.broker.usecases.resolve_part import ResolvePart
from intertie.common.clock import Clock
from intertie.common.names import split_workspace
from intertie.common.rpc import attach
from intertie.common.rpc.identity import Role, current_identity
from intertie.common.rpc.pages import fitting, page_of
from intertie.common.rpc.spec_proto import timestamp_to_proto, window_from_proto

Context = Any


def coordinator() -> str | None:
    """Whose parts the caller may see; None: everybody's, for an operator only."""
    identity = current_identity()
    return None if identity.role is Role.OPERATOR else identity.spiffe


class PartsServicer(parts_pb2_grpc.PartsServicer):
    def __init__(
        self,
        site: str,
        clock: Clock,
        offers: ListOffers,
        hold: HoldPart,
        hold_amend: HoldAmend,
        prepare: PreparePart,
        resolve: ResolvePart,
        release: ReleasePart,
        act: ActOnPart,
        get: GetParts,
        find: FindWorkspace,
        agents: Agents,
    ) -> None:
        self._site = site
        self._clock = clock
        self._offers = offers
        self._hold = hold
        self._hold_amend = hold_amend
        self._prepare = prepare
        self._resolve = resolve
        self._release = release
        self._act = act
        self._get = get
        self._find = find
        self._agents = agents

    async def ListOffers(
        self, request: parts_pb2.ListOffersRequest, context: Context
    ) -> parts_pb2.ListOffersResponse:
        parent = convert.parent_here(request.parent, self._site)
        windows = tuple(
            window_from_proto(each, f"windows[{i}]") for i, each in enumerate(request.windows)
        )
        offers = await self._offers(
            parent.tenant, windows, tuple(request.images), before_others=request.before_others
        )
        return parts_pb2.ListOffersResponse(
            offers=[site_proto.offer_to_proto(each) for each in offers]
        )

    async def Hold(
        self, request: parts_pb2.HoldPartRequest, context: Context
    ) -> parts_pb2.HoldPartResponse:
        return await self._held(request)

    async def BatchHold(
        self, request: parts_pb2.BatchHoldPartsRequest, context: Context
    ) -> parts_pb2.BatchHoldPartsResponse:
        batch_proto.check_holds(request)
        # All are decided before the first transaction begins, so that they are in it together.
        answers = await asyncio.gather(
            *(self._held(each) for each in request.requests), return_exceptions=True
        )
        return parts_pb2.BatchHoldPartsResponse(
            results=[batch_proto.hold_result(each) for each in answers]
        )

    async def _held(self, request: parts_pb2.HoldPartRequest) -> parts_pb2.HoldPartResponse:
        who = caller()
        order = convert.hold_from_proto(request, site=self._site, caller=who.spiffe)
        if order.amends:
            part, receipt = await self._hold_amend(order, who)
        else:
            part, receipt = await self._hold(order, who)
        return parts_pb2.HoldPartResponse(
            part=await self._told(part),
            receipt=receipt_to_proto(receipt),
            site_time=timestamp_to_proto(self._clock.now()),
        )

    async def Prepare(
        self, request: parts_pb2.PreparePartRequest, context: Context
    ) -> parts_pb2.PreparePartResponse:
        name = convert.part_here(request.name, self._site)
        part, receipt = await self._prepare(name, caller(), request.tx)
        return parts_pb2.PreparePartResponse(
            part=await self._told(part), receipt=receipt_to_proto(receipt)
        )

    async def Resolve(
        self, request: parts_pb2.ResolvePartRequest, context: Context
    ) -> part_pb2.Part:
        name = convert.part_here(request.name, self._site)
        decision = decision_from_proto(request.decision)
        terms = convert.terms_from_proto(request)
        return await self._told(await self._resolve(name, decision, caller(), terms))

    async def Release(
        self, request: parts_pb2.ReleasePartRequest, context: Context
    ) -> part_pb2.Part:
        name = convert.part_here(request.name, self._site)
        released = await self._release(name, request.reason, caller(), request.tx)
        return await self._told(released)

    async def Act(self, request: parts_pb2.ActOnPartRequest, context: Context) -> part_pb2.Part:
        who = caller()
        name = convert.part_here(request.name, self._site)
        order = convert.act_from_proto(request, caller=who.spiffe)
        return await self._told(await self._act(name, order, who))

    async def Get(self, request: parts_pb2.GetPartRequest, context: Context) -> part_pb2.Part:
        name = convert.part_here(request.name, self._site)
        return convert.part_to_proto(await self._get.one(name, coordinator=coordinator()))

    async def List(
        self, request: parts_pb2.ListPartsRequest, context: Context
    ) -> parts_pb2.ListPartsResponse:
        parent = convert.parent_here(request.parent, self._site)
        tenant = convert.tenant_of(parent)
        found = await self._get.all(tenant, coordinator=coordinator())
        page, following = page_of(
            found,
            lambda each: each.part.name,
            size=request.page_size,
            token=request.page_token,
            scope=f"{parent}/parts",
        )
        parts, following = fitting(
            [(each.part.name, convert.part_to_proto(each)) for each in page],
            following,
            scope=f"{parent}/parts",
        )
        return parts_pb2.ListPartsResponse(parts=parts, next_page_token=following)

    async def Attach(
        self, request_iterator: AsyncIterator[attach_pb2.AttachRequest], context: Context
    ) -> AsyncIterator[attach_pb2.AttachResponse]:
        opened = await attach.opening(request_iterator)
        owner, workspace = split_workspace(opened.workspace, "open.workspace")
        name = convert.part_here(owner, self._site)
        at = await self._find.of_part(name, workspace, coordinator=coordinator())
        async for each in self._agents.attach(at, opened, request_iterator):
            yield each

    async def _told(self, part: Part) -> part_pb2.Part:
        return convert.part_to_proto(await self._get.seen(part))
