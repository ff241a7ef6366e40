"""What the owner of a cluster was promised, and what the sites measure of it."""

from collections.abc import Iterator, Mapping

from intertie.common.guarantees import (
    Guarantee,
    GuaranteeKind,
    Measured,
    of_pairs,
    of_workspace,
    with_measured,
)
from intertie.common.part_spec import further_disks
from intertie.common.spec import ClusterSpec, Layout
from intertie.metasched.domain.plan import Plan


def guarantees_of(
    spec: ClusterSpec,
    plan: Plan,
    placed: Layout,
    measured: Mapping[str, tuple[Measured, ...]],
) -> Iterator[Guarantee]:
    """Every promise that is more than nothing: pairs, NICs, disks, links between sites; with
    what is measured of it, by site."""
    return with_measured(_promises(spec, plan, placed), _heard(plan, measured))


def _heard(plan: Plan, measured: Mapping[str, tuple[Measured, ...]]) -> Iterator[Measured]:
    """A site is heard on what begins there, and on nothing else."""
    site_of = plan.site_of()
    for site, told in measured.items():
        for each in told:
            end = each.source or each.target
            begins_at = end if each.kind is GuaranteeKind.LINK_BANDWIDTH else site_of.get(end)
            if begins_at == site:
                yield each


def _promises(spec: ClusterSpec, plan: Plan, placed: Layout) -> Iterator[Guarantee]:
    for network, pairs in placed.pairs.items():
        yield from of_pairs(network, pairs)
    for label in placed.nics:
        group = spec.group(label.rpartition("-")[0])
        disks = further_disks(spec, group.name)
        yield from of_workspace(label, group.allocation, group.networks, disks)
    for link in plan.links:
        if not link.mbit_s:
            continue  # only the way is planned
        yield Guarantee(
            kind=GuaranteeKind.LINK_BANDWIDTH,
            source=link.from_site,
            target=link.to_site,
            network=link.network,
            guarantee=link.mbit_s,
            cap=0,
            unit="Mbit/s",
        )
