"""Prices on the wire."""

from collections.abc import Sequence
from typing import Any

from intertie.api.types.v1 import price_pb2
from intertie.common.price import PriceTerm
from intertie.common.rpc.terms_proto import window_fields, window_from_proto
from intertie.common.tariff import RoomMade


def price_fields(terms: Sequence[PriceTerm]) -> dict[str, Any] | None:
    """None where nothing was agreed: by releases that knew no prices."""
    if not terms:
        return None
    return {
        "amount": sum(each.amount for each in terms),
        "terms": [
            {
                "site": each.site,
                "window": window_fields(each.window),
                "kind": each.kind,
                "amount": each.amount,
                **_room_made_fields(each.room),
            }
            for each in terms
        ],
    }


def _room_made_fields(room: RoomMade | None) -> dict[str, Any]:
    if room is None:
        return {}
    amounts = {"vcpus": room.vcpus, "memory_mib": room.memory_mib, "amount": room.amount}
    return {"room_made": amounts}


def _room_made_from_proto(message: price_pb2.RoomMade) -> RoomMade:
    return RoomMade(vcpus=message.vcpus, memory_mib=message.memory_mib, amount=message.amount)


def price_from_proto(message: price_pb2.Price) -> tuple[PriceTerm, ...]:
    return tuple(
        PriceTerm(
            site=each.site,
            window=window_from_proto(each.window, "price.terms.window"),
            kind=each.kind,
            amount=each.amount,
            room=_room_made_from_proto(each.room_made) if each.HasField("room_made") else None,
        )
        for each in message.terms
    )
