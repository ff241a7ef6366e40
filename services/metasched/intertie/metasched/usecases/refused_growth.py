"""What is tried next after sites have refused to give a cluster that stands more."""

from intertie.common.errors import (
    Aborted,
    ImageNotReady,
    LedgerFull,
    NoCapacity,
    SiteUnreachable,
)
from intertie.metasched.domain.plan import Plan
from intertie.metasched.usecases.brief import Brief
from intertie.metasched.usecases.coallocate import Refused


def after_refusal(brief: Brief, grown: Plan | None, error: Refused, *, last: bool) -> Brief:
    """What to plan by after a refusal; raises what the caller is told where nothing is left to
    try. Who stays does so where it is, so only what is new can go elsewhere."""
    again = NoCapacity, ImageNotReady, SiteUnreachable
    for site, refusal in sorted(error.refusals.items()):
        if isinstance(refusal, LedgerFull):
            raise refusal
        if not isinstance(refusal, again):
            raise Aborted(error.tx, f"{site}: {refusal}") from refusal
    for kind in (SiteUnreachable, ImageNotReady):
        for refusal in error.refusals.values():
            if isinstance(refusal, kind) and (last or kind is SiteUnreachable):
                raise refusal
    if grown is not None and not last:
        return brief.after(grown, error.refusals)
    short = [
        each
        for refusal in error.refusals.values()
        if isinstance(refusal, NoCapacity)
        for each in refusal.shortfalls
    ]
    raise NoCapacity(tuple(dict.fromkeys((*brief.refused, *short))))
