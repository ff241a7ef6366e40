"""Refunds on the wire."""

from collections.abc import Sequence
from typing import Any

from intertie.api.types.v1 import refund_pb2
from intertie.common.refund import RefundItem
from intertie.common.rpc.terms_proto import window_fields, window_from_proto


def refund_fields(items: Sequence[RefundItem]) -> dict[str, Any] | None:
    """None where nothing is given back."""
    if not items:
        return None
    return {
        "amount": sum(each.amount for each in items),
        "items": [refund_item_fields(each) for each in items],
    }


def refund_item_fields(item: RefundItem) -> dict[str, Any]:
    return {
        "site": item.site,
        "reason": item.reason,
        "kind": item.kind,
        "network": item.network,
        "from": item.source,
        "to": item.target,
        "window": window_fields(item.window),
        "promised": item.promised,
        "measured": item.measured,
        "amount": item.amount,
    }


def refund_from_proto(message: refund_pb2.Refund) -> tuple[RefundItem, ...]:
    return tuple(
        RefundItem(
            site=each.site,
            reason=each.reason,
            kind=each.kind,
            network=each.network,
            source=getattr(each, "from"),
            target=each.to,
            window=window_from_proto(each.window, "refund.items.window"),
            promised=each.promised,
            measured=each.measured,
            amount=each.amount,
        )
        for each in message.items
    )
