"""What may be done to a workspace while its lease goes on, and in which state of it."""

from collections.abc import Mapping
from enum import Enum

from intertie.common.values import Struct


class Action(Enum):
    """As intertie.api.types.v1.Action, by name."""

    START = "START"
    STOP = "STOP"
    REBOOT = "REBOOT"
    PAUSE = "PAUSE"
    RESUME = "RESUME"
    SUSPEND = "SUSPEND"
    SNAPSHOT = "SNAPSHOT"
    """Switches nothing."""
    MIGRATE = "MIGRATE"
    """To another host of its site, while it runs or as it is put aside: no switch."""


class Power(Enum):
    """What a workspace is to be; as intertie.api.nodeagent.v1.WantedWorkspace.Power, by name."""

    ON = "ON"
    OFF = "OFF"
    PAUSED = "PAUSED"
    SAVED = "SAVED"


class Switched(Struct, frozen=True, kw_only=True):
    """How its owner has switched a workspace."""

    power: Power = Power.ON
    boots: int = 0
    """How often it was asked to start anew."""

    def after(self, action: Action) -> "Switched":
        anew = action in (Action.START, Action.REBOOT)
        return Switched(power=POWER_AFTER[action], boots=self.boots + anew)


AS_BEGUN = Switched()

POWER_AFTER: Mapping[Action, Power] = {
    Action.START: Power.ON,
    Action.STOP: Power.OFF,
    Action.REBOOT: Power.ON,
    Action.PAUSE: Power.PAUSED,
    Action.RESUME: Power.ON,
    Action.SUSPEND: Power.SAVED,
}

_RUNNING, _PAUSED, _STOPPED, _SUSPENDED = "RUNNING", "PAUSED", "STOPPED", "SUSPENDED"

LEGAL: Mapping[str, tuple[Action, ...]] = {
    _RUNNING: (
        Action.STOP,
        Action.REBOOT,
        Action.PAUSE,
        Action.SUSPEND,
        Action.SNAPSHOT,
        Action.MIGRATE,
    ),
    _PAUSED: (Action.STOP, Action.REBOOT, Action.RESUME, Action.SUSPEND, Action.SNAPSHOT),
    _STOPPED: (Action.START, Action.SNAPSHOT),
    _SUSPENDED: (Action.STOP, Action.REBOOT, Action.RESUME, Action.MIGRATE),
}
"""By state. In those that are not here nothing is: it does not run yet, or no more."""

_IS_TO_BE = {Power.OFF: _STOPPED, Power.PAUSED: _PAUSED, Power.SAVED: _SUSPENDED}
_ALREADY = {
    _RUNNING: (Action.RESUME,),
    _PAUSED: (Action.PAUSE,),
    _STOPPED: (Action.STOP,),
    _SUSPENDED: (Action.SUSPEND,),
}
"""What is so already is asked for in vain, and not wrongly."""


def standing(state: str, switched: Switched) -> str:
    """The state that an action is judged by: where its owner has asked for another one, that;
    hosts may not have come to it yet. `state` is as the host tells it."""
    if switched.power is not Power.ON:
        return _IS_TO_BE[switched.power]
    return _RUNNING if state in (_PAUSED, _SUSPENDED) else state


def allowed(state: str, switched: Switched) -> tuple[Action, ...]:
    return LEGAL.get(standing(state, switched), ())


def in_vain(action: Action, state: str, switched: Switched) -> bool:
    return action in _ALREADY.get(standing(state, switched), ())
