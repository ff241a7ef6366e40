"""Well-formed specifications of every kind, for hypothesis."""

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from intertie.common import spec
from intertie.common.spec import (
    DEFAULT_DURATION,
    ClusterSpec,
    Group,
    Kind,
    LeaseTerms,
    Network,
)
from intertie.common.values import replace

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f alice"

labels = st.from_regex(r"[a-z][a-z0-9]{0,7}(-[a-z0-9]{1,3})?", fullmatch=True)
spans = st.integers(1, 10_000_000).map(lambda n: timedelta(milliseconds=n))


@st.composite
def bandwidths(draw: st.DrawFn, least: int = 0) -> spec.BandwidthTerm:
    guarantee = draw(st.integers(least, 1000))
    cap = draw(st.one_of(st.just(0), st.integers(guarantee, 2000)))
    return spec.BandwidthTerm(guarantee_mbit_s=guarantee, cap_mbit_s=cap)


@st.composite
def disks(draw: st.DrawFn) -> spec.DiskTerm:
    iops, rate = draw(st.integers(0, 1000)), draw(st.integers(0, 1000))
    return spec.DiskTerm(
        guarantee_iops=iops,
        cap_iops=draw(st.one_of(st.just(0), st.integers(iops, 2000))),
        guarantee_mib_s=rate,
        cap_mib_s=draw(st.one_of(st.just(0), st.integers(rate, 2000))),
    )


environments = st.builds(
    spec.Environment,
    image=st.one_of(labels, st.just("b3:" + "5c" * 32)),
    architecture=st.sampled_from(["", "x86_64", "aarch64"]),
    hypervisor=st.sampled_from(["", "any", "kvm", "qemu"]),
    contextualization=st.builds(
        spec.Contextualization,
        ssh_authorized_keys=st.lists(st.just(SSH_KEY), max_size=2).map(tuple),
        user_data=st.binary(max_size=64),
    ),
    readiness=st.sampled_from(spec.Readiness),
    timezone=st.sampled_from(["", "UTC", "Europe/Vienna"]),
    ready_within=st.sampled_from([timedelta(), timedelta(seconds=1), timedelta(hours=24)]),
)

availabilities = st.one_of(
    st.just(spec.AvailabilityTerm()),
    st.just(spec.AvailabilityTerm(on_site_loss=spec.OnSiteLoss.REPLACE)),
    st.just(
        spec.AvailabilityTerm(
            on_site_loss=spec.OnSiteLoss.REPLACE, on_link_loss=spec.OnLinkLoss.MOVE
        )
    ),
    spans.map(
        lambda span: spec.AvailabilityTerm(on_isolation=spec.OnIsolation.STOP, stop_after=span)
    ),
)


@st.composite
def groups(draw: st.DrawFn, name: str, networks: list[str]) -> Group:
    least = draw(st.integers(1, 6))
    fixed = draw(st.booleans())
    return Group(
        name=name,
        count=least if fixed else 0,
        min_count=0 if fixed else least,
        max_count=0 if fixed else least + draw(st.integers(0, 6)),
        environment=draw(environments),
        allocation=spec.Allocation(
            vcpus=draw(st.integers(1, 256)),
            memory_mib=draw(st.integers(16, 1 << 20)),
            disk_mib=draw(st.integers(1, 1 << 20)),
            disk=draw(disks()),
            nic=draw(bandwidths()),
            availability=draw(availabilities),
        ),
        networks=tuple(draw(st.permutations(networks))[: draw(st.integers(0, len(networks)))]),
        placement=spec.GroupPlacement(
            deny_sites=tuple(draw(st.lists(labels, max_size=2, unique=True))),
            max_per_host=draw(st.integers(0, 3)),
        ),
    )


@st.composite
def leases(draw: st.DrawFn) -> LeaseTerms:
    start = draw(st.one_of(st.none(), spans.map(lambda span: NOW + span)))
    length, by_end = draw(spans), draw(st.sampled_from(["none", "duration", "end"]))
    if draw(st.booleans()):
        duration = length if by_end == "duration" else None
        if draw(st.booleans()):
            at_best = NOW + (duration or DEFAULT_DURATION)
            return LeaseTerms(duration=duration, kind=Kind.DEADLINE, deadline=at_best + draw(spans))
        return LeaseTerms(
            duration=duration,
            kind=Kind.BEST_EFFORT,
            max_wait=draw(st.one_of(st.just(timedelta()), spans)),
            cancellable=draw(st.booleans()),
        )
    return LeaseTerms(
        start_time=start,
        duration=length if by_end == "duration" else None,
        end_time=(start or NOW) + length if by_end == "end" else None,
        max_delay=draw(st.one_of(st.just(timedelta()), spans)),
    )


@st.composite
def further_disks(
    draw: st.DrawFn, groups: list[str]
) -> tuple[tuple[spec.Dataset, ...], tuple[spec.Volume, ...]]:
    """Few: what is drawn for them is in every specification's way."""
    data = tuple(
        spec.Dataset(
            name="genomes",
            source=draw(st.sampled_from(["genomes-v2", "b3:" + "5c" * 32])),
            groups=draw(st.sampled_from([(), (groups[0],)])),
            disk=draw(disks()),
        )
        for _ in range(draw(st.integers(0, 1)))
    )
    volumes = tuple(
        spec.Volume(
            name="scratch",
            size_mib=draw(st.integers(1, 1 << 20)),
            disk=draw(disks()),
            group=draw(st.sampled_from(groups)),
        )
        for _ in range(draw(st.integers(0, 1)))
    )
    return data, volumes


@st.composite
def cluster_specs(draw: st.DrawFn) -> ClusterSpec:
    """One to four groups on up to three networks, with pairs where groups share one."""
    names = draw(st.lists(labels, min_size=1, max_size=4, unique=True))
    nets = draw(st.lists(labels, max_size=3, unique=True))
    drawn = [draw(groups(name, nets)) for name in names]
    on = {group.name: group.networks or tuple(nets) for group in drawn}
    with_pairs = [_with_pair(draw, group, names[at:], on) for at, group in enumerate(drawn)]
    data, volumes = draw(further_disks(names))
    lease = draw(leases())
    return ClusterSpec(
        groups=tuple(with_pairs),
        datasets=data,
        volumes=volumes,
        networks=tuple(
            Network(
                name=net,
                subnet=f"10.{at}.0.0/{draw(st.integers(16, 25))}",
                latency=_latency(draw, [name for name in names if net in on[name]]),
            )
            for at, net in enumerate(nets)
        ),
        lease=lease,
        placement=draw(placements(names, priced=lease.kind is None)),
    )


@st.composite
def placements(draw: st.DrawFn, names: list[str], *, priced: bool) -> spec.Placement:
    """One affinity at most: several may be a contradiction. `priced`: with a budget, it may be."""
    max_sites = draw(st.integers(0, 3))
    kind = draw(st.sampled_from(spec.AffinityKind))
    together = kind is spec.AffinityKind.TOGETHER
    most = len(names) if together or not max_sites else min(len(names), max_sites)
    groups = tuple(draw(st.permutations(names))[: draw(st.integers(0, most))])
    affinity = spec.Affinity(groups=groups, kind=kind)
    return spec.Placement(
        max_sites=max_sites,
        affinities=() if len(groups) < (1 if together else 2) else (affinity,),
        max_cost=draw(st.sampled_from([0.0, 0.01, 12.5, 1e9])) if priced else 0.0,
    )


def _with_pair(
    draw: st.DrawFn, group: Group, later: list[str], on: dict[str, tuple[str, ...]]
) -> Group:
    """Towards groups that come later only: a pair is promised once."""
    other = draw(st.sampled_from(later))
    shared = spec.shared_networks(on[group.name], on[other])
    if not shared or draw(st.booleans()):
        return group
    network = "" if len(shared) == 1 and draw(st.booleans()) else draw(st.sampled_from(shared))
    pair = spec.PairTerm(group=other, network=network, bandwidth=draw(bandwidths(least=1)))
    return replace(group, allocation=replace(group.allocation, pairs=(pair,)))


def _latency(draw: st.DrawFn, there: list[str]) -> tuple[spec.LatencyBound, ...]:
    if not there or draw(st.booleans()):
        return ()
    ends = draw(st.tuples(st.sampled_from(there), st.sampled_from(there)))
    bound = timedelta(microseconds=draw(st.integers(1, 10_000_000)))
    return (spec.LatencyBound(groups=ends, max_latency=bound),)
