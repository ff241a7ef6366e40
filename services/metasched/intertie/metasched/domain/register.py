"""The decision register: write-once, raced by coordinators and by participants in doubt."""

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta

from intertie.metasched.domain.commit import Settled, TxRecord

KEPT = timedelta(hours=25)
"""After a window's end, or the last site's answer where that is later: an hour more than sites
keep what is left of a part."""


def may_ask(tx: TxRecord | None, site: str, known_sites: Collection[str]) -> bool:
    """A site may ask for, and race, the decision on what it takes part in.

    Of a transaction that nobody knows, any known site may: it holds a part that names this
    register, and an ABORT on record keeps a coordinator that comes back from committing it.
    """
    return site in tx.parts if tx is not None else site in known_sites


def forgettable(
    settled: Iterable[Settled],
    *,
    clusters: Collection[str],
    unsettled: Collection[str],
    now: datetime,
) -> Iterator[Settled]:
    """Decisions that no participant can ever ask for: each site has answered for it, by which its
    part is CONFIRMED or over, and in doubt no more; the cluster is over and forgotten, by which
    all of its parts are over; and what a late request could meet is gone too. All of one cluster
    together, by the latest of its windows. `clusters` and `unsettled`: uids of clusters that are on
    record, and of those with a transaction that is not settled."""
    of_cluster: dict[str, list[Settled]] = {}
    for each in settled:
        of_cluster.setdefault(each.cluster_uid, []).append(each)
    for uid, found in of_cluster.items():
        last = max(moment for each in found for moment in (each.until, each.settle_time))
        if uid not in clusters and uid not in unsettled and now >= last + KEPT:
            yield from found
