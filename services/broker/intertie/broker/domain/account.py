"""How far parts are written down, and what is written together of the site's chain of usage."""

from dataclasses import dataclass
from datetime import datetime

from intertie.common.intervals import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """How far a part is written down."""

    name: str
    """The part's."""
    until: datetime
    number: int
    """Of its last record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageHead:
    """Where the site's chain ends."""

    number: int
    hash: bytes
    certificate: str
    """The name of the certificate that signed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainEntry:
    """A link of the chain; the record itself is kept beside it."""

    number: int
    tenant: str
    digest: bytes
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The site's word on its chain up to and with entry `number`."""

    number: int
    body: bytes
    signature: bytes
    certificate: bytes
    """PEM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageBatch:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """A record as it was written."""

    number: int
    body: bytes
    period: Window | None
    """None: it is damaged."""
