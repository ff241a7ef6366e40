"""Networks of a host that has given a workspace up to another one, until all hosts know."""

from collections.abc import Set

from intertie.common.values import replace
from intertie.nodeagent.domain.wanted import WantedNetwork, WantedPart, WantedWorkspace


def handed_on(part: WantedPart, given: Set[str]) -> WantedPart:
    """The part without the workspaces that it has given, by uid: machines of this host reach them
    where they are, and what others still send here is sent on."""
    gone = [each for each in part.workspaces if each.uid in given and each.migration is not None]
    if not gone:
        return part
    return replace(
        part,
        workspaces=tuple(each for each in part.workspaces if each not in gone),
        networks=tuple(_without(network, gone) for network in part.networks),
    )


def _without(network: WantedNetwork, gone: list[WantedWorkspace]) -> WantedNetwork:
    macs_at: dict[str, list[str]] = {}
    for workspace in gone:
        assert workspace.migration is not None
        macs = [nic.mac for nic in workspace.nics if nic.network_uid == network.uid]
        macs_at.setdefault(workspace.migration.host, []).extend(macs)
    tunnels = tuple(
        replace(tunnel, macs=tuple(dict.fromkeys((*tunnel.macs, *macs_at.get(tunnel.host, ())))))
        for tunnel in network.tunnels
    )
    known = {tunnel.host for tunnel in network.tunnels}
    sent_on = tuple(mac for host, macs in macs_at.items() if host in known for mac in macs)
    return replace(network, tunnels=tunnels, sent_on=sent_on)
