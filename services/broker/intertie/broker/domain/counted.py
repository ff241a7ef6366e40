"""Amounts that hosts count for a workspace."""

from datetime import datetime
from typing import ClassVar

from intertie.common.values import Struct

Amounts = tuple[int, int, int, int, int, int]


class Used(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Up to `read_time`."""

    NOTHING: ClassVar[Amounts] = (0, 0, 0, 0, 0, 0)

    read_time: datetime
    cpu_ns: int = 0
    disk_operations: int = 0
    disk_bytes: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    suspended_us: int = 0
    """Microseconds for which it was suspended."""

    def amounts(self) -> Amounts:
        return (
            self.cpu_ns,
            self.disk_operations,
            self.disk_bytes,
            self.sent_bytes,
            self.received_bytes,
            self.suspended_us,
        )

    def plus(self, other: "Used") -> "Used":
        return _used(
            max(self.read_time, other.read_time),
            [a + b for a, b in zip(self.amounts(), other.amounts(), strict=True)],
        )

    def less(self, other: "Used") -> "Used":
        """At its own time of reading; `other` has at most as much of each."""
        return _used(
            self.read_time, [a - b for a, b in zip(self.amounts(), other.amounts(), strict=True)]
        )


class UsedAt(Struct, frozen=True, kw_only=True):
    """On one host, since the workspace was first there."""

    host: str
    workspace: str
    used: Used


def _used(read_time: datetime, amounts: list[int]) -> Used:
    cpu_ns, operations, octets, sent, received, suspended_us = amounts
    return Used(
        read_time=read_time,
        cpu_ns=cpu_ns,
        disk_operations=operations,
        disk_bytes=octets,
        sent_bytes=sent,
        received_bytes=received,
        suspended_us=suspended_us,
    )
