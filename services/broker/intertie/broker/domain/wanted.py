"""What the agents of the hosts are told of a confirmed part."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import Enum

from intertie.broker.domain.fleet import Fleet, HostFacts, Policy
from intertie.broker.domain.moving import MovingState
from intertie.broker.domain.networks import RemoteEndpoint, leaves_site
from intertie.broker.domain.part import Part, nonce_of, workspace_uid
from intertie.common.actions import AS_BEGUN, Switched
from intertie.common.intervals import Window
from intertie.common.names import ImageName, uid_of
from intertie.common.part_spec import FurtherDisk, HostEntry, Member, PartNetwork
from intertie.common.spec import Allocation, BandwidthTerm, Environment
from intertie.common.values import Struct, replace

DEFAULT_MTU = 1500
VXLAN_OVERHEAD = 50


class Tunnel(Struct, frozen=True, kw_only=True):
    """To another host of this site."""

    host: str
    address: str
    macs: tuple[str, ...]


class WideTunnel(Struct, frozen=True, kw_only=True):
    """To another site's gateway; `vni` is the receiver's."""

    site: str
    address: str
    port: int
    vni: int
    macs: tuple[str, ...]
    guarantee_mbit_s: int
    cap_mbit_s: int


class WantedPair(Struct, frozen=True, kw_only=True):
    local_mac: str
    remote_mac: str
    bandwidth: BandwidthTerm


class WantedNetwork(Struct, frozen=True, kw_only=True):
    uid: str
    name: str
    vni: int
    mtu: int
    tunnels: tuple[Tunnel, ...]
    pairs: tuple[WantedPair, ...]
    uplink_guarantee_mbit_s: int
    uplink_cap_mbit_s: int
    wide_tunnels: tuple[WideTunnel, ...]


class WantedNic(Struct, frozen=True, kw_only=True):
    network_uid: str
    mac: str
    address: str
    bandwidth: BandwidthTerm


class SnapshotOrder(Struct, frozen=True, kw_only=True):
    """An image that a host is to make of a workspace's disk, and to send."""

    id: str
    image_id: str
    grant: bytes


class Role(Enum):
    """As intertie.api.nodeagent.v1.Migration.Role, by name."""

    TAKE = "TAKE"
    SEND = "SEND"
    ANSWER = "ANSWER"


class Migration(Struct, frozen=True, kw_only=True):
    """What a host has to do for a workspace that goes from one to another."""

    number: int
    role: Role
    host: str
    """The other one."""
    agent_address: str
    aside: bool = False
    """As it is put aside."""


class WantedWorkspace(Struct, frozen=True, kw_only=True):
    name: str
    uid: str
    environment: Environment
    allocation: Allocation
    nics: tuple[WantedNic, ...]
    nonce: str
    switched: Switched = AS_BEGUN
    snapshot: SnapshotOrder | None = None
    migration: Migration | None = None
    """None: it is that host's alone."""
    disks: tuple[FurtherDisk, ...] = ()


class WantedPart(Struct, frozen=True, kw_only=True):
    part: str
    part_uid: str
    generation: int
    window: Window
    gone: bool
    workspaces: tuple[WantedWorkspace, ...]
    networks: tuple[WantedNetwork, ...]
    host_entries: tuple[HostEntry, ...]
    cluster: str
    keep_until: datetime | None = None
    """After the window's end what its guests have in memory is kept until then."""


def network_uid(part: Part, network: str) -> str:
    """Bridges of a host are named after it, so it is of the part's name, which this site knows
    to be its own; a cluster's uid is whatever its coordinator says."""
    return uid_of(part.uid, network)


def wanted_of(part: Part, fleet: Fleet, policy: Policy, *, gone: bool) -> dict[str, WantedPart]:
    """One record for each host that has something of the part, or had before it was amended; all
    of one generation, which the caller sets. The latter are told that it is gone."""
    left = part.left_hosts()
    return {
        host: WantedPart(
            part=part.name,
            part_uid=part.uid,
            generation=0,
            window=part.window,
            gone=gone or host in left,
            workspaces=tuple(_workspaces(part, host, fleet)),
            networks=tuple(_networks(part, host, fleet, policy)),
            host_entries=part.spec.host_entries,
            cluster=part.spec.cluster,
            keep_until=part.keeping.until if part.keeping is not None else None,
        )
        for host in (*part.hosts(), *left)
    }


def fingerprint(wanted: Mapping[str, WantedPart]) -> str:
    """The same for the same contents, whatever their generation."""
    return uid_of(
        *(f"{host} {replace(each, generation=0)!r}" for host, each in sorted(wanted.items()))
    )


def _workspaces(part: Part, host: str, fleet: Fleet) -> Iterator[WantedWorkspace]:
    for each in part.spec.workspaces:
        moving = part.moving_of(each.label)
        if host not in (part.host_of(each.label), moving.host if moving else ""):
            continue
        yield WantedWorkspace(
            name=each.label,
            uid=workspace_uid(part.name, each.label),
            environment=each.environment,
            allocation=each.allocation,
            nics=tuple(
                WantedNic(
                    network_uid=network_uid(part, nic.network),
                    mac=nic.mac,
                    address=nic.address,
                    bandwidth=each.allocation.nic,
                )
                for nic in each.nics
            ),
            nonce=nonce_of(part, each.label),
            switched=part.switch_of(each.label),
            snapshot=_snapshot(part, each.label, host),
            migration=_migration(part, each.label, host, fleet),
            disks=each.disks,
        )


_ROLES = {MovingState.SENDING: Role.SEND, MovingState.ANSWERING: Role.ANSWER}


def _migration(part: Part, label: str, host: str, fleet: Fleet) -> Migration | None:
    """Its own host is told once the other one is ready."""
    moving = part.moving_of(label)
    if moving is None:
        return None
    source = part.host_of(label)
    role = Role.TAKE if host == moving.host else _ROLES.get(moving.state)
    if role is None:
        return None
    other = source if role is Role.TAKE else moving.host
    facts = fleet.facts.get(other)
    address = facts.agent_address if facts is not None else ""
    return Migration(
        number=moving.number, role=role, host=other, agent_address=address, aside=moving.aside
    )


def _snapshot(part: Part, label: str, host: str) -> SnapshotOrder | None:
    for each in part.snapshots:
        if (each.workspace, each.host) == (label, host) and not each.shown.over:
            image_id = ImageName.parse(each.shown.image).image_id
            return SnapshotOrder(id=each.id, image_id=image_id, grant=each.grant)
    return None


def _networks(part: Part, host: str, fleet: Fleet, policy: Policy) -> Iterator[WantedNetwork]:
    for network in part.spec.networks:
        on = _Segment(part, network, fleet, policy)
        if host in on.hosts:
            yield on.seen_from(host)


class _Segment:
    """One network of a part: which of its machines are behind which host or site."""

    def __init__(self, part: Part, network: PartNetwork, fleet: Fleet, policy: Policy) -> None:
        self._part = part
        self._network = network
        self._fleet = fleet
        self._policy = policy
        self._behind: dict[str, list[Member]] = {}
        self._coming: dict[str, list[Member]] = {}
        """Those that are on their way to a host: promised there what they are where they are."""
        for member in network.members:
            if member.site == policy.site and (host := part.host_of(member.workspace)):
                self._behind.setdefault(host, []).append(member)
                if (moving := part.moving_of(member.workspace)) is not None:
                    self._coming.setdefault(moving.host, []).append(member)
        self._wide = self._wide_tunnels()
        self.hosts = {*self._behind, *self._coming}
        if part.gateway and leaves_site(network, policy.site):
            self.hosts.add(part.gateway)

    def seen_from(self, host: str) -> WantedNetwork:
        """A network is site-local as long as no endpoint of it at another site is known."""
        facts = self._fleet.facts.get(host)
        at_gateway = host == self._part.gateway
        return WantedNetwork(
            uid=network_uid(self._part, self._network.name),
            name=self._network.name,
            vni=self._part.vni_of(self._network.name),
            mtu=self._mtu(),
            tunnels=tuple(self._tunnels(host)),
            pairs=tuple(self._pairs(host)),
            uplink_guarantee_mbit_s=self._uplink(host),
            uplink_cap_mbit_s=facts.capacity.uplink_mbit_s if facts else 0,
            wide_tunnels=self._wide if at_gateway else (),
        )

    def _wide_tunnels(self) -> tuple[WideTunnel, ...]:
        found = []
        for remote in sorted(self._part.remotes, key=lambda each: each.site):
            if remote.endpoint.network != self._network.name:
                continue
            macs = tuple(each.mac for each in self._network.members if each.site == remote.site)
            if macs:
                found.append(self._wide_tunnel(remote, macs))
        return tuple(found)

    def _wide_tunnel(self, remote: RemoteEndpoint, macs: tuple[str, ...]) -> WideTunnel:
        """Its floor is what was reserved; its ceiling, the link as its operator declares it."""
        reserved = sum(
            link.egress_mbit_s
            for link in self._part.spec.links
            if (link.peer, link.network) == (remote.site, self._network.name)
        )
        link = self._policy.link(remote.site)
        return WideTunnel(
            site=remote.site,
            address=remote.endpoint.address,
            port=remote.endpoint.port,
            vni=remote.endpoint.vni,
            macs=macs,
            guarantee_mbit_s=reserved,
            cap_mbit_s=max(reserved, link.egress_mbit_s if link else 0),
        )

    def _tunnels(self, host: str) -> Iterator[Tunnel]:
        for other in sorted(self.hosts - {host}):
            facts = self._fleet.facts.get(other)
            if facts is None or not facts.address:
                continue
            macs = [each.mac for each in self._behind.get(other, ())]
            if other == self._part.gateway:
                macs += [mac for wide in self._wide for mac in wide.macs]
            yield Tunnel(host=other, address=facts.address, macs=tuple(macs))

    def _pairs(self, host: str) -> Iterator[WantedPair]:
        """Promised pairs that begin here and, at the gateway, those that pass it on their way out:
        each direction is kept where it is sent from."""
        site_of = {each.workspace: each.site for each in self._network.members}
        mac_of = {each.workspace: each.mac for each in self._network.members}
        here = self._here(host)
        own = {name for name, site in site_of.items() if site == self._policy.site}
        for pair in self._network.pairs:
            for local, remote in ((pair.a, pair.b), (pair.b, pair.a)):
                if local not in own or remote not in mac_of:
                    continue
                passes = host == self._part.gateway and remote not in own
                if local in here or passes:
                    yield WantedPair(
                        local_mac=mac_of[local],
                        remote_mac=mac_of[remote],
                        bandwidth=pair.bandwidth,
                    )

    def _uplink(self, host: str) -> int:
        """What the host's uplink carries by promise: NICs, pairs of its own that leave it and, at
        the gateway, what is reserved towards other sites."""
        here = self._here(host)
        nics = sum(
            each.allocation.nic.guarantee_mbit_s
            for each in self._part.spec.workspaces
            if each.label in here
        )
        pairs = sum(
            pair.bandwidth.guarantee_mbit_s
            for pair in self._network.pairs
            for local, remote in ((pair.a, pair.b), (pair.b, pair.a))
            if local in here and remote not in here
        )
        wide = 0
        if host == self._part.gateway:
            links = [each for each in self._part.spec.links if each.network == self._network.name]
            wide = max(
                sum(each.egress_mbit_s for each in links),
                sum(each.ingress_mbit_s for each in links),
            )
        return nics + pairs + wide

    def _here(self, host: str) -> set[str]:
        return {
            each.workspace for each in (*self._behind.get(host, ()), *self._coming.get(host, ()))
        }

    def _mtu(self) -> int:
        """The smallest on the way, less what VXLAN takes."""
        on_it = [self._fleet.facts.get(host) for host in sorted(self.hosts)]
        known: list[HostFacts] = [each for each in on_it if each is not None]
        sizes = [each.mtu for each in known if each.mtu]
        if leaves_site(self._network, self._policy.site):
            sizes += [
                each.wide_mtu for each in known if each.host == self._part.gateway and each.wide_mtu
            ]
        return min(sizes, default=DEFAULT_MTU) - VXLAN_OVERHEAD
