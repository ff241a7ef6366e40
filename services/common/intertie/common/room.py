"""How full a store is, and what is still taken.

A store at its quota takes nothing at all: no end of a lease, no decision, no sign of life. So what
makes it grow is refused while there is room left for what brings leases to their ends.
"""

from collections.abc import Iterable
from enum import Enum

from intertie.common.values import Struct

NEARLY = 0.97
"""Of the quota, in the file's size: etcd writes into what is free in its file first, but one large
value may not find its place there."""


class Level(Enum):
    ROOMY = "ROOMY"
    TIGHT = "TIGHT"
    """Nothing new is taken; everything else goes on."""
    FULL = "FULL"
    """etcd takes nothing."""


class Fill(Struct, frozen=True, kw_only=True):
    """Of the fullest member, in octets."""

    size: int
    """Of the file."""
    in_use: int
    quota: int
    full: bool
    """The alarm is raised at some member."""

    @classmethod
    def fullest(cls, members: Iterable["Fill"]) -> "Fill":
        """One at least. What one member cannot write, none does."""
        found = tuple(members)
        quota = min(each.quota for each in found)
        return cls(
            size=max(each.size for each in found),
            in_use=max(each.in_use for each in found),
            quota=quota,
            full=any(each.full for each in found),
        )

    def level(self, refuse_above: float) -> Level:
        if self.full:
            return Level.FULL
        if self.in_use >= refuse_above * self.quota or self.size >= NEARLY * self.quota:
            return Level.TIGHT
        return Level.ROOMY

    def remedy(self, refuse_above: float) -> str:
        """What is wrong, and what its operator does about it."""
        mib = 1 << 20
        problem = (
            f"{self.in_use / mib:.0f} MiB of etcd's quota of {self.quota / mib:.0f} are in use, "
            f"its file has {self.size / mib:.0f}; nothing new is taken above "
            f"{refuse_above * self.quota / mib:.0f}, what stands goes on and ends. Its operator "
            "makes room: etcdctl compaction, then defrag of each member"
        )
        return f"{problem}, then alarm disarm" if self.full else f"{problem}, or a larger quota"
