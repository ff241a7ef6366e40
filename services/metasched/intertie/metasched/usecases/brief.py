"""What one cluster's planning goes by, from attempt to attempt."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from intertie.common.errors import (
    DomainError,
    ImageNotReady,
    LedgerFull,
    NoCapacity,
    Shortfall,
    SiteUnreachable,
)
from intertie.common.intervals import Window
from intertie.common.spec import ClusterSpec
from intertie.common.values import replace
from intertie.metasched.domain.cuts import cuts_of
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import Cut, Problem
from intertie.metasched.domain.taken import Taken

NoUse = SiteUnreachable | LedgerFull
"""Why a site is left out."""

HOLD_WITHIN = timedelta(seconds=5)
"""From what sites say they could make room for to their holding it, at a first attempt: who is put
aside later than that is not saved in time. Most of it is time to spare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """What one cluster's planning goes by; grows with every refusal."""

    tenant: str
    spec: ClusterSpec
    """Normalised."""
    windows: tuple[Window, ...]
    cuts: tuple[Cut, ...] = ()
    refused: tuple[Shortfall, ...] = ()
    """What sites said was short when they refused a hold."""
    without: Mapping[str, NoUse]
    """Sites that are left out, and why."""
    image_gone: Mapping[str, ImageNotReady]
    """Sites that turned out not to have an image when they were to hold."""
    others_give_way: bool = False
    """Of a lease with a deadline: there is no room for it else."""
    to_go_on: bool = True
    """Of a lease with a deadline: room is looked for in which it could go on if it were put
    aside."""
    beside: Callable[[Problem], Problem] | None = None
    """Of a cluster that stands: puts what there is of it into the problem."""
    leaves: tuple[Taken, ...] = ()
    """Room that sites offer and that is left for others. Of one window only."""
    hold_within: timedelta = HOLD_WITHIN
    """How long sites may take to hold it, where others are put aside first. Longer after each
    refusal, which may have come because that was too little."""

    others_stay: bool = False
    """Nobody is to give way: only what is free is offered."""
    since: datetime | None = None
    """When it was begun to plan; images may be brought from a little later on, also to a cluster
    that stands. None: none are."""
    sends_nothing: frozenset[str] = frozenset()
    """Sites that have refused to."""

    @property
    def before_others(self) -> bool:
        """Sites offer what they could make room for. What is added to a cluster that stands is
        planned on what is free: for an amend sites make room only where they hold it."""
        if self.others_stay:
            return False
        return self.others_give_way or (self.spec.lease.kind is None and self.beside is None)

    def after(self, plan: Plan, refusals: Mapping[str, DomainError]) -> "Brief":
        """The next attempt's: what was refused is not asked for again."""
        cuts, refused = list(self.cuts), list(self.refused)
        sends_nothing = set(self.sends_nothing)
        without, image_gone = dict(self.without), dict(self.image_gone)
        for site, error in refusals.items():
            if isinstance(error, NoCapacity) and _is_of_transfers(plan, site, error):
                if any(each.resource != "data" for each in error.shortfalls):
                    sends_nothing.add(site)
                refused.extend(error.shortfalls)
            elif isinstance(error, NoCapacity):
                cuts += cuts_of(plan, site, error)
                refused.extend(error.shortfalls)
            elif isinstance(error, ImageNotReady):
                image_gone[site] = error
            elif isinstance(error, SiteUnreachable | LedgerFull):
                without[site] = error
        return replace(
            self,
            cuts=tuple(cuts),
            refused=tuple(dict.fromkeys(refused)),
            without=without,
            image_gone=image_gone,
            sends_nothing=frozenset(sends_nothing),
            hold_within=2 * self.hold_within,
        )


_OF_TRANSFERS = frozenset({"reachability", "link_egress", "link_ingress", "data"})
"""Resources that may be short for what is brought alone; `data`: it should have begun."""


def _is_of_transfers(plan: Plan, site: str, error: NoCapacity) -> bool:
    """What was refused may be what is brought from there or to it, and is tried without that."""
    if not plan.has_workspaces(site):
        return True
    moves = any(site in (each.from_site, each.to_site) for each in plan.transfers)
    return moves and all(each.resource in _OF_TRANSFERS for each in error.shortfalls)
