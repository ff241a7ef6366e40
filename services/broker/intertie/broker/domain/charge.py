"""What of a part is written down: as much as a record of usage says."""

from datetime import datetime

from intertie.common.quantities import Vector
from intertie.common.values import Struct


class Alike(Struct, frozen=True, kw_only=True):
    """Workspaces of a part that have the same."""

    group: str
    indices: tuple[int, ...]
    each: Vector
    image: str


class Reserved(Struct, frozen=True, kw_only=True):
    """What a part takes of its site."""

    hosts: Vector
    """Of all of them together."""
    links: tuple[tuple[str, int, int], ...]
    """(peer, Mbit/s out, Mbit/s in)"""


class Charge(Struct, frozen=True, kw_only=True):
    reserved: Reserved
    workspaces: tuple[Alike, ...]


class PastCharge(Struct, frozen=True, kw_only=True):
    """Of terms that were in force until a part was amended."""

    until: datetime
    charge: Charge
