"""What was agreed that a lease costs, in the unit of account of its sites."""

from collections.abc import Iterable, Iterator

from intertie.common.intervals import Window
from intertie.common.room_words import give_way, plus
from intertie.common.tariff import RoomMade
from intertie.common.values import Struct


class PriceTerm(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one site, over a time in which it had one price."""

    site: str
    window: Window
    kind: str = ""
    """Of lease; empty: planned, and not agreed yet."""
    amount: float
    room: RoomMade | None = None
    """What others make room for, and what of the amount is for that; None: nothing."""


def rooms_said(terms: Iterable[PriceTerm]) -> Iterator[str]:
    """Of each that others make room for."""
    for each in terms:
        if (room := each.room) is not None:
            yield give_way(
                vcpus=room.vcpus, memory_mib=room.memory_mib, site=each.site, amount=room.amount
            )


def if_put_aside(terms: Iterable[PriceTerm]) -> str:
    """Where, and for how much; empty where nothing is asked for that."""
    asked = [(each.site, each.room.amount) for each in terms if each.room is not None]
    sites = " and ".join(dict.fromkeys(site for site, _ in asked))
    amount = sum(amount for _, amount in asked)
    return f"if best-effort leases at {sites} are put aside: {plus(amount)}" if asked else ""
