"""What is short, between the wire and the domain. A client needs no more of our values."""

from datetime import UTC

from google.protobuf.timestamp_pb2 import Timestamp

from intertie.api.types.v1 import resources_pb2 as types_pb2
from intertie.common.errors import Shortfall


def shortfall_to_proto(shortfall: Shortfall) -> types_pb2.Shortfall:
    until = None
    if shortfall.until is not None:
        until = Timestamp()
        until.FromDatetime(shortfall.until)
    return types_pb2.Shortfall(
        site=shortfall.site,
        host=shortfall.host,
        resource=shortfall.resource,
        wanted=shortfall.wanted,
        available=shortfall.available,
        unit=shortfall.unit,
        group=shortfall.group,
        peer=shortfall.peer,
        message=str(shortfall),
        field=shortfall.field,
        until=until,
    )


def shortfall_from_proto(message: types_pb2.Shortfall) -> Shortfall:
    return Shortfall(
        site=message.site,
        host=message.host,
        resource=message.resource,
        wanted=message.wanted,
        available=message.available,
        unit=message.unit,
        group=message.group,
        peer=message.peer,
        message=message.message,
        field=message.field,
        until=message.until.ToDatetime(UTC) if message.HasField("until") else None,
    )
