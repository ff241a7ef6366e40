from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

from testbed import toml
from testbed.places import Places
from testbed.services import configurations, service_components
from testbed.topology import Topology, default_topology

PLACES = Places("demo")
TOPOLOGY = default_topology()


def read(component: str, topology: Topology = TOPOLOGY) -> dict[str, Any]:
    return tomllib.loads(toml.dumps(configurations(PLACES, topology)[component]))


def test_every_service_has_a_configuration() -> None:
    names = {component.name for component in service_components(PLACES, TOPOLOGY)}
    assert names == set(configurations(PLACES, TOPOLOGY))
    assert "south/s2/nodeagent" in names


def test_a_broker_knows_its_hosts_its_links_and_who_may_coordinate() -> None:
    broker = read("north/broker")
    assert broker["site"] == "north"
    assert broker["policy"]["hosts"] == ["n1", "n2"]
    assert broker["links"] == [
        {"peer": "south", "egress_mbit_s": 176, "ingress_mbit_s": 176, "latency_ms": 5.0}
    ]
    assert broker["metascheds"] == [
        {
            "name": "meta",
            "addresses": ["10.250.0.2:7400"],
            "server_name": "metasched.meta.meta.intertie",
            "trust_domain": "meta.meta.intertie",
        }
    ]
    everybody = ["north.site.intertie", "meta.meta.intertie", "south.site.intertie"]
    assert [each["domain"] for each in broker["trust"]] == everybody
    assert [each["domain"] for each in read("north/imagestore")["trust"]] == everybody
    assert broker["imagestore"] == {
        "address": "10.201.0.2:7401",
        "server_name": "imagestore.north.site.intertie",
        "peer_addresses": ["10.250.0.101:7401"],
    }
    assert broker["listen"]["addresses"] == [
        "0.0.0.0:7400",
        "unix:/run/intertie/demo/north/broker.sock",
    ]


def test_an_agent_trusts_its_own_site_only_and_is_its_own_etcd_user() -> None:
    agent = read("north/n2/nodeagent")
    assert [each["domain"] for each in agent["trust"]] == ["north.site.intertie"]
    assert agent["etcd"]["certificate"].endswith("/pki/north/etcd-agent-n2.pem")
    assert agent["etcd"]["prefix"] == "/intertie/north"
    assert agent["underlay"] == {
        "interface": "eth0",
        "address": "10.201.0.12",
        "capacity_mbit_s": 400,
    }
    assert "gateway" not in agent


def test_a_gateways_capacity_is_that_of_all_its_sites_links() -> None:
    assert read("south/s1/nodeagent")["gateway"] == {
        "interface": "wan0",
        "address": "10.250.0.12",
        "port": 4790,
        "capacity_mbit_s": 200,
    }


def test_the_metasched_reaches_brokers_over_the_wan_and_trusts_every_site() -> None:
    metasched = read("meta/metasched")
    assert [(each["name"], each["addresses"]) for each in metasched["sites"]] == [
        ("north", ["10.250.0.101:7400"]),
        ("south", ["10.250.0.102:7400"]),
    ]
    assert len(metasched["trust"]) == 3


def test_a_site_without_a_link_has_an_empty_list_of_links() -> None:
    alone = Topology(sites=TOPOLOGY.sites)
    assert read("north/broker", alone)["links"] == []


def test_control_planes_start_before_agents() -> None:
    names = [component.name for component in service_components(PLACES, TOPOLOGY)]
    first_agent = next(i for i, name in enumerate(names) if name.endswith("nodeagent"))
    assert all(name.endswith("nodeagent") for name in names[first_agent:])


def test_replicas_differ_in_where_they_are_and_are_named_together() -> None:
    twice = replace(TOPOLOGY, broker_replicas=2, metasched_replicas=2)
    names = [component.name for component in service_components(PLACES, twice)]
    assert {"north/broker", "north/broker-1", "meta/metasched", "meta/metasched-1"} <= set(names)
    first, second = read("north/broker", twice), read("north/broker-1", twice)
    assert second["listen"]["addresses"] == [
        "0.0.0.0:7410",
        "unix:/run/intertie/demo/north/broker-1.sock",
    ]
    assert first["metascheds"][0]["addresses"] == ["10.250.0.2:7400", "10.250.0.2:7410"]
    for own in ("listen", "data"):
        assert first.pop(own) != second.pop(own)
    assert first == second
    metasched = read("meta/metasched-1", twice)
    assert metasched["replica"] == "meta/metasched-1"
    assert metasched["sites"][0]["addresses"] == ["10.250.0.101:7400", "10.250.0.101:7410"]


def test_services_stop_at_points_where_the_topology_says_so_and_nowhere_else() -> None:
    assert not any("fault_points" in read(name) for name in configurations(PLACES, TOPOLOGY))
    faulty = replace(TOPOLOGY, fault_points=True)
    folders = {name: read(name, faulty)["fault_points"] for name in configurations(PLACES, faulty)}
    assert folders["south/s2/nodeagent"] == "/run/intertie/demo/points/south.s2.nodeagent"
    assert len(set(folders.values())) == len(folders), "each has its own"
    assert Topology.from_json(faulty.to_json()) == faulty
