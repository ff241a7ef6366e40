"""Why a request cannot be had, between the wire and the domain."""

from collections.abc import Callable
from datetime import UTC

from google.protobuf.timestamp_pb2 import Timestamp

from intertie.api.types.v1 import explanation_pb2 as types_pb2
from intertie.common.explanation import Change, Conflict, CounterOffer, Explanation, Requirement

MOST_BYTES = 12_000
"""Of all, as it travels in metadata. What comes last is left out."""
MOST_VALUE = 2000
"""Characters. A value that is longer would be another one if it were cut: its offer is left out."""


def explanation_to_proto(
    value: Explanation, cut: Callable[[str], str] = str
) -> types_pb2.Explanation:
    """`cut` makes texts for persons as short as they have to be."""
    told = types_pb2.Explanation(
        conflicts=[
            types_pb2.Conflict(
                requirements=[
                    types_pb2.Requirement(
                        field=each.field, message=cut(each.message), enough=each.enough
                    )
                    for each in conflict.requirements
                ]
            )
            for conflict in value.conflicts
        ],
        counter_offers=[
            _offer_to_proto(each, cut) for each in value.counter_offers if _can_be_told(each)
        ],
    )
    while told.ByteSize() > MOST_BYTES:
        if told.counter_offers:
            del told.counter_offers[-1]
        else:
            told.ClearField("conflicts")  # some of them would not be what it takes to give up
    return told


def _can_be_told(offer: CounterOffer) -> bool:
    return all(len(each.value) <= MOST_VALUE for each in offer.changes)


def _offer_to_proto(offer: CounterOffer, cut: Callable[[str], str]) -> types_pb2.CounterOffer:
    start = Timestamp()
    start.FromDatetime(offer.start_time)
    return types_pb2.CounterOffer(
        changes=[types_pb2.Change(field=each.field, value=each.value) for each in offer.changes],
        message=cut(offer.message),
        start_time=start,
        cost=offer.cost,
    )


def explanation_from_proto(message: types_pb2.Explanation) -> Explanation:
    return Explanation(
        conflicts=tuple(
            Conflict(
                requirements=tuple(
                    Requirement(field=each.field, message=each.message, enough=each.enough)
                    for each in conflict.requirements
                )
            )
            for conflict in message.conflicts
        ),
        counter_offers=tuple(
            CounterOffer(
                changes=tuple(
                    Change(field=change.field, value=change.value) for change in each.changes
                ),
                message=each.message,
                start_time=each.start_time.ToDatetime(UTC),
                cost=each.cost,
            )
            for each in message.counter_offers
        ),
    )
