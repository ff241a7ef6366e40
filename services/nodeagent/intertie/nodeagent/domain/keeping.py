"""What a part has of its host while it has no window and its guests' memory is kept."""

from collections.abc import Iterable, Mapping, Set

from intertie.common.names import DeviceNames
from intertie.common.values import replace
from intertie.nodeagent.domain.power import Memory
from intertie.nodeagent.domain.reconcile import ALIVE, DomainState, Observed
from intertie.nodeagent.domain.wanted import WantedPart


def alive_in(
    parts: Iterable[WantedPart], domains: Mapping[str, DomainState] | None, moving: Set[str]
) -> Set[str]:
    """Workspaces that have a guest, as far as anybody knows. `domains` is None while libvirt is
    silent, `moving` are those whose memory is on its way."""
    uids = {workspace.uid for part in parts for workspace in part.workspaces}
    if domains is None:
        return uids
    return moving | {uid for uid in uids if domains.get(DeviceNames.domain(uid)) in ALIVE}


def connected(part: WantedPart, alive: Set[str]) -> WantedPart:
    """The part as the host's network has it then: NICs of the guests that are not saved yet, by
    uid, held to what they may send as before; no way to other hosts, and nothing is promised."""
    workspaces = tuple(each for each in part.workspaces if each.uid in alive)
    uids = {nic.network_uid for each in workspaces for nic in each.nics}
    networks = tuple(
        replace(
            network,
            tunnels=(),
            wide_tunnels=(),
            pairs=(),
            uplink_guarantee_mbit_s=0,
            uplink_cap_mbit_s=0,
        )
        for network in part.networks
        if network.uid in uids
    )
    return replace(part, workspaces=workspaces, networks=networks)


def is_put_aside(seen: Observed) -> bool:
    """Nothing of it runs, and what it had in memory is where it can be gone on from."""
    return seen.domain not in ALIVE and seen.memory is not Memory.SAVING and not seen.come
