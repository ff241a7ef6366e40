"""What the planner is asked: one cluster, several candidate windows, what sites offer in each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from intertie.common.intervals import Window
from intertie.common.part_spec import further_disks
from intertie.common.quantities import Vector
from intertie.common.spec import (
    ANY_HYPERVISOR,
    AffinityKind,
    ClusterSpec,
    Group,
    demand_of,
    demand_of_disk,
)
from intertie.common.tariff import Rates
from intertie.common.values import replace
from intertie.metasched.domain.data import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskNeed:
    """A data set or a volume of each workspace of a group."""

    need: Vector
    """Of disk, operations and throughput; of the latter two none: the site's default."""
    image: str = ""
    """Of a data set, which is to be at the site. Empty: a volume."""
    field: str = ""
    """Where in the request it is asked for."""
    said: str = ""
    """What it is, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupNeed:
    """n like workspaces, and where they may be."""

    name: str
    fewest: int
    most: int
    need: Vector
    """Of one workspace, without what promised pairs take from its host's uplink. No operations
    or throughput of disk: the site's default, see Site.takes."""
    image: str
    architecture: str
    hypervisor: str
    networks: tuple[str, ...] = ()
    allow_sites: tuple[str, ...] = ()
    """Empty: any."""
    deny_sites: tuple[str, ...] = ()
    max_per_site: int = 0
    """0: no bound; so for the next two."""
    max_per_host: int = 0
    min_sites: int = 0
    saved_mib: int = 0
    """Of disk beside its own, for the memory of one workspace that may be put aside."""
    count_field: str = "count"
    """Where in its group the request says `fewest`."""
    at_most: Mapping[str, int] = field(default_factory=dict)
    """No more is counted for it in these dimensions, whatever it needs: to find out what stands in
    its way. Of `further` all is."""
    further: tuple[DiskNeed, ...] = ()
    """What each workspace has beside its root disk."""

    @property
    def data(self) -> tuple[str, ...]:
        """Images of its data sets."""
        return tuple(each.image for each in self.further if each.image)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Bandwidth between every workspace of `a` and every other one of `b`, each direction."""

    a: str
    b: str
    network: str
    mbit_s: int
    field: str = ""
    """Where in the request it is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyLimit:
    """One way, between every workspace of `a` and every other one of `b`."""

    a: str
    b: str
    network: str
    most: timedelta
    field: str = ""


def listed(names: Sequence[str]) -> str:
    """The first ten, as one says them."""
    return " and ".join(names[:10]) + (" and others" if len(names) > 10 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Affinity:
    """What groups have to do with one another where sites are chosen."""

    groups: tuple[str, ...]
    kind: AffinityKind
    field: str = ""

    @property
    def said(self) -> str:
        """As a user would say it."""
        one = self.kind is AffinityKind.TOGETHER
        return f"{listed(self.groups)} at {'one site' if one else 'different sites'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoom:
    """What one host has free over a whole window. Hosts have no names here: only a hold
    knows which one a workspace gets."""

    free: Vector
    hypervisors: frozenset[str] = frozenset()
    architecture: str = "x86_64"

    def suits(self, group: GroupNeed) -> bool:
        """Whether the host can run what the group is, room or not."""
        return group.architecture in ("", self.architecture) and (
            group.hypervisor in ("", ANY_HYPERVISOR) or group.hypervisor in self.hypervisors
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRoom:
    """What a site has free of its directed halves of one link, over a whole window."""

    egress_mbit_s: int
    ingress_mbit_s: int
    latency: timedelta
    """One way, as this end declares it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFound:
    digest: str
    size_bytes: int = 0
    virtual_mib: int = 0
    """No disk may be smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What one site could give over one window."""

    hosts: tuple[HostRoom, ...] = ()
    links: Mapping[str, LinkRoom] = field(default_factory=dict)
    """By peer."""
    images: Mapping[str, ImageFound] = field(default_factory=dict)
    """By what the request calls it; an image that is not there is not in it."""
    rates: Rates = field(default_factory=Rates)
    kinds: Mapping[str, Rates] = field(default_factory=dict)
    """Of kinds of leases that are asked for something else."""
    default_iops: int = 0
    """What a disk is admitted by whose term says nothing; so for the next."""
    default_mib_s: int = 0
    room_from: tuple[datetime, ...] = ()
    """When there could be more, because others could be put aside by then."""
    free_together: Vector | None = None
    """What its hosts have together, in vCPUs and memory, while nobody gives way. None: nothing is
    asked for what is taken beyond that."""

    @property
    def asks_for_room(self) -> bool:
        return self.free_together is not None and self.rates.ask_for_room_made


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    name: str
    offers: tuple[Offer, ...]
    """One for each candidate window of the problem."""
    forwards: bool = False
    """Whether what others send one another may go over its links. No site's gateway does that yet,
    so no offer says it, and all traffic between two sites takes their own link."""
    before: tuple[Mapping[str, LinkRoom], ...] = ()
    """What it has free of its halves of links, by peer, over each span of the problem."""

    @property
    def images(self) -> Mapping[str, ImageFound]:
        return self.offers[0].images

    def takes(self, group: GroupNeed) -> Vector:
        """What one workspace of the group takes of a host here, promised pairs aside."""
        alone = self._capped(group.need)
        taken = replace(alone, disk_mib=alone.disk_mib + group.saved_mib)
        return self._with_further(_at_most(taken, group), group)

    def charges(self, group: GroupNeed) -> Vector:
        """What of that its owner is charged for."""
        return self._with_further(_at_most(self._capped(group.need), group), group)

    def _with_further(self, taken: Vector, group: GroupNeed) -> Vector:
        return sum((self._capped(each.need) for each in group.further), start=taken)

    def _capped(self, need: Vector) -> Vector:
        offer = self.offers[0]
        return replace(
            need,
            iops=need.iops or offer.default_iops,
            throughput_mib_s=need.throughput_mib_s or offer.default_mib_s,
        )


def _at_most(amounts: Vector, group: GroupNeed) -> Vector:
    """No more of them than is counted for the group."""
    counted = {name: min(getattr(amounts, name), most) for name, most in group.at_most.items()}
    return replace(amounts, **counted) if counted else amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What a site has refused: at this start, at least these counts together."""

    start: datetime
    counts: Mapping[tuple[str, str], int]
    """By (group, site); only what is above 0."""
    onwards: bool = False
    """At later starts likewise."""

    def holds_at(self, start: datetime) -> bool:
        return start == self.start or (self.onwards and start > self.start)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    groups: tuple[GroupNeed, ...]
    sites: tuple[Site, ...]
    windows: tuple[Window, ...]
    """Candidates, the earliest first."""
    promises: tuple[Promise, ...] = ()
    limits: tuple[LatencyLimit, ...] = ()
    max_sites: int = 0
    fewest_sites: bool = True
    """Fewer sites come before less cost; else after it."""
    affinities: tuple[Affinity, ...] = ()
    max_cost: float | None = None
    """Of all that is planned, over its window; None: no bound."""
    cuts: tuple[Cut, ...] = ()
    standing: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Workspaces that are there already and stay where they are, by (group, site): they count by
    every rule, and take nothing of what is free."""
    least: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """How many are to be there at least, those included; likewise."""
    reserved: Mapping[frozenset[str], int] = field(default_factory=dict)
    """Mbit/s each way that the cluster has of the link of two sites, in what is not free."""
    items: tuple[Item, ...] = ()
    """What has to be at sites before it starts there. An image of which one is made is among what
    all sites offer that it may be brought to: see with_image_brought."""
    coming: frozenset[tuple[str, str]] = frozenset()
    """What is on its way by the terms of a cluster that stands, by (digest, site): among what the
    site offers."""
    spans: tuple[Window, ...] = ()
    """When that may be on its way, from now on: each begins where the one before it ends."""

    def group(self, name: str) -> GroupNeed:
        return next(group for group in self.groups if group.name == name)

    def site(self, name: str) -> Site:
        return next(site for site in self.sites if site.name == name)

    def of_kind(self, kind: AffinityKind) -> tuple[Affinity, ...]:
        return tuple(each for each in self.affinities if each.kind is kind)


def beyond_standing(problem: Problem) -> Problem:
    """What is wanted beyond what stands, as if it were all: to say what is short."""
    there: dict[str, int] = {}
    for (group, _), count in problem.standing.items():
        there[group] = there.get(group, 0) + count
    return replace(
        problem,
        groups=tuple(
            replace(
                each,
                fewest=max(each.fewest - there.get(each.name, 0), 0),
                most=max(each.most - there.get(each.name, 0), 0),
                min_sites=0,
                max_per_site=0,
            )
            for each in problem.groups
        ),
        max_sites=0,
        affinities=(),
        max_cost=None,
        cuts=(),
        standing={},
        least={},
        reserved={},
    )


def over(problem: Problem, slots: Sequence[int]) -> Problem:
    """The same over these of its windows alone, by their numbers."""
    return replace(
        problem,
        windows=tuple(problem.windows[slot] for slot in slots),
        sites=tuple(
            replace(each, offers=tuple(each.offers[slot] for slot in slots))
            for each in problem.sites
        ),
    )


def problem_of(
    spec: ClusterSpec,
    windows: tuple[Window, ...],
    offers: Mapping[str, Sequence[Offer]],
    cuts: tuple[Cut, ...] = (),
) -> Problem:
    """The planner's view of a normalised specification and the offers of the sites."""
    lease = spec.lease
    aside = lease.kind is not None and not lease.cancellable
    return Problem(
        groups=tuple(_need_of(spec, group, aside=aside) for group in spec.groups),
        sites=tuple(Site(name=name, offers=tuple(offers[name])) for name in sorted(offers)),
        windows=windows,
        promises=tuple(
            Promise(
                a=group.name,
                b=pair.group,
                network=pair.network,
                mbit_s=pair.bandwidth.guarantee_mbit_s,
                field=f"spec.groups[{at}].allocation.pairs[{number}].bandwidth.guarantee_mbit_s",
            )
            for at, group in enumerate(spec.groups)
            for number, pair in enumerate(group.allocation.pairs)
            if pair.bandwidth.guarantee_mbit_s > 0
        ),
        limits=tuple(
            LatencyLimit(
                a=bound.groups[0],
                b=bound.groups[1],
                network=network.name,
                most=bound.max_latency,
                field=f"spec.networks[{at}].latency[{number}].max_latency",
            )
            for at, network in enumerate(spec.networks)
            for number, bound in enumerate(network.latency)
        ),
        max_sites=spec.placement.max_sites,
        affinities=tuple(
            Affinity(
                groups=each.groups,
                kind=each.kind,
                field=f"spec.placement.affinities[{at}]",
            )
            for at, each in enumerate(spec.placement.affinities)
        ),
        max_cost=spec.placement.max_cost or None,
        cuts=cuts,
    )


def _need_of(spec: ClusterSpec, group: Group, *, aside: bool) -> GroupNeed:
    """`aside`: its sites may put it aside, and count disk for its memory from the start."""
    place = group.placement
    return GroupNeed(
        name=group.name,
        fewest=group.fewest,
        most=group.most,
        need=demand_of(group.allocation, len(group.networks), 0),
        image=group.environment.image,
        architecture=group.environment.architecture,
        hypervisor=group.environment.hypervisor,
        networks=group.networks,
        allow_sites=place.allow_sites,
        deny_sites=place.deny_sites,
        max_per_site=place.max_per_site,
        max_per_host=place.max_per_host,
        min_sites=place.min_sites,
        saved_mib=group.allocation.memory_mib if aside else 0,
        count_field="count" if group.count else "min_count",
        further=tuple(_further_of(spec, group)),
    )


def _further_of(spec: ClusterSpec, group: Group) -> Iterator[DiskNeed]:
    at = {each.name: f"spec.datasets[{n}]" for n, each in enumerate(spec.datasets)}
    at |= {each.name: f"spec.volumes[{n}]" for n, each in enumerate(spec.volumes)}
    for each in further_disks(spec, group.name):
        yield DiskNeed(
            need=demand_of_disk(each),
            image=each.image,
            field=at[each.name],
            said=f"data set {each.name}"
            if each.image
            else f"volume {each.name} of {each.size_mib} MiB",
        )


def with_image_brought(problem: Problem, image: str, item: Item) -> Problem:
    """With the item, that is the image which groups call so, and may be at every site for that."""
    found = next(site.images[image] for site in problem.sites if site.name in item.at)
    sites = tuple(
        replace(
            site,
            offers=tuple(
                replace(offer, images={image: found, **offer.images}) for offer in site.offers
            ),
        )
        for site in problem.sites
    )
    return replace(problem, sites=sites, items=(*problem.items, item))


def images_of(problem: Problem) -> tuple[str, ...]:
    """All that its groups boot from or read, by what the request calls it."""
    return tuple(
        dict.fromkeys(image for each in problem.groups for image in (each.image, *each.data))
    )


def who_need(problem: Problem, digest: str) -> Iterator[str]:
    """Groups that boot from it or read it, wherever they are."""
    for group in problem.groups:
        names = (group.image, *group.data)
        if any(
            found.digest == digest
            for site in problem.sites
            for name in names
            if (found := site.images.get(name)) is not None
        ):
            yield group.name


def content_at(site: Site, group: GroupNeed) -> str:
    """What all of the group are to have alike, of its image and its data sets; empty where one of
    them is not there."""
    found = (digest_at(site, group), *data_at(site, group))
    return " ".join(found) if all(found) else ""


def data_at(site: Site, group: GroupNeed) -> tuple[str, ...]:
    """Digests of the group's data sets there, in their order; empty for one that is not there."""
    found = (site.images.get(each) for each in group.data)
    return tuple(each.digest if each else "" for each in found)


def digest_at(site: Site, group: GroupNeed) -> str:
    """Of the group's image there; empty where there is none."""
    found = site.images.get(group.image)
    return found.digest if found else ""
