"""The Usage API."""

from typing import Any

from intertie.api.broker.v1 import usage_pb2, usage_pb2_grpc
from intertie.broker import convert
from intertie.broker.usage_proto import checkpoint_to_proto, record_from_bytes
from intertie.broker.usecases.list_usage import ListUsage, Span
from intertie.common.errors import FieldInvalid
from intertie.common.rpc.pages import decode, encode, fitting, size_of
from intertie.common.rpc.spec_proto import timestamp_from_proto
from intertie.common.usage_chain import name_of_certificate

Context = Any

MOST_ENTRIES = 500
"""Of one page: each may have a checkpoint beside it."""


class UsageServicer(usage_pb2_grpc.UsageServicer):
    def __init__(self, site: str, usage: ListUsage) -> None:
        self._site = site
        self._usage = usage

    async def List(
        self, request: usage_pb2.ListUsageRequest, context: Context
    ) -> usage_pb2.ListUsageResponse:
        parent = convert.parent_here(request.parent, self._site)
        span = _span(request)
        scope = f"{parent}/usage?{span}"
        found, following = await self._usage.records(
            convert.tenant_of(parent),
            span,
            after=_number(request.page_token, scope),
            size=size_of(request.page_size),
        )
        records, token = fitting(
            [(str(each.number), record_from_bytes(each.number, each.body)) for each in found],
            encode(str(following), scope) if following else "",
            scope=scope,
        )
        return usage_pb2.ListUsageResponse(records=records, next_page_token=token)

    async def ListEntries(
        self, request: usage_pb2.ListUsageEntriesRequest, context: Context
    ) -> usage_pb2.ListUsageEntriesResponse:
        parent = convert.parent_here(request.parent, self._site)
        tenant = convert.tenant_of(parent)
        scope = f"{parent}/usage/entries"
        page = await self._usage.chain(
            tenant,
            after=_number(request.page_token, scope),
            size=min(size_of(request.page_size), MOST_ENTRIES),
        )
        entries, token = fitting(
            [
                (
                    str(each.number),
                    usage_pb2.UsageEntry(
                        number=each.number,
                        digest=each.digest,
                        hash=each.hash,
                        record=page.bodies.get(each.number, b""),
                        withheld=tenant not in ("", each.tenant),
                    ),
                )
                for each in page.entries
            ],
            encode(str(page.entries[-1].number), scope) if page.more else "",
            scope=scope,
        )
        checkpoints = [
            each for each in page.checkpoints if not token or each.number <= entries[-1].number
        ]
        return usage_pb2.ListUsageEntriesResponse(
            site=self._site,
            entries=entries,
            checkpoints=[checkpoint_to_proto(each) for each in checkpoints],
            certificates={
                name_of_certificate(each.certificate): each.certificate for each in checkpoints
            },
            next_page_token=token,
        )


def _number(token: str, scope: str) -> int:
    return int(decode(token, scope) or 0)


def _span(request: usage_pb2.ListUsageRequest) -> Span:
    start, end = (
        timestamp_from_proto(getattr(request, field), field) if request.HasField(field) else None
        for field in ("start_time", "end_time")
    )
    if start is not None and end is not None and not start < end:
        raise FieldInvalid("end_time", "must be later than start_time; leave it out for no end")
    return Span(start=start, end=end)
