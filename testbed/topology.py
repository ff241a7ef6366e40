"""What a testbed consists of, as values: sites, hosts, links, and the addresses that follow.

Nothing here touches the machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

META = "meta"
"""The WAN's name for the meta-scheduler's end, beside the names of the sites."""

MAX_SITES = 30
MAX_GATEWAYS = 3
MAX_REPLICAS = 5
_NAME = re.compile(r"[a-z][a-z0-9]{0,10}")
_RESERVED_SITES = frozenset({META, "fabric"})


class InvalidTopology(ValueError):
    """The topology cannot be built; the message says which field and why."""


def check_name(kind: str, name: str) -> None:
    """Short, lower case and without dashes, so that names joined by dashes can be split again."""
    if not _NAME.fullmatch(name):
        raise InvalidTopology(f"{kind} {name!r}: a letter, then at most 10 letters or digits")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """One host. The sizes are what it may promise, not what the machine under it has."""

    name: str
    vcpus: int = 4
    """Of processor time: all that runs on the host gets no more, where the kernel has cgroup v1."""
    memory_mib: int = 2048
    disk_gib: int = 8
    uplink_mbps: int = 400
    """Capacity of the host's link into its site's underlay, each way."""
    pool_iops: int = 2000
    pool_mib_s: int = 400
    gateway: bool = False
    """A gateway has a second interface, `wan0`, into the WAN."""
    memory_growth: int = 1
    """How many times its memory a guest may have while it runs."""
    vcpu_growth: int = 1
    """How many times its vCPUs."""

    def __post_init__(self) -> None:
        check_name("host", self.name)
        if self.name == "ctl":
            raise InvalidTopology("host 'ctl': the name of the site's control plane")
        for field in ("vcpus", "memory_mib", "disk_gib", "uplink_mbps", "pool_iops", "pool_mib_s"):
            if getattr(self, field) < 1:
                raise InvalidTopology(f"host {self.name}: {field} must be 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSpec:
    """One site: a trust domain with its hosts and one control plane."""

    name: str
    hosts: tuple[HostSpec, ...]

    def __post_init__(self) -> None:
        check_name("site", self.name)
        if self.name in _RESERVED_SITES:
            raise InvalidTopology(f"site {self.name!r}: the name is taken by the testbed itself")
        names = [host.name for host in self.hosts]
        if len(set(names)) != len(names):
            raise InvalidTopology(f"site {self.name}: two hosts of one name")
        if not 1 <= len(self.hosts) <= 200:
            raise InvalidTopology(f"site {self.name}: 1 to 200 hosts")
        if len(self.gateways) > MAX_GATEWAYS:
            raise InvalidTopology(f"site {self.name}: at most {MAX_GATEWAYS} gateways")

    @property
    def gateways(self) -> tuple[HostSpec, ...]:
        return tuple(host for host in self.hosts if host.gateway)


@dataclass(frozen=True, slots=True, kw_only=True)
class WanLink:
    """A link between two sites, of the same capacity each way."""

    a: str
    b: str
    mbps: int
    latency_ms: float = 0.0
    """Declared to the brokers. The kernel is not asked to delay packets."""

    @property
    def ends(self) -> frozenset[str]:
        return frozenset({self.a, self.b})


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    sites: tuple[SiteSpec, ...]
    links: tuple[WanLink, ...] = ()
    """Sites without a link between them cannot reach each other. The meta-scheduler reaches all."""
    metasched: str = "meta"
    """The meta-scheduler's name in its trust domain, `{name}.meta.intertie`."""
    etcd_members: int = 1
    """Members of every etcd cluster."""
    broker_replicas: int = 1
    """Of every site's broker."""
    metasched_replicas: int = 1
    cpu_overcommit: float = 4.0
    """Of every site's policy: vCPUs that may be promised for each that a host has."""
    fault_points: bool = False
    """Services stop at the points that `Testbed.arm` names."""

    def __post_init__(self) -> None:
        check_name("metasched", self.metasched)
        names = [site.name for site in self.sites]
        if len(set(names)) != len(names):
            raise InvalidTopology("two sites of one name")
        if not 1 <= len(self.sites) <= MAX_SITES:
            raise InvalidTopology(f"1 to {MAX_SITES} sites")
        if self.etcd_members not in (1, 3, 5):
            raise InvalidTopology("etcd_members: 1, 3 or 5")
        for field in ("broker_replicas", "metasched_replicas"):
            if not 1 <= getattr(self, field) <= MAX_REPLICAS:
                raise InvalidTopology(f"{field}: 1 to {MAX_REPLICAS}")
        seen: set[frozenset[str]] = set()
        for link in self.links:
            if len(link.ends) != 2 or not link.ends <= set(names):
                raise InvalidTopology(f"link {link.a}-{link.b}: joins two different known sites")
            if link.ends in seen:
                raise InvalidTopology(f"link {link.a}-{link.b}: declared twice")
            if link.mbps < 1:
                raise InvalidTopology(f"link {link.a}-{link.b}: mbps must be 1 or more")
            seen.add(link.ends)

    def site(self, name: str) -> SiteSpec:
        for site in self.sites:
            if site.name == name:
                return site
        raise InvalidTopology(f"no site {name!r}; there are {[s.name for s in self.sites]}")

    def host(self, path: str) -> tuple[SiteSpec, HostSpec]:
        """The host at `SITE/HOST`."""
        site_name, _, host_name = path.partition("/")
        site = self.site(site_name)
        for host in site.hosts:
            if host.name == host_name:
                return site, host
        known = [f"{site.name}/{host.name}" for host in site.hosts]
        raise InvalidTopology(f"no host {path!r}; there are {known}")

    def hosts(self) -> Iterator[tuple[SiteSpec, HostSpec]]:
        for site in self.sites:
            for host in site.hosts:
                yield site, host

    def site_index(self, name: str) -> int:
        return self.sites.index(self.site(name))

    def link(self, a: str, b: str) -> WanLink | None:
        return next((link for link in self.links if link.ends == {a, b}), None)

    def peers(self, site: str) -> tuple[str, ...]:
        """The sites that `site` has a link to, in the order of the topology."""
        return tuple(other.name for other in self.sites if self.link(site, other.name))

    # Addresses. Instances have bridges of their own, so that all may use the same ones.

    def ctl_address(self, site: str) -> str:
        return f"10.{201 + self.site_index(site)}.0.2"

    def host_address(self, site: str, host: str) -> str:
        """On `eth0`, in the site's underlay 10.{201+site}.0.0/24."""
        names = [each.name for each in self.site(site).hosts]
        return f"10.{201 + self.site_index(site)}.0.{11 + names.index(host)}"

    def gateway_wan_address(self, site: str, host: str) -> str:
        """On a gateway's `wan0`, in 10.250.0.0/24."""
        names = [each.name for each in self.site(site).gateways]
        return f"10.250.0.{11 + self.site_index(site) + MAX_SITES * names.index(host)}"

    def ctl_wan_address(self, site: str) -> str:
        return f"10.250.0.{101 + self.site_index(site)}"

    def meta_address(self) -> str:
        return "10.250.0.2"

    def wan_addresses(self, member: str) -> tuple[str, ...]:
        """Every WAN address of a site, or of the meta-scheduler (`meta`)."""
        if member == META:
            return (self.meta_address(),)
        gateways = (self.gateway_wan_address(member, h.name) for h in self.site(member).gateways)
        return (*gateways, self.ctl_wan_address(member))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Topology:
        raw: dict[str, Any] = json.loads(text)
        sites = tuple(
            SiteSpec(name=s["name"], hosts=tuple(HostSpec(**h) for h in s["hosts"]))
            for s in raw.pop("sites")
        )
        links = tuple(WanLink(**link) for link in raw.pop("links"))
        return cls(sites=sites, links=links, **raw)


def default_topology() -> Topology:
    """Two sites of two hosts and 200 Mbit/s between them."""

    def site(name: str) -> SiteSpec:
        letter = name[0]
        return SiteSpec(
            name=name,
            hosts=(HostSpec(name=f"{letter}1", gateway=True), HostSpec(name=f"{letter}2")),
        )

    return Topology(
        sites=(site("north"), site("south")),
        links=(WanLink(a="north", b="south", mbps=200, latency_ms=5.0),),
    )
