"""Networks of a part at this site, and how they reach others."""

from intertie.common.part_spec import PartNetwork
from intertie.common.values import Struct


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where a site takes traffic of one network from other sites."""

    network: str
    address: str
    port: int
    vni: int


class RemoteEndpoint(Struct, frozen=True, kw_only=True):
    """Another site's endpoint, as its receipt in the decision said it."""

    site: str
    endpoint: Endpoint


class NetworkId(Struct, frozen=True, kw_only=True):
    """The VXLAN id that this site's ledger has given to a network of the part."""

    network: str
    vni: int


def leaves_site(network: PartNetwork, site: str) -> bool:
    """A network leaves the site once a machine of it is at another."""
    return any(member.site != site for member in network.members)
