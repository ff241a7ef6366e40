"""The wires: one namespace with all bridges, and links from it into every other namespace.

In the fabric of an instance, with site numbers i and host numbers j:

- `under{i}` is the underlay of a site: a port `h{i}-{j}` a host, `c{i}` for the control plane.
- `wsite{i}` is a site's end of the WAN: ports `g{i}-{j}` of its gateways, `cw{i}` of its control
  plane, and the trunk `wt{i}` to the core bridge `wan`. The meta-scheduler's end is `wsitem`.

A host's uplink is limited both ways at its port: HTB towards the host, and what comes from it
passes an ifb with HTB. A WAN link is an HTB class at the trunk of the sending end, chosen by the
receiver's address, so that all that a site sends over a link shares its capacity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from testbed.commands import ip_batch, tc_batch
from testbed.places import Places
from testbed.topology import META, HostSpec, InvalidTopology, Topology

_LinesOfOneWay = Callable[[str, str], list[str]]
"""(trunk device of the sender, receiver) to tc lines."""

UNLIMITED_MBPS = 10_000
_BURST_BYTES = 131_072
_QUEUE_S = 0.05


def queue_bytes(mbps: int) -> int:
    """What a shaper's queue holds: 50 ms at its rate, but never less than four large segments."""
    return max(262_144, int(mbps * 1e6 / 8 * _QUEUE_S))


class Fabric:
    """Makes and changes the links of one instance."""

    def __init__(self, places: Places, topology: Topology) -> None:
        self._places = places
        self._topology = topology
        self._members = (*(site.name for site in topology.sites), META)

    def netns_names(self) -> list[str]:
        """Every namespace of the instance, the fabric first."""
        places = self._places
        names = [places.fabric_netns, places.meta_netns]
        for site in self._topology.sites:
            names.append(places.ctl_netns(site.name))
            names += [places.host_netns(site.name, host.name) for host in site.hosts]
        return names

    def create(self) -> None:
        ip_batch(None, [f"netns add {name}" for name in self.netns_names()])
        ip_batch(self._places.fabric_netns, self._fabric_links())
        for netns, lines in self._addresses():
            ip_batch(netns, lines)
        tc_batch(self._places.fabric_netns, self._limits())

    # Names inside the fabric

    def host_port(self, site: str, host: str) -> str:
        hosts = [each.name for each in self._topology.site(site).hosts]
        return f"h{self._topology.site_index(site)}-{hosts.index(host)}"

    def _gateway_port(self, site: str, host: HostSpec) -> str:
        site_spec = self._topology.site(site)
        return f"g{self._topology.site_index(site)}-{site_spec.hosts.index(host)}"

    def _member(self, name: str) -> str:
        if name not in self._members:
            raise InvalidTopology(f"no site {name!r}; there are {list(self._members)}")
        return "m" if name == META else str(self._topology.site_index(name))

    def _class(self, member: str) -> str:
        return f"1:{10 + self._members.index(member):x}"

    # Making it

    def _fabric_links(self) -> Iterator[str]:
        places, topology = self._places, self._topology
        yield "link set lo up"
        yield from _bridge("wan")
        for member in self._members:
            key = self._member(member)
            yield from _bridge(f"wsite{key}")
            yield f"link add wt{key} type veth peer name wc{key}"
            yield f"link set wt{key} master wsite{key} up"
            yield f"link set wc{key} master wan up"
        yield from _port("wmeta", "wsitem", "wan0", places.meta_netns)
        for i, site in enumerate(topology.sites):
            ctl = places.ctl_netns(site.name)
            yield from _bridge(f"under{i}")
            yield from _port(f"c{i}", f"under{i}", "eth0", ctl)
            yield from _port(f"cw{i}", f"wsite{i}", "wan0", ctl)
            for host in site.hosts:
                netns = places.host_netns(site.name, host.name)
                port = self.host_port(site.name, host.name)
                yield from _port(port, f"under{i}", "eth0", netns)
                yield f"link add {port}i type ifb"
                yield f"link set {port}i up"
                if host.gateway:
                    gateway = self._gateway_port(site.name, host)
                    yield from _port(gateway, f"wsite{i}", "wan0", netns)

    def _addresses(self) -> Iterator[tuple[str, list[str]]]:
        places, topology = self._places, self._topology
        yield places.meta_netns, _interfaces(wan0=topology.meta_address())
        for site, host in topology.hosts():
            own = {"eth0": topology.host_address(site.name, host.name)}
            if host.gateway:
                own["wan0"] = topology.gateway_wan_address(site.name, host.name)
            yield places.host_netns(site.name, host.name), _interfaces(**own)
        for site in topology.sites:
            yield (
                places.ctl_netns(site.name),
                _interfaces(
                    eth0=topology.ctl_address(site.name), wan0=topology.ctl_wan_address(site.name)
                ),
            )

    def _limits(self) -> Iterator[str]:
        for site, host in self._topology.hosts():
            port = self.host_port(site.name, host.name)
            for dev in (port, f"{port}i"):
                yield f"qdisc add dev {dev} root handle 1: htb default 10"
                yield from _class(dev, "1:10", host.uplink_mbps)
            yield f"qdisc add dev {port} ingress"
            yield (
                f"filter add dev {port} parent ffff: protocol all u32 match u32 0 0 "
                f"action mirred egress redirect dev {port}i"
            )
        for sender in self._members:
            dev = f"wt{self._member(sender)}"
            yield f"qdisc add dev {dev} root handle 1: htb default 1"
            yield from _class(dev, "1:1", UNLIMITED_MBPS)
            for receiver in self._members:
                if receiver == sender:
                    continue
                mbps = self._declared_mbps(sender, receiver)
                yield from _class(dev, self._class(receiver), mbps or UNLIMITED_MBPS)
                if mbps is None:
                    yield self._leaf(dev, receiver, open_mbps=None)
                for address in self._topology.wan_addresses(receiver):
                    yield (
                        f"filter add dev {dev} parent 1: protocol ip u32 "
                        f"match ip dst {address}/32 flowid {self._class(receiver)}"
                    )

    def _declared_mbps(self, a: str, b: str) -> int | None:
        """None when there is no link."""
        if META in (a, b):
            return UNLIMITED_MBPS
        link = self._topology.link(a, b)
        return link.mbps if link else None

    def _leaf(self, dev: str, receiver: str, *, open_mbps: int | None) -> str:
        """The queue of a link's class. A queue of nothing drops every packet."""
        queue = f"bfifo limit {queue_bytes(open_mbps)}" if open_mbps else "pfifo limit 0"
        return f"qdisc replace dev {dev} parent {self._class(receiver)} {queue}"

    # Changing it

    def cut_link(self, a: str, b: str) -> None:
        """Drop all between two ends, both ways, until healed. `meta` is an end too."""
        self._each_way(a, b, lambda dev, to: [self._leaf(dev, to, open_mbps=None)])

    def heal_link(self, a: str, b: str) -> None:
        """Back to the declared capacity, after a cut as after a slow-down."""
        mbps = self._need_link(a, b)
        self.slow_link(a, b, mbps)

    def slow_link(self, a: str, b: str, mbps: int) -> None:
        """Another capacity, each way; a cut link is open again."""
        self._need_link(a, b)

        def lines(dev: str, to: str) -> list[str]:
            return [
                f"class change dev {dev} parent 1: classid {self._class(to)} {_htb(mbps)}",
                self._leaf(dev, to, open_mbps=mbps),
            ]

        self._each_way(a, b, lines)

    def cut_host_uplink(self, site: str, host: str) -> None:
        """Pull the host's cable: its eth0 loses carrier."""
        self._set_port(self.host_port(site, host), "down")

    def heal_host_uplink(self, site: str, host: str) -> None:
        """Back to the declared capacity, after a cut as after a slow-down."""
        _, spec = self._topology.host(f"{site}/{host}")
        self.slow_host_uplink(site, host, spec.uplink_mbps)
        self._set_port(self.host_port(site, host), "up")

    def slow_host_uplink(self, site: str, host: str, mbps: int) -> None:
        """Another capacity, each way; a cable that was pulled stays so."""
        port = self.host_port(site, host)
        lines = [
            line
            for dev in (port, f"{port}i")
            for line in (
                f"class change dev {dev} parent 1: classid 1:10 {_htb(mbps)}",
                f"qdisc replace dev {dev} parent 1:10 bfifo limit {queue_bytes(mbps)}",
            )
        ]
        tc_batch(self._places.fabric_netns, lines)

    def _set_port(self, port: str, state: str) -> None:
        ip_batch(self._places.fabric_netns, [f"link set {port} {state}"])

    def _need_link(self, a: str, b: str) -> int:
        mbps = self._declared_mbps(a, b)
        if mbps is None:
            raise InvalidTopology(f"no link between {a} and {b}")
        return mbps

    def _each_way(self, a: str, b: str, lines: _LinesOfOneWay) -> None:
        self._need_link(a, b)
        ways = ((f"wt{self._member(a)}", b), (f"wt{self._member(b)}", a))
        tc_batch(self._places.fabric_netns, [line for dev, to in ways for line in lines(dev, to)])


def _bridge(name: str) -> Iterator[str]:
    yield f"link add {name} type bridge forward_delay 0 stp_state 0 mcast_snooping 0"
    yield f"link set {name} up"


def _port(port: str, bridge: str, far_name: str, far_netns: str) -> Iterator[str]:
    yield f"link add {port} mtu 1500 type veth peer name {far_name} mtu 1500 netns {far_netns}"
    yield f"link set {port} master {bridge} up"


def _interfaces(**addresses: str) -> list[str]:
    lines = ["link set lo up"]
    for name, address in addresses.items():
        lines += [f"addr add {address}/24 dev {name}", f"link set {name} up"]
    return lines


def _htb(mbps: int) -> str:
    rate = f"rate {mbps}mbit ceil {mbps}mbit"
    return f"htb {rate} burst {_BURST_BYTES} cburst {_BURST_BYTES} quantum 65536"


def _class(dev: str, classid: str, mbps: int) -> Iterator[str]:
    yield f"class add dev {dev} parent 1: classid {classid} {_htb(mbps)}"
    yield f"qdisc add dev {dev} parent {classid} bfifo limit {queue_bytes(mbps)}"
