"""How far parts are written down, and what is written together of the site's chain of usage."""

from datetime import datetime

from intertie.broker.domain.counted import UsedAt
from intertie.common.intervals import Window
from intertie.common.values import Struct


class Account(Struct, frozen=True, kw_only=True):
    """How far a part is written down."""

    name: str
    """The part's."""
    until: datetime
    number: int
    """Of its last record; 0: there is none."""
    used: tuple[UsedAt, ...] = ()
    """What its records say that was used, added up."""
    refunded: tuple[tuple[datetime, float], ...] = ()
    """Likewise of each item that is given back, in its place: up to when, and how much."""


class UsageHead(Struct, frozen=True, kw_only=True):
    """Where the site's chain ends."""

    number: int
    hash: bytes
    certificate: str
    """The name of the certificate that signed it."""


class ChainEntry(Struct, frozen=True, kw_only=True):
    """A link of the chain; the record itself is kept beside it."""

    number: int
    tenant: str
    digest: bytes
    hash: bytes


class Checkpoint(Struct, frozen=True, kw_only=True):
    """The site's word on its chain up to and with entry `number`."""

    number: int
    body: bytes
    signature: bytes
    certificate: bytes
    """PEM."""


class UsageBatch(Struct, frozen=True, kw_only=True):
    """Records that are written together, and signed together."""

    head_read_at: int
    """The revision at which the chain's end was last written; 0: there was no chain."""
    head: UsageHead
    """Where it ends with these."""
    entries: tuple[ChainEntry, ...]
    bodies: tuple[bytes, ...]
    """Of the records, as many as entries."""
    checkpoint: Checkpoint
    certificate_is_new: bool
    """It is not the one that signed before."""


class StoredRecord(Struct, frozen=True, kw_only=True):
    """A record as it was written."""

    number: int
    body: bytes
    period: Window | None
    """None: it is damaged."""
