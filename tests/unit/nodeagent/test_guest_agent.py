"""What a guest's agent is told of vCPUs that came while it ran."""

from __future__ import annotations

import json

import pytest

from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.guest_agent import bring_online


def vcpus(*online: bool) -> str:
    """As the agent of QEMU 7.2 says it; the first one cannot be taken offline."""
    found = [
        {"online": each, "can-offline": number > 0, "logical-id": number}
        for number, each in enumerate(online)
    ]
    return json.dumps({"return": found})


def test_those_that_are_not_online_are_brought_there_and_no_others() -> None:
    command = bring_online(vcpus(True, False, True, False))
    assert command is not None
    assert json.loads(command) == {
        "execute": "guest-set-vcpus",
        "arguments": {
            "vcpus": [{"logical-id": 1, "online": True}, {"logical-id": 3, "online": True}]
        },
    }


def test_nothing_is_asked_where_all_are() -> None:
    assert bring_online(vcpus(True, True)) is None


@pytest.mark.parametrize(
    "said", ["", "{", "{}", '{"return": 1}', '{"return": [{}]}', '{"return": [7]}', "[]"]
)
def test_a_guest_may_say_anything(said: str) -> None:
    with pytest.raises(HostFailure, match="agent"):
        bring_online(said)
