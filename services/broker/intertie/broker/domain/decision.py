"""Decisions on co-allocations, and when one may be applied to a part of this site."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from intertie.broker.domain.networks import Endpoint, RemoteEndpoint
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.sending import ImageSource, sources_for
from intertie.broker.domain.terms import Amend
from intertie.common.errors import DecisionInvalid, PartOver
from intertie.common.values import replace

MAX_TTL = timedelta(minutes=10)
"""Of a hold."""


class Outcome(Enum):
    OPEN = "OPEN"
    COMMIT = "COMMIT"
    ABORT = "ABORT"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptBody:
    """What a site vouches for."""

    tx: str
    digest: str
    site: str
    part: str
    state: PartState
    sign_time: datetime
    endpoints: tuple[Endpoint, ...] = ()
    terms: int = 0
    """The number that the agreement's terms have once they are committed."""
    sends: tuple[ImageSource, ...] = ()
    """Of what its image store sends to other sites'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A body, serialized, with the signature of the site's broker."""

    body: bytes
    signature: bytes
    certificate: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedReceipt:
    """A receipt whose signature is good."""

    signer: str
    """The site whose trust domain issued the certificate; empty: no broker's."""
    body: ReceiptBody


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    tx: str
    outcome: Outcome
    digest: str = ""
    receipts: tuple[Receipt, ...] = ()
    decided_by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What a decision on a part, or on other terms for it, must be over."""

    tx: str
    digest: str
    participants: tuple[str, ...]
    terms: int
    since: datetime

    @classmethod
    def of(cls, part: Part, amend: Amend | None = None) -> "Agreement":
        if amend is None:
            return cls(
                tx=part.tx,
                digest=part.digest,
                participants=part.participants,
                terms=part.terms,
                since=part.create_time,
            )
        return cls(
            tx=amend.tx,
            digest=amend.digest,
            participants=amend.participants,
            terms=amend.replaces + 1,
            since=amend.create_time,
        )


def check(
    part: Part,
    decision: Decision,
    receipts: Iterable[OpenedReceipt],
    amend: Amend | None = None,
) -> None:
    """DecisionInvalid unless the decision is on this part's co-allocation, or on `amend`, and, to
    commit, was taken by its coordinator over every participant's own receipt that it is prepared.

    A key that was lost after its certificate ended can sign for no new agreement: all parts of
    one are held, and then prepared, within the time that a hold lasts.
    """
    over = Agreement.of(part, amend)
    if not over.tx or decision.tx != over.tx:
        raise DecisionInvalid(f"it is on {decision.tx or 'nothing'}, the part is of {over.tx}")
    if decision.outcome is Outcome.OPEN:
        raise DecisionInvalid("it is open")
    if decision.outcome is Outcome.ABORT:
        return
    check_decider(part, decision)
    if decision.digest != over.digest:
        raise DecisionInvalid("it is over another agreement: the digests differ")
    prepared = set()
    for each in receipts:
        body = each.body
        if body.site != each.signer:
            raise DecisionInvalid(f"a receipt of {body.site} is signed by {each.signer or '?'}")
        if (body.tx, body.digest) != (over.tx, over.digest):
            raise DecisionInvalid(f"the receipt of {body.site} is over another agreement")
        if body.terms != over.terms:
            raise DecisionInvalid(f"the receipt of {body.site} is of terms number {body.terms}")
        if body.state is not PartState.PREPARED:
            raise DecisionInvalid(f"the receipt of {body.site} says {body.state.name}")
        if body.sign_time < over.since - MAX_TTL:
            raise DecisionInvalid(f"the receipt of {body.site} is older than the agreement")
        prepared.add(body.site)
    if missing := set(over.participants) - prepared:
        raise DecisionInvalid(f"no receipt of {', '.join(sorted(missing))}")


def check_decider(part: Part, decision: Decision) -> None:
    if decision.decided_by != part.coordinator:
        raise DecisionInvalid(
            f"{decision.decided_by or 'nobody'} decided, {part.coordinator} coordinates"
        )


def applied(
    part: Part, decision: Decision, receipts: Iterable[OpenedReceipt], *, site: str, now: datetime
) -> Part:
    """The part after a decision that was checked; the same where it was applied before.

    COMMIT for a part that was let go would break the agreement: it is refused, loudly.
    """
    if decision.outcome is Outcome.COMMIT:
        match part.state:
            case PartState.PREPARED:
                confirmed = part.move(PartState.CONFIRMED, now=now)
                receipts = tuple(receipts)
                said = {each.body.site: each.body.sends for each in receipts}
                return replace(
                    confirmed,
                    remotes=remotes_of(part, receipts, site),
                    sources=sources_for(part.spec, site, said),
                )
            case PartState.CONFIRMED | PartState.ENDED:
                return part
            case PartState.RELEASED | PartState.EXPIRED:
                raise PartOver(part.name, part.state.name)
        raise DecisionInvalid(f"{part.name} is {part.state.name}, it was never prepared")
    match part.state:
        case PartState.HELD | PartState.PREPARED:
            reason = f"aborted: {decision.reason}" if decision.reason else "aborted"
            return part.move(PartState.RELEASED, now=now, reason=reason)
        case PartState.RELEASED | PartState.EXPIRED:
            return part
    raise DecisionInvalid(f"{part.name} is {part.state.name}: a COMMIT was applied before")


def remotes_of(
    part: Part, receipts: Iterable[OpenedReceipt], site: str
) -> tuple[RemoteEndpoint, ...]:
    """Where other sites take what is sent to the networks of this part."""
    ours = {network.name for network in part.spec.networks}
    return tuple(
        RemoteEndpoint(site=each.body.site, endpoint=endpoint)
        for each in sorted(receipts, key=lambda each: each.body.site)
        if each.body.site != site
        for endpoint in each.body.endpoints
        if endpoint.network in ours
    )
