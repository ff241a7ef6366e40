"""What a refused hold teaches: what is not asked for again."""

from intertie.common.errors import NoCapacity
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import Cut

_BETWEEN_SITES = frozenset({"uplink", "link_egress", "link_ingress"})
"""What a site has to give of these depends on what is at the others."""
_POLICY, _QUOTA = "policy", "quota_"
"""Resources of shortfalls that are no matter of room."""


def cuts_of(plan: Plan, site: str, error: NoCapacity) -> list[Cut]:
    """The refused counts at the site; with those elsewhere, where they made the difference. A
    group that none of the site's hosts may run is left out there altogether, and so are all where
    the site's policy takes no such lease, or has nothing left for the tenant."""
    start, short = plan.window.start, error.shortfalls
    here = next((each.counts for each in plan.sites if each.site == site), {})
    barred = {each.group for each in short if each.resource == _POLICY and each.group}
    if any(each.resource == _POLICY and not each.group for each in short):
        # Too long, or too far ahead: a later start makes it no better.
        return [Cut(start=start, counts={(group, site): 1}, onwards=True) for group in here]
    quotas = [each for each in short if each.resource.startswith(_QUOTA)]
    if any(not each.available for each in quotas):
        barred |= here.keys()
    if barred:
        return [Cut(start=start, counts={(group, site): 1}) for group in sorted(barred)]
    if quotas:
        # Fewer of the largest group, so many as are left as if all workspaces took the same.
        total, largest = sum(here.values()), max(here, key=lambda group: here[group])
        most = min(each.available * total // each.wanted for each in quotas)
        least = max(most - (total - here[largest]) + 1, 1)
        fewer = {**here, largest: min(least, here[largest])}
        return [Cut(start=start, counts={(group, site): count for group, count in fewer.items()})]
    everywhere = any(each.resource in _BETWEEN_SITES for each in short)
    counts = {
        (group, each.site): count
        for each in plan.sites
        if everywhere or each.site == site
        for group, count in each.counts.items()
    }
    return [Cut(start=start, counts=counts)]
