"""What classes of traffic are called: a name for good, whatever their number on a device is."""

from intertie.nodeagent.domain.wanted import Tunnel, WantedNetwork, WantedPair, WideTunnel


def sent_key(network: WantedNetwork, pair: WantedPair) -> str:
    """On the sender's ifb: a promised pair, wherever its other end is."""
    return f"sent/{network.uid}/{pair.remote_mac}"


def pair_key(network: WantedNetwork, pair: WantedPair) -> str:
    """On the underlay."""
    return f"pair/{network.uid}/{network.vni}/{pair.local_mac}/{pair.remote_mac}"


def rest_key(network: WantedNetwork) -> str:
    """On the underlay: what of the network belongs to no promised pair."""
    return f"rest/{network.uid}/{network.vni}"


def to_key(network: WantedNetwork, tunnel: Tunnel) -> str:
    """On the underlay, while the other host's downlink is full: what of the network goes there and
    belongs to no promised pair."""
    return f"to/{network.uid}/{network.vni}/{tunnel.address}"


def link_key(network: WantedNetwork, wide: WideTunnel) -> str:
    """On the WAN: all of the network that goes to that site."""
    return f"link/{_way(network, wide)}"


def wide_pair_key(network: WantedNetwork, wide: WideTunnel, pair: WantedPair) -> str:
    """On the WAN."""
    return f"linkpair/{_way(network, wide)}/{pair.local_mac}/{pair.remote_mac}"


def wide_rest_key(network: WantedNetwork, wide: WideTunnel) -> str:
    """On the WAN: what of the network goes to that site and belongs to no promised pair."""
    return f"linkrest/{_way(network, wide)}"


def site_key(site: str) -> str:
    """On the WAN: all that goes to that site."""
    return f"site/{site}"


def _way(network: WantedNetwork, wide: WideTunnel) -> str:
    return f"{wide.site}/{network.uid}/{wide.address}/{wide.port}/{wide.vni}"
