from __future__ import annotations

import pytest

from testbed.topology import (
    HostSpec,
    InvalidTopology,
    SiteSpec,
    Topology,
    WanLink,
    default_topology,
)


def sites(*names: str, hosts: int = 2, gateways: int = 1) -> tuple[SiteSpec, ...]:
    return tuple(
        SiteSpec(
            name=name,
            hosts=tuple(HostSpec(name=f"h{j}", gateway=j < gateways) for j in range(hosts)),
        )
        for name in names
    )


def test_every_address_of_the_largest_topology_is_used_once() -> None:
    largest = Topology(sites=sites(*(f"s{i}" for i in range(30)), hosts=4, gateways=3))
    wan = [address for site in largest.sites for address in largest.wan_addresses(site.name)]
    wan.append(largest.meta_address())
    assert len(wan) == len(set(wan)) == 30 * 4 + 1
    underlay = [largest.host_address(site.name, host.name) for site, host in largest.hosts()]
    underlay += [largest.ctl_address(site.name) for site in largest.sites]
    assert len(underlay) == len(set(underlay))


def test_the_default_topology_has_the_documented_addresses() -> None:
    topology = default_topology()
    assert topology.ctl_address("north") == "10.201.0.2"
    assert topology.host_address("south", "s2") == "10.202.0.12"
    assert topology.gateway_wan_address("south", "s1") == "10.250.0.12"
    assert topology.wan_addresses("north") == ("10.250.0.11", "10.250.0.101")
    assert topology.wan_addresses("meta") == ("10.250.0.2",)


def test_links_are_found_from_either_end() -> None:
    topology = default_topology()
    assert topology.link("south", "north") is topology.link("north", "south") is not None
    assert topology.peers("south") == ("north",)


def test_a_topology_survives_json() -> None:
    topology = Topology(
        sites=sites("a", "b", "c"),
        links=(WanLink(a="a", b="c", mbps=30, latency_ms=1.5),),
        metasched="grid",
        etcd_members=3,
        broker_replicas=2,
        metasched_replicas=3,
    )
    assert Topology.from_json(topology.to_json()) == topology


@pytest.mark.parametrize("name", ["", "9a", "a-b", "North", "abcdefghijkl", "a/b", "a.b"])
def test_names_that_would_not_split_again_are_refused(name: str) -> None:
    with pytest.raises(InvalidTopology):
        HostSpec(name=name)
    with pytest.raises(InvalidTopology):
        sites(name)


@pytest.mark.parametrize("name", ["meta", "fabric"])
def test_a_site_cannot_take_a_name_of_the_testbeds_own(name: str) -> None:
    with pytest.raises(InvalidTopology, match="taken"):
        sites(name)


def test_a_host_cannot_be_called_as_the_control_plane() -> None:
    with pytest.raises(InvalidTopology):
        HostSpec(name="ctl")


@pytest.mark.parametrize(
    "links",
    [
        (WanLink(a="a", b="a", mbps=1),),
        (WanLink(a="a", b="x", mbps=1),),
        (WanLink(a="a", b="b", mbps=0),),
        (WanLink(a="a", b="b", mbps=1), WanLink(a="b", b="a", mbps=2)),
    ],
)
def test_links_join_two_known_sites_once(links: tuple[WanLink, ...]) -> None:
    with pytest.raises(InvalidTopology):
        Topology(sites=sites("a", "b"), links=links)


def test_sizes_are_at_least_one() -> None:
    with pytest.raises(InvalidTopology, match="uplink_mbps"):
        HostSpec(name="a", uplink_mbps=0)


def test_an_unknown_host_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidTopology, match="north/n1"):
        default_topology().host("north/n9")


@pytest.mark.parametrize("field", ["broker_replicas", "metasched_replicas"])
@pytest.mark.parametrize("count", [0, 6])
def test_replicas_are_counted(field: str, count: int) -> None:
    with pytest.raises(InvalidTopology, match=f"{field}: 1 to 5"):
        Topology(sites=sites("a"), **{field: count})  # type: ignore[arg-type]
