"""Which VXLAN ids a site has left."""

from itertools import chain

from intertie.broker.domain.ledger import FIRST_VNI, LAST_VNI, LedgerView


def free_vnis(view: LedgerView, count: int) -> tuple[int, ...]:
    """VXLAN ids that no part of this site has. Those given back are given again late, so that
    what is still on its way under an old id finds nobody."""
    found: list[int] = []
    for candidate in chain(range(view.next_vni, LAST_VNI + 1), range(FIRST_VNI, view.next_vni)):
        if len(found) == count:
            break
        if candidate not in view.vnis:
            found.append(candidate)
    if len(found) < count:
        raise LookupError("no VXLAN id is left")
    return tuple(found)
