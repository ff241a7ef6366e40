"""Actions as messages have them."""

from intertie.api.types.v1 import action_pb2
from intertie.common.actions import Action
from intertie.common.errors import FieldInvalid


def action_from_proto(number: "action_pb2.Action.ValueType") -> Action:
    """FieldInvalid for none, and for what a newer client knows."""
    for each in Action:
        if action_pb2.Action.Value(each.name) == number:
            return each
    known = ", ".join(each.name for each in Action)
    raise FieldInvalid("action", f"must be one of {known}")


def action_to_proto(action: Action) -> "action_pb2.Action.ValueType":
    return action_pb2.Action.Value(action.name)
