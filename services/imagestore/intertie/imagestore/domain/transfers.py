"""What one site's store brings from another's, by which grant, and what a failure of it means."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from intertie.common.errors import (
    MAX_SKEW,
    DigestMismatch,
    DomainError,
    FieldInvalid,
    NameTaken,
    RoleDenied,
)
from intertie.common.transfer import TransferGrant
from intertie.common.values import replace
from intertie.imagestore.domain.image import Announcement

MISMATCHES = 2
"""So often what a grant has brought may be wrong; then it is given up."""


class State(Enum):
    """As imagestore.v1.Transfer.State, by name."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How far one is."""

    digest: str
    size_bytes: int
    done_bytes: int
    state: State
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStore:
    site: str
    addresses: tuple[str, ...]
    server_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a broker has asked for."""

    said: Announcement
    named: bool
    """It asked for that very name; else bytes that stand here under any are enough."""
    source: PeerStore
    grant: TransferGrant
    signed: bytes
    """The grant as it is carried to the source."""

    @property
    def terms(self) -> tuple[PeerStore, TransferGrant]:
        """The same for as long as nothing but the signature is renewed."""
        return self.source, replace(self.grant, sign_time=self.grant.end_time)


def objection(grant: TransferGrant, *, site: str, target_site: str, now: datetime) -> str:
    """Why it is no leave to fetch from this site's store for the store of `target_site`; empty
    where it is. One that begins within MAX_SKEW is: its holder's clock may be ahead."""
    if grant.source_site != site:
        return f"its grant is for the store of {grant.source_site}"
    if grant.target_site != target_site:
        return f"its grant is for the site {grant.target_site}"
    if grant.sign_time > now + MAX_SKEW:
        return f"its grant is signed at {grant.sign_time:%FT%TZ}, which is yet to come"
    if grant.begin_time > now + MAX_SKEW:
        return f"its grant begins at {grant.begin_time:%FT%TZ}"
    if now >= grant.end_time:
        return run_out(grant)
    return ""


def run_out(grant: TransferGrant) -> str:
    return f"its grant has run out at {grant.end_time:%FT%TZ}"


def chosen(orders: Collection[Order], tries: Mapping[str, int], *, now: datetime) -> Order | None:
    """By which of them to bring it now; `tries` are those of each tx so far. None: none has
    begun."""
    return min(
        (each for each in orders if each.grant.begin_time <= now),
        key=lambda each: (tries.get(each.grant.tx, 0), each.grant.begin_time, each.grant.tx),
        default=None,
    )


class Consequence(Enum):
    TRY_AGAIN = "try again"
    DROP_GRANT = "drop grant"
    GIVE_UP = "give up"


def consequence(error: DomainError, *, mismatches: int) -> Consequence:
    """`mismatches` counts those by this grant, this one too."""
    match error:
        case FieldInvalid() | NameTaken():
            return Consequence.GIVE_UP  # no image, or the owner has decided otherwise
        case RoleDenied():
            return Consequence.DROP_GRANT
        case DigestMismatch() if mismatches >= MISMATCHES:
            return Consequence.DROP_GRANT
    return Consequence.TRY_AGAIN
