"""Prices on the wire."""

from collections.abc import Sequence
from typing import Any

from intertie.api.types.v1 import price_pb2
from intertie.common.price import PriceTerm
from intertie.common.rpc.terms_proto import window_fields, window_from_proto


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
            }
            for each in terms
        ],
    }


def price_from_proto(message: price_pb2.Price) -> tuple[PriceTerm, ...]:
    return tuple(
        PriceTerm(
            site=each.site,
            window=window_from_proto(each.window, "price.terms.window"),
            kind=each.kind,
            amount=each.amount,
        )
        for each in message.terms
    )
