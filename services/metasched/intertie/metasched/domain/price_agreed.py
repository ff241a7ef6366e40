"""What sites ask once they hold their parts, beside what the request may cost."""

from collections.abc import Mapping

from intertie.common.budget import above, over_budget
from intertie.common.errors import DomainError, NoCapacity
from intertie.common.spec import ClusterSpec
from intertie.metasched.domain.plan import Plan


def sites_above_budget(spec: ClusterSpec, planned: Plan, agreed: Plan) -> Mapping[str, DomainError]:
    """The sites that ask more than they had offered, where all of them together ask more than may
    be; all, where none does. As if each had refused: then others are tried. Empty where it is
    within the budget, or has none."""
    most = spec.placement.max_cost
    if not most or not above(agreed.cost, most):
        return {}
    offered = {each.site: each.cost for each in planned.sites}
    dearer = [each.site for each in agreed.sites if above(each.cost, offered.get(each.site, 0.0))]
    what = "at what its sites ask by now it"
    short = over_budget(agreed.cost, most, what=what, asked=agreed.expected())
    return {site: NoCapacity((short,)) for site in dearer or agreed.site_names}
