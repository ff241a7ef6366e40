"""Decisions on co-allocations, and when one may be applied to a part of this site."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from intertie.broker.domain.part import Endpoint, Part, PartState, RemoteEndpoint
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


def check(part: Part, decision: Decision, receipts: Iterable[OpenedReceipt]) -> None:
    """DecisionInvalid unless the decision is on this part's co-allocation and, to commit, was
    taken by its coordinator over every participant's own receipt that it is prepared.

    A key that was lost after its certificate ended can sign for no new agreement: all parts of
    one are held, and then prepared, within the time that a hold lasts.
    """
    if not part.tx or decision.tx != part.tx:
        raise DecisionInvalid(f"it is on {decision.tx or 'nothing'}, the part is of {part.tx}")
    if decision.outcome is Outcome.OPEN:
        raise DecisionInvalid("it is open")
    if decision.outcome is Outcome.ABORT:
        return
    if decision.decided_by != part.coordinator:
        raise DecisionInvalid(
            f"{decision.decided_by or 'nobody'} decided, {part.coordinator} coordinates"
        )
    if decision.digest != part.digest:
        raise DecisionInvalid("it is over another agreement: the digests differ")
    prepared = set()
    for each in receipts:
        body = each.body
        if body.site != each.signer:
            raise DecisionInvalid(f"a receipt of {body.site} is signed by {each.signer or '?'}")
        if (body.tx, body.digest) != (part.tx, part.digest):
            raise DecisionInvalid(f"the receipt of {body.site} is over another agreement")
        if body.state is not PartState.PREPARED:
            raise DecisionInvalid(f"the receipt of {body.site} says {body.state.name}")
        if body.sign_time < part.create_time - MAX_TTL:
            raise DecisionInvalid(f"the receipt of {body.site} is older than the agreement")
        prepared.add(body.site)
    if missing := set(part.participants) - prepared:
        raise DecisionInvalid(f"no receipt of {', '.join(sorted(missing))}")


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
                return replace(confirmed, remotes=_remotes(part, receipts, site))
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


def _remotes(
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
