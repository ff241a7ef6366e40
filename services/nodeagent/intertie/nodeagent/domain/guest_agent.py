"""What a guest's own agent is asked about vCPUs that came while it ran."""

import json

from intertie.nodeagent.domain.failures import HostFailure

LIST_VCPUS = '{"execute": "guest-get-vcpus"}'


def bring_online(said: str) -> str | None:
    """What to tell a guest's agent that has `said` which vCPUs there are; None: all are online.
    HostFailure for what is no answer to LIST_VCPUS."""
    try:
        off = [each["logical-id"] for each in json.loads(said)["return"] if not each["online"]]
    except (ValueError, KeyError, TypeError) as error:
        raise HostFailure(f"the guest's agent does not tell its vCPUs: {error!r}") from error
    if not off:
        return None
    vcpus = [{"logical-id": number, "online": True} for number in off]
    return json.dumps({"execute": "guest-set-vcpus", "arguments": {"vcpus": vcpus}})
