"""Configuration and processes of Intertie's own services on a testbed."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from intertie.nodeagent.domain.traffic_plan import promisable_mbit_s
from testbed import toml
from testbed.component import Component, Inside
from testbed.domains import Credential, Domain, meta_domain, site_domain
from testbed.etcds import endpoints
from testbed.hosts import agent_data, answers, inside_host
from testbed.places import Places
from testbed.topology import META, HostSpec, SiteSpec, Topology

BROKER_PORT = 7400
IMAGESTORE_PORT = 7401
AGENT_PORT = 7402
METASCHED_PORT = 7400
PORT_STEP = 10
"""Between replicas of a service, which share one address."""
GATEWAY_PORT = 4790
MTU = 1500
MEMORY_RESERVE_MIB = 256

Table = dict[str, object]


def service_socket(places: Places, component: str) -> Path:
    """Where a service listens for clients outside of its namespace: `north/broker`, `north/n1`."""
    label, _, rest = component.partition("/")
    return places.run / label / f"{rest.partition('/')[0]}.sock"


def replicas(component: str, count: int) -> list[str]:
    """Names of a service's replicas: `north/broker`, then `north/broker-1` and so on."""
    return [f"{component}-{number}" if number else component for number in range(count)]


def brokers(topology: Topology, site: str) -> list[str]:
    return replicas(f"{site}/broker", topology.broker_replicas)


def metascheds(topology: Topology) -> list[str]:
    return replicas(f"{META}/metasched", topology.metasched_replicas)


def prepare_services(places: Places, topology: Topology) -> None:
    """Writes every configuration file."""
    for label in (*(site.name for site in topology.sites), META):
        (places.run / label).mkdir(parents=True, exist_ok=True)
    for site in topology.sites:
        for name in (*brokers(topology, site.name), f"{site.name}/imagestore"):
            _data(places, name).mkdir(parents=True)
    for name, table in configurations(places, topology).items():
        if topology.fault_points:
            places.points(name).mkdir(parents=True)
        _config_file(places, name).write_text(toml.dumps(table))


def configurations(places: Places, topology: Topology) -> Mapping[str, Table]:
    """By component."""
    found: dict[str, Table] = {
        name: _metasched(places, topology, name, METASCHED_PORT + PORT_STEP * number)
        for number, name in enumerate(metascheds(topology))
    }
    for site in topology.sites:
        found[f"{site.name}/imagestore"] = _imagestore(places, topology, site)
        for number, name in enumerate(brokers(topology, site.name)):
            port = BROKER_PORT + PORT_STEP * number
            found[name] = _broker(places, topology, site, name, port)
        for host in site.hosts:
            found[f"{site.name}/{host.name}/nodeagent"] = _agent(places, topology, site, host)
    if topology.fault_points:
        for name, table in found.items():
            table["fault_points"] = places.points(name)
    return found


def service_components(places: Places, topology: Topology) -> list[Component]:
    """Control planes first, then agents: the order in which they are started."""
    first, agents = [], []
    for site in topology.sites:
        inside = Inside(netns=places.ctl_netns(site.name))
        first.append(_component(places, f"{site.name}/imagestore", "imagestore", inside))
        for name in brokers(topology, site.name):
            first.append(_component(places, name, "broker", inside))
        for host in site.hosts:
            name = f"{site.name}/{host.name}/nodeagent"
            inside_it = inside_host(places, site.name, host.name)
            agents.append(_component(places, name, "nodeagent", inside_it))
    inside = Inside(netns=places.meta_netns)
    for name in metascheds(topology):
        first.append(_component(places, name, "metasched", inside))
    return first + agents


def write_client(
    places: Places, topology: Topology, *, user: str, tenant: str, path: Path, operator: bool
) -> Path:
    """A client configuration with certificates of every domain; the meta-scheduler by default."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def credential(domain: Domain) -> Credential:
        return domain.issue_operator(user) if operator else domain.issue_user(user, tenant)

    def endpoint(domain: Domain, kind: str, service: str, names: list[str]) -> Table:
        own = credential(domain)
        addresses = [f"unix:{service_socket(places, name)}" for name in names]
        return {
            "kind": kind,
            **({"addresses": addresses} if len(addresses) > 1 else {"address": addresses[0]}),
            "server_name": domain.server_name(service),
            "trust_domain": domain.name,
            "certificate": own.certificate,
            "key": own.key,
            "roots": domain.roots,
            "tenant": tenant,
        }

    meta = meta_domain(places, topology)
    tables: Table = {META: endpoint(meta, "metasched", "metasched", metascheds(topology))}
    for site in topology.sites:
        domain = site_domain(places, site.name)
        names = brokers(topology, site.name)
        tables[site.name] = endpoint(domain, "site", "broker", names) | {
            "images_address": f"unix:{service_socket(places, f'{site.name}/imagestore')}",
            "images_server_name": domain.server_name("imagestore"),
        }
    path.write_text(toml.dumps({"default": META, "endpoints": tables}))
    return path


def _component(places: Places, name: str, service: str, inside: Inside) -> Component:
    socket = service_socket(places, name)
    return Component(
        name=name,
        places=places,
        inside=inside,
        argv=(*program(service), "--config", str(_config_file(places, name))),
        ready=lambda: answers(socket),
    )


def program(service: str) -> tuple[str, ...]:
    """The service's installed command, beside the Python that runs the testbed."""
    return (os.path.join(os.path.dirname(sys.executable), f"intertie-{service}"),)


def _config_file(places: Places, component: str) -> Path:
    return places.configs / (component.replace("/", ".") + ".toml")


def _common(
    places: Places, component: str, domain: Domain, path: str, listen: str, trusted: list[Domain]
) -> Table:
    own = domain.service_credential(path)
    return {
        "listen": {"addresses": [listen, f"unix:{service_socket(places, component)}"]},
        "tls": {"certificate": own.certificate, "key": own.key},
        "trust": [{"domain": each.name, "roots": each.roots} for each in trusted],
        "log": {"level": "info"},
    }


def _etcd(topology: Topology, domain: Domain, address: str, user: str, name: str) -> Table:
    own = domain.etcd_credential(user)
    return {
        "etcd": {
            "endpoints": endpoints(address, topology.etcd_members),
            "ca": domain.etcd_roots,
            "certificate": own.certificate,
            "key": own.key,
            "server_name": domain.etcd_server_name,
            "prefix": f"/intertie/{name}",
        }
    }


def _imagestore_address(topology: Topology, site: str, domain: Domain) -> Table:
    return {
        "address": f"{topology.ctl_address(site)}:{IMAGESTORE_PORT}",
        "server_name": domain.server_name("imagestore"),
    }


def _addresses(address: str, port: int, count: int) -> list[str]:
    return [f"{address}:{port + PORT_STEP * number}" for number in range(count)]


def _everybody(places: Places, topology: Topology, site: SiteSpec) -> list[Domain]:
    """The site's own domain, the meta-scheduler's, and those of the other sites."""
    peers = [site_domain(places, each.name) for each in topology.sites if each != site]
    return [site_domain(places, site.name), meta_domain(places, topology), *peers]


def _broker(places: Places, topology: Topology, site: SiteSpec, name: str, port: int) -> Table:
    domain, meta = site_domain(places, site.name), meta_domain(places, topology)
    # A decision carries receipts of every site: their roots are needed to verify them.
    trusted = _everybody(places, topology, site)
    links = [link for link in topology.links if site.name in link.ends]
    return {
        "site": site.name,
        "data": _data(places, name),
        **_common(places, name, domain, "broker", f"0.0.0.0:{port}", trusted),
        **_etcd(topology, domain, topology.ctl_address(site.name), "broker", site.name),
        "imagestore": {
            **_imagestore_address(topology, site.name, domain),
            "peer_addresses": [f"{topology.ctl_wan_address(site.name)}:{IMAGESTORE_PORT}"],
        },
        "policy": {
            "cpu_overcommit": topology.cpu_overcommit,
            "memory_reserve_mib": MEMORY_RESERVE_MIB,
            "default_disk_cap_iops": 500,
            "default_disk_cap_mib_s": 100,
            "hosts": [host.name for host in site.hosts],
        },
        "tariff": {
            "vcpu_hour": 0.04,
            "memory_gib_hour": 0.01,
            "disk_gib_hour": 0.001,
            "link_mbit_s_hour": 0.001,
            "iops_hour": 0.00001,
            "throughput_mib_s_hour": 0.0001,
            "nic_mbit_s_hour": 0.0005,
            "pair_mbit_s_hour": 0.0005,
        },
        "links": [
            {
                "peer": next(iter(link.ends - {site.name})),
                "egress_mbit_s": promisable_mbit_s(link.mbps, MTU),
                "ingress_mbit_s": promisable_mbit_s(link.mbps, MTU),
                "latency_ms": link.latency_ms,
            }
            for link in links
        ],
        "metascheds": [
            {
                "name": topology.metasched,
                "addresses": _addresses(
                    topology.meta_address(), METASCHED_PORT, topology.metasched_replicas
                ),
                "server_name": meta.server_name("metasched"),
                "trust_domain": meta.name,
            }
        ],
    }


def _imagestore(places: Places, topology: Topology, site: SiteSpec) -> Table:
    domain = site_domain(places, site.name)
    name = f"{site.name}/imagestore"
    # Other sites' stores bring images from here, and this one from there.
    trusted = _everybody(places, topology, site)
    return {
        "site": site.name,
        "data": _data(places, name),
        **_common(places, name, domain, "imagestore", f"0.0.0.0:{IMAGESTORE_PORT}", trusted),
        "limits": {"max_image_bytes": 4 * 2**30},
    }


def _agent(places: Places, topology: Topology, site: SiteSpec, host: HostSpec) -> Table:
    domain = site_domain(places, site.name)
    address = topology.host_address(site.name, host.name)
    name = f"{site.name}/{host.name}"
    gateway: Table = {}
    capacity = sum(link.mbps for link in topology.links if site.name in link.ends)
    if host.gateway and capacity:
        gateway["gateway"] = {
            "interface": "wan0",
            "address": topology.gateway_wan_address(site.name, host.name),
            "port": GATEWAY_PORT,
            "capacity_mbit_s": capacity,
        }
    agent = f"agent/{host.name}"
    ctl = topology.ctl_address(site.name)
    return {
        "site": site.name,
        "host": host.name,
        "data": agent_data(places, site.name, host.name),
        "libvirt_uri": "qemu:///system",
        "memory_growth": host.memory_growth,
        "vcpu_growth": host.vcpu_growth,
        **_common(places, name, domain, agent, f"{address}:{AGENT_PORT}", [domain]),
        **_etcd(topology, domain, ctl, f"agent-{host.name}", site.name),
        "underlay": {
            "interface": "eth0",
            "address": address,
            "capacity_mbit_s": host.uplink_mbps,
        },
        **gateway,
        "offer": {
            "vcpus": host.vcpus,
            "memory_mib": host.memory_mib,
            "disk_mib": host.disk_gib * 1024,
            "pool_iops": host.pool_iops,
            "pool_throughput_mib_s": host.pool_mib_s,
        },
        "imagestore": _imagestore_address(topology, site.name, domain),
    }


def _metasched(places: Places, topology: Topology, name: str, port: int) -> Table:
    meta = meta_domain(places, topology)
    sites = [site_domain(places, site.name) for site in topology.sites]
    return {
        "name": topology.metasched,
        "replica": name,
        **_common(places, name, meta, "metasched", f"0.0.0.0:{port}", [meta, *sites]),
        **_etcd(topology, meta, topology.meta_address(), "metasched", topology.metasched),
        "sites": [
            {
                "name": site.label,
                "addresses": _addresses(
                    topology.ctl_wan_address(site.label), BROKER_PORT, topology.broker_replicas
                ),
                "server_name": site.server_name("broker"),
                "trust_domain": site.name,
            }
            for site in sites
        ],
        "planning": {"horizon_h": 24, "slot_min": 5},
        "commit": {"decide_within_s": 20, "rpc_timeout_s": 5},
    }


def _data(places: Places, component: str) -> Path:
    return places.disk / component
