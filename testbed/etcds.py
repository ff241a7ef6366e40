"""The etcd clusters: one a site, one for the meta-scheduler, each inside its own trust domain."""

from __future__ import annotations

import subprocess

from testbed.component import Component, Inside, environment_of
from testbed.domains import ETCD_ROOT, Domain, meta_domain, site_domain
from testbed.places import Places
from testbed.topology import META, Topology

_CLIENT_PORT = 2379
_PEER_PORT = 2380
_PORT_STEP = 10
"""All members of a cluster share one address."""


def endpoints(address: str, members: int) -> list[str]:
    return [f"{address}:{_CLIENT_PORT + _PORT_STEP * k}" for k in range(members)]


def etcd_components(places: Places, topology: Topology) -> list[Component]:
    components = []
    for site in topology.sites:
        inside = Inside(netns=places.ctl_netns(site.name))
        domain = site_domain(places, site.name)
        components += _cluster(
            places, topology, site.name, domain, inside, topology.ctl_address(site.name)
        )
    inside = Inside(netns=places.meta_netns)
    domain = meta_domain(places, topology)
    components += _cluster(places, topology, META, domain, inside, topology.meta_address())
    return components


def etcdctl(
    places: Places, inside: Inside, domain: Domain, address: str, *words: str
) -> subprocess.CompletedProcess[str]:
    """Runs etcdctl inside the namespace, as etcd's root user."""
    credential = domain.etcd_credential(ETCD_ROOT)
    argv = (
        "etcdctl",
        f"--endpoints=https://{address}",
        f"--cacert={domain.etcd_roots}",
        f"--cert={credential.certificate}",
        f"--key={credential.key}",
        *words,
    )
    return subprocess.run(
        inside.wrap(argv),
        env=environment_of(places) | {"ETCDCTL_API": "3"},
        capture_output=True,
        text=True,
        check=False,
    )


def _cluster(
    places: Places,
    topology: Topology,
    label: str,
    domain: Domain,
    inside: Inside,
    address: str,
) -> list[Component]:
    numbers = range(topology.etcd_members)
    peers = {k: f"https://{address}:{_PEER_PORT + _PORT_STEP * k}" for k in numbers}
    everyone = ",".join(f"etcd-{k}={url}" for k, url in peers.items())
    server = domain.credential("etcd")
    tls = {
        "cert-file": server.certificate,
        "key-file": server.key,
        "trusted-ca-file": domain.etcd_roots,
        "client-cert-auth": "true",
    }
    components = []
    for k, endpoint in enumerate(endpoints(address, topology.etcd_members)):
        options = {
            "name": f"etcd-{k}",
            "data-dir": places.disk / label / f"etcd-{k}",
            "listen-client-urls": f"https://{endpoint}",
            "advertise-client-urls": f"https://{endpoint}",
            "listen-peer-urls": peers[k],
            "initial-advertise-peer-urls": peers[k],
            "initial-cluster": everyone,
            "initial-cluster-token": f"{places.instance}-{label}",
            "auto-compaction-mode": "periodic",
            "auto-compaction-retention": "1h",
            "enable-grpc-gateway": "false",
            "logger": "zap",
            **tls,
            **{f"peer-{name}": value for name, value in tls.items()},
        }

        def ready(endpoint: str = endpoint) -> bool:
            done = etcdctl(places, inside, domain, endpoint, "endpoint", "health")
            return done.returncode == 0

        components.append(
            Component(
                name=f"{label}/etcd-{k}",
                places=places,
                inside=inside,
                argv=("etcd", *(f"--{name}={value}" for name, value in options.items())),
                ready=ready,
            )
        )
    return components
