"""Actions as messages have them."""

from intertie.api.types.v1 import action_pb2
from intertie.common.actions import Action
from intertie.common.errors import FieldInvalid, RoleDenied
from intertie.common.rpc.identity import Identity, Role

_ACT = "/intertie.api.cluster.v1.Clusters/Act"


def action_from_proto(number: "action_pb2.Action.ValueType") -> Action:
    """FieldInvalid for none, and for what a newer client knows."""
    for each in Action:
        if action_pb2.Action.Value(each.name) == number:
            return each
    known = ", ".join(each.name for each in Action)
    raise FieldInvalid("action", f"must be one of {known}")


def check_may_act(identity: Identity, number: "action_pb2.Action.ValueType", host: str) -> None:
    """RoleDenied: operators do nothing to a tenant's workspaces but have them go to another host,
    and nobody else says to which."""
    operates = identity.role is Role.OPERATOR and not identity.on_behalf_of
    if operates and number != action_pb2.MIGRATE:
        raise RoleDenied(identity.spiffe, _ACT, "an operator may do nothing there but MIGRATE")
    if host and not operates:
        raise RoleDenied(identity.spiffe, _ACT, "only an operator may say to which host")


def action_to_proto(action: Action) -> "action_pb2.Action.ValueType":
    return action_pb2.Action.Value(action.name)
