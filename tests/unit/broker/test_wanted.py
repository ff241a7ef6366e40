"""What agents are told of networks that cross hosts and sites."""

from intertie.broker.domain.fleet import Fleet
from intertie.broker.domain.networks import Endpoint, NetworkId, RemoteEndpoint
from intertie.broker.domain.part import Part
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.wanted import (
    Tunnel,
    WantedNetwork,
    WideTunnel,
    fingerprint,
    wanted_of,
)
from intertie.common.values import replace
from tests.unit.broker.samples import POLICY, facts, mac, part, part_spec, workspace

FLEET = Fleet.of([facts("n1"), facts("n2")], POLICY)
SOUTH = RemoteEndpoint(
    site="south", endpoint=Endpoint(network="lan", address="10.250.0.12", port=4790, vni=9)
)
FAR = "02:00:00:00:ff:00"


def wide_part(*hosts: str, gateway: str = "n1") -> Part:
    """One workspace a host named, and one at south; `w-0` is promised 30 Mbit/s to each."""
    workspaces = [workspace("w", index) for index in range(len(hosts))]
    pairs = tuple(("w-0", f"w-{index}", 30) for index in range(1, len(hosts)))
    return part(
        spec=part_spec(
            *workspaces, pairs=(*pairs, ("w-0", "v-0", 30)), remote=("v-0",), link_mbit_s=40
        ),
        placed=tuple(Placed(workspace=f"w-{index}", host=host) for index, host in enumerate(hosts)),
        gateway=gateway,
        network_ids=(NetworkId(network="lan", vni=4096),),
        remotes=(SOUTH,),
    )


def lan(of: Part, host: str, fleet: Fleet = FLEET) -> WantedNetwork:
    [network] = wanted_of(of, fleet, POLICY, gone=False)[host].networks
    return network


def test_the_gateway_has_the_network_without_a_workspace_of_its_own() -> None:
    of = wide_part("n2")
    at_gateway = wanted_of(of, FLEET, POLICY, gone=False)["n1"]
    assert at_gateway.workspaces == ()
    network = lan(of, "n1")
    assert network.tunnels == (Tunnel(host="n2", address="10.201.0.12", macs=(mac("w", 0),)),)
    assert network.wide_tunnels == (
        WideTunnel(
            site="south",
            address="10.250.0.12",
            port=4790,
            vni=9,
            macs=(FAR,),
            guarantee_mbit_s=40,
            cap_mbit_s=200,
        ),
    )
    assert network.uplink_guarantee_mbit_s == 40


def test_other_hosts_reach_other_sites_through_the_gateway() -> None:
    network = lan(wide_part("n2"), "n2")
    assert network.tunnels == (Tunnel(host="n1", address="10.201.0.11", macs=(FAR,)),)
    assert network.wide_tunnels == ()
    assert [(each.local_mac, each.remote_mac) for each in network.pairs] == [(mac("w", 0), FAR)]
    assert network.uplink_guarantee_mbit_s == 30
    assert (network.vni, network.mtu) == (4096, 1450)


def test_a_pair_is_told_where_it_is_sent_from_also_within_one_host() -> None:
    apart = replace(wide_part("n1", "n2"), gateway="", remotes=())
    assert [(each.local_mac, each.remote_mac) for each in lan(apart, "n2").pairs] == [
        (mac("w", 1), mac("w", 0))
    ]
    together = lan(wide_part("n2", "n2"), "n2")
    assert {(each.local_mac, each.remote_mac) for each in together.pairs} == {
        (mac("w", 0), FAR),
        (mac("w", 0), mac("w", 1)),
        (mac("w", 1), mac("w", 0)),
    }
    assert together.uplink_guarantee_mbit_s == 30


def test_the_gateway_is_told_the_pairs_that_leave_the_site_through_it() -> None:
    assert [(each.local_mac, each.remote_mac) for each in lan(wide_part("n2"), "n1").pairs] == [
        (mac("w", 0), FAR)
    ]
    assert lan(wide_part("n2"), "n1").uplink_guarantee_mbit_s == 40


def test_without_a_remote_endpoint_the_network_stays_local() -> None:
    unknown = replace(wide_part("n2"), remotes=())
    assert lan(unknown, "n1").wide_tunnels == ()
    assert lan(unknown, "n2").tunnels == (Tunnel(host="n1", address="10.201.0.11", macs=()),)


def test_the_smallest_mtu_on_the_way_counts() -> None:
    narrow = Fleet.of([facts("n1", wide_mtu=1400), facts("n2", mtu=9000)], POLICY)
    assert lan(wide_part("n2"), "n2", narrow).mtu == 1350
    local = replace(wide_part("n2"), gateway="", remotes=())
    jumbo = part_spec(workspace())
    assert lan(replace(local, spec=jumbo), "n2", narrow).mtu == 8950


def test_the_fingerprint_is_of_the_contents_alone() -> None:
    wanted = wanted_of(wide_part("n2"), FLEET, POLICY, gone=False)
    later = {host: replace(each, generation=7) for host, each in wanted.items()}
    assert fingerprint(wanted) == fingerprint(later)
    gone = wanted_of(wide_part("n2"), FLEET, POLICY, gone=True)
    assert fingerprint(wanted) != fingerprint(gone)


def test_a_nonce_is_told_to_its_own_workspace_only() -> None:
    wanted = wanted_of(wide_part("n1", "n2"), FLEET, POLICY, gone=False)
    nonces = {each.workspaces[0].nonce for each in wanted.values()}
    assert len(nonces) == 2


def test_a_host_that_is_admitted_no_more_is_still_reached() -> None:
    """Taken from the policy it gets nothing new; a tunnel less would cut its guests off."""
    drained = Fleet.of([facts("n1"), facts("n2")], replace(POLICY, hosts=("n1",)))
    apart = replace(wide_part("n1", "n2"), gateway="", remotes=())
    assert lan(apart, "n1", drained) == lan(apart, "n1")


def test_parts_whose_coordinators_say_one_cluster_uid_share_no_network() -> None:
    """A bug: who had seen a cluster's uid could join its own machines to that cluster's bridge."""
    one, other = part("t1"), part("t2")
    assert one.spec.cluster_uid == other.spec.cluster_uid
    assert lan(one, "n1").uid != lan(other, "n1").uid
    told = wanted_of(one, FLEET, POLICY, gone=False)["n1"]
    assert told.workspaces[0].nics[0].network_uid == lan(one, "n1").uid
