"""Which groups are to be at one site, and which at different ones: what of that can never be.

Only what is so whatever sites there are. Whether the sites there are will do the planner finds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from intertie.common.errors import FieldInvalid
from intertie.common.term_rules import check_unique, unknown
from intertie.common.terms import Affinity, AffinityKind, ClusterSpec, Group

MAX_AFFINITIES = 100

_FIELD = "spec.placement.affinities"


@dataclass(slots=True)
class _Block:
    """Groups that are all to be at one site, by one affinity or by several that have groups in
    common; or one group of which nothing is said."""

    groups: list[Group]
    said_in: list[int] = field(default_factory=list)
    """Positions of the affinities that say so."""

    @property
    def sites_needed(self) -> int:
        """At least."""
        return 1 if self.said_in else max(self.groups[0].placement.min_sites, 1)

    @property
    def allowed(self) -> frozenset[str] | None:
        """Sites where all of them may be; None where none of them names any."""
        named = [frozenset(each.placement.allow_sites) for each in self.groups]
        named = [each for each in named if each]
        if not named:
            return None
        denied = frozenset(site for each in self.groups for site in each.placement.deny_sites)
        return frozenset.intersection(*named) - denied


def check_affinities(spec: ClusterSpec) -> None:
    """Refuses, with FieldInvalid, what leaves no way to place all groups."""
    affinities = spec.placement.affinities
    if len(affinities) > MAX_AFFINITIES:
        raise FieldInvalid(
            _FIELD,
            f"has {len(affinities)}; at most {MAX_AFFINITIES} are allowed, join those that share "
            "groups",
        )
    groups = {group.name: group for group in spec.groups}
    for position, each in enumerate(affinities):
        _names_its_groups(each, groups, f"{_FIELD}[{position}].groups")
    blocks = _blocks_of(affinities, groups)
    for block in {id(each): each for each in blocks.values()}.values():
        if block.said_in:
            _one_site_can_have_all(block)
    for position, each in enumerate(affinities):
        if each.kind is AffinityKind.APART:
            apart = [blocks[name] for name in each.groups]
            _are_not_together(each, apart, position)
            _there_are_sites_for_all(apart, spec.placement.max_sites, position)


def _names_its_groups(affinity: Affinity, groups: Mapping[str, Group], at: str) -> None:
    """An affinity names groups of its cluster, each once: two or more, or one that is to be at one
    site."""
    least = 1 if affinity.kind is AffinityKind.TOGETHER else 2
    if len(affinity.groups) < least:
        raise FieldInvalid(
            at, f"names {len(affinity.groups)} groups; name {least} or more, or leave it out"
        )
    for place, name in enumerate(affinity.groups):
        if name not in groups:
            raise FieldInvalid(f"{at}[{place}]", unknown("group", name, tuple(groups)))
    check_unique(affinity.groups, at, "")


def _blocks_of(affinities: Sequence[Affinity], groups: Mapping[str, Group]) -> dict[str, _Block]:
    """By group."""
    blocks = {name: _Block([group]) for name, group in groups.items()}
    for position, each in enumerate(affinities):
        if each.kind is not AffinityKind.TOGETHER:
            continue
        joined = _Block([])
        for block in {id(blocks[name]): blocks[name] for name in each.groups}.values():
            joined.groups += block.groups
            joined.said_in += block.said_in
        joined.said_in.append(position)
        blocks |= {group.name: joined for group in joined.groups}
    return blocks


def _one_site_can_have_all(block: _Block) -> None:
    """Groups that are to be at one site say nothing else that keeps them from it."""
    at, names = f"{_FIELD}[{block.said_in[-1]}]", _listed(block.groups)
    for group in block.groups:
        place = group.placement
        if place.min_sites > 1:
            raise FieldInvalid(
                at,
                f"is for all of {names} at one site, and {group.name!r} is to be at "
                f"{place.min_sites} sites or more; lower its min_sites, or leave it out here",
            )
        if place.max_per_site and group.fewest > place.max_per_site:
            raise FieldInvalid(
                at,
                f"is for all of {names} at one site, and of {group.fewest} {group.name!r} at most "
                f"{place.max_per_site} may be at one; raise its max_per_site, or leave it out here",
            )
    if block.allowed is not None and not block.allowed:
        raise FieldInvalid(
            at,
            f"is for all of {names} at one site, and by their allow_sites and deny_sites none may "
            "have all of them; allow them one that is the same, or leave one out here",
        )


def _are_not_together(affinity: Affinity, apart: Sequence[_Block], position: int) -> None:
    """Groups that are to be apart are not to be at one site by others, however many it takes."""
    seen: dict[int, str] = {}
    for name, block in zip(affinity.groups, apart, strict=True):
        if id(block) in seen:
            others = ", ".join(f"{_FIELD}[{each}]" for each in block.said_in)
            raise FieldInvalid(
                f"{_FIELD}[{position}]",
                f"is for {seen[id(block)]!r} and {name!r} at different sites, which are to be at "
                f"one by {others}; take one of them out",
            )
        seen[id(block)] = name


def _there_are_sites_for_all(apart: Sequence[_Block], max_sites: int, position: int) -> None:
    """Groups that are to be apart have as many sites as they take, and each one of its own."""
    at, needed = f"{_FIELD}[{position}]", sum(each.sites_needed for each in apart)
    if max_sites and needed > max_sites:
        raise FieldInvalid(
            at,
            f"takes {needed} sites, and spec.placement.max_sites is {max_sites}; raise it, or "
            "name fewer groups",
        )
    for one, two, site in _at_one_site(apart):
        raise FieldInvalid(
            at,
            f"is for {_listed(one)} and {_listed(two)} at different sites, and both are allowed at "
            f"{site!r} alone; allow one of them another site",
        )
    bound = [each for each in apart if each.allowed is not None]
    sites = frozenset[str]().union(*(each.allowed or () for each in bound))
    if (wanted := sum(each.sites_needed for each in bound)) > len(sites):
        raise FieldInvalid(
            at,
            f"takes {wanted} sites for {_listed([g for each in bound for g in each.groups])}, and "
            f"they are allowed at {len(sites)} in all; allow more, or name fewer groups",
        )


def _at_one_site(apart: Sequence[_Block]) -> Iterator[tuple[list[Group], list[Group], str]]:
    """Those that may be at one and the same site only, and which that is."""
    there: dict[str, list[Group]] = {}
    for block in apart:
        if block.allowed is None or len(block.allowed) != 1:
            continue
        (site,) = block.allowed
        if site in there:
            yield there[site], block.groups, site
        there[site] = block.groups


def _listed(groups: Sequence[Group]) -> str:
    names = [group.name for group in groups]
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
