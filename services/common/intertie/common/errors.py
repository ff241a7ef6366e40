"""Every error that a caller may be told of: one type a reason.

`str()` of an error is the sentence for a person. `intertie.common.rpc.errors`
holds the one table that maps the types to gRPC.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from intertie.common.explanation import UNEXPLAINED, Explanation


class DomainError(Exception):
    """A request that cannot be served, for a reason the caller can act on."""

    reason: ClassVar[str] = ""
    """UPPER_SNAKE_CASE. API: never renamed, never used again for something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """One resource that is short, and by how much; fields as in types.v1.Shortfall."""

    site: str
    resource: str
    wanted: int = 0
    available: int = 0
    unit: str = ""
    host: str = ""
    group: str = ""
    peer: str = ""
    message: str = ""
    field: str = ""
    until: datetime | None = None

    def __str__(self) -> str:
        if self.message:
            return self.message
        place = f"{self.site}/{self.host}" if self.host else self.site
        if self.peer:
            place = f"{place} towards {self.peer}"
        if not self.unit:
            return f"{place}: {self.resource} is missing"
        return (
            f"{place}: {self.resource} {self.wanted} {self.unit} wanted, {self.available} available"
        )


@dataclass(eq=False)
class FieldInvalid(DomainError):
    """A field is malformed; `problem` says what is wrong and what would be right."""

    reason = "FIELD_INVALID"
    field: str
    problem: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}" if self.field else self.problem


@dataclass(eq=False)
class NotFound(DomainError):
    reason = "NOT_FOUND"
    name: str

    def __str__(self) -> str:
        return f"{self.name} does not exist"


@dataclass(eq=False)
class NameTaken(DomainError):
    reason = "NAME_TAKEN"
    name: str

    def __str__(self) -> str:
        return f"{self.name} exists already"


@dataclass(eq=False)
class RequestIdReuse(DomainError):
    """The request id was used before, with another body."""

    reason = "REQUEST_ID_REUSE"
    request_id: str

    def __str__(self) -> str:
        return f"request_id {self.request_id} was used with another request"


@dataclass(eq=False)
class NoCapacity(DomainError):
    """It fits nowhere; `shortfalls` says what was short, site by site, `explanation` which of what
    was asked for stands against what, where somebody has found that out."""

    reason = "NO_CAPACITY"
    shortfalls: tuple[Shortfall, ...]
    explanation: Explanation = UNEXPLAINED

    def __str__(self) -> str:
        if not self.shortfalls:
            return "it does not fit"
        return "it does not fit: " + "; ".join(str(each) for each in self.shortfalls)


@dataclass(eq=False)
class PlanStale(DomainError):
    """A plan that was told can no longer be had as it was told; others may be. `shortfalls` says
    what sites were short of."""

    reason = "PLAN_STALE"
    problem: str
    shortfalls: tuple[Shortfall, ...] = ()

    def __str__(self) -> str:
        return f"the plan cannot be had any more as it was told: {self.problem}; plan again"


@dataclass(eq=False)
class ImageNotReady(DomainError):
    reason = "IMAGE_NOT_READY"
    image: str
    site: str
    """Empty: all of them."""
    field: str = ""
    """Where the request asks for it; empty where it is not said."""

    def __str__(self) -> str:
        return f"image {self.image} is not at {f'site {self.site}' if self.site else 'any site'}"


MAX_SKEW = timedelta(seconds=2)
"""The most by which the clocks of coordinator and site may differ."""


@dataclass(eq=False)
class ClockSkew(DomainError):
    """Clocks of coordinator and site differ by more than is safe; or it took that much longer
    until the site was asked."""

    reason = "CLOCK_SKEW"
    offset: timedelta

    def __str__(self) -> str:
        allowed, offset = MAX_SKEW.total_seconds(), self.offset.total_seconds()
        return f"clocks differ by {offset:+.3f} s, {allowed:g} s are allowed"


@dataclass(eq=False)
class HoldExpired(DomainError):
    reason = "HOLD_EXPIRED"
    part: str

    def __str__(self) -> str:
        return f"the hold of {self.part} ran out"


@dataclass(eq=False)
class PartOver(DomainError):
    reason = "PART_OVER"
    part: str
    state: str

    def __str__(self) -> str:
        return f"{self.part} is {self.state}: over"


@dataclass(eq=False)
class DecisionPending(DomainError):
    """Only the decision may move a prepared part."""

    reason = "DECISION_PENDING"
    part: str

    def __str__(self) -> str:
        return f"{self.part} is prepared: its decision is open"


@dataclass(eq=False)
class DecisionInvalid(DomainError):
    reason = "DECISION_INVALID"
    problem: str

    def __str__(self) -> str:
        return f"the decision is not valid: {self.problem}"


@dataclass(eq=False)
class EtagStale(DomainError):
    reason = "ETAG_STALE"
    name: str

    def __str__(self) -> str:
        return f"{self.name} has changed since it was read"


@dataclass(eq=False)
class ClusterOver(DomainError):
    """It is over, or its end was asked for: there is nothing left to change."""

    reason = "CLUSTER_OVER"
    name: str

    def __str__(self) -> str:
        return f"{self.name} is over, or its end was asked for"


@dataclass(eq=False)
class LeaseEnding(DomainError):
    """It would take more, so shortly before its end that hosts might not learn of it in time."""

    reason = "LEASE_ENDING"
    name: str
    end_time: str
    """Of the terms in force."""

    def __str__(self) -> str:
        return (
            f"{self.name} ends at {self.end_time}: in its last two minutes it gets no more, of "
            "time neither"
        )


@dataclass(eq=False)
class ActionIllegal(DomainError):
    """A workspace's state does not allow what was asked for; at its site nothing was done."""

    reason = "ACTION_ILLEGAL"
    action: str
    workspace: str
    state: str
    legal: str
    """What its state allows, with commas; empty: nothing."""

    def __str__(self) -> str:
        return (
            f"{self.action} is not possible: {self.workspace} is {self.state}, which allows "
            f"{self.legal or 'nothing'}"
        )


@dataclass(eq=False)
class AmendPending(DomainError):
    """Other terms are under way already: they are decided first, whichever way."""

    reason = "AMEND_PENDING"
    name: str

    def __str__(self) -> str:
        return (
            f"another change of {self.name} is under way; look again in a moment, at what it is "
            "then, and decide"
        )


@dataclass(eq=False)
class TermsStale(DomainError):
    """What was to be replaced are not the terms in force at the site."""

    reason = "TERMS_STALE"
    part: str
    replaces: int
    terms: int

    def __str__(self) -> str:
        return (
            f"{self.part} has terms number {self.terms}, and number {self.replaces} was to be "
            "replaced; bring it the decision that it has not heard of"
        )


@dataclass(eq=False)
class StaleWrite(DomainError):
    """A guarded write was lost to another writer: read again, decide again."""

    reason = "STALE_WRITE"
    key: str

    def __str__(self) -> str:
        return f"{self.key} was written by another"


@dataclass(eq=False)
class Aborted(DomainError):
    reason = "ABORTED"
    tx: str
    why: str

    def __str__(self) -> str:
        return f"co-allocation {self.tx} was aborted: {self.why}"


@dataclass(eq=False)
class NotLeading(DomainError):
    """This replica cannot write now. `leader` may be empty: nobody is known to lead."""

    reason = "NOT_LEADING"
    leader: str
    asked: str = ""
    """Where every replica was asked, and none leads: their addresses."""

    def __str__(self) -> str:
        if self.asked:
            return f"no replica leads; asked were {self.asked}"
        return f"this replica does not lead; {self.leader or 'nobody'} does"


@dataclass(eq=False)
class EtcdUnavailable(DomainError):
    """The store gave no answer. Of a write it leaves open whether it was done."""

    reason = "STORE_UNAVAILABLE"
    problem: str

    def __str__(self) -> str:
        return f"the store did not answer: {self.problem}"


@dataclass(eq=False)
class LedgerFull(EtcdUnavailable):
    """The store takes nothing that would make it grow, or, at its quota, nothing at all; `problem`
    says how full it is and what its operator does. What was asked for is not done."""

    reason = "LEDGER_FULL"

    def __str__(self) -> str:
        return f"the ledger has no room: {self.problem}"


@dataclass(eq=False)
class SiteUnreachable(DomainError):
    reason = "SITE_UNREACHABLE"
    site: str
    problem: str

    def __str__(self) -> str:
        return f"site {self.site} did not answer: {self.problem}"


@dataclass(eq=False)
class SolverFailed(DomainError):
    """Whether there is a plan is not known: to look for one took more memory than a solver may
    have, or it was ended by somebody else, as a machine without memory does. Nothing was done."""

    reason = "SOLVER_FAILED"
    problem: str

    def __str__(self) -> str:
        return f"it could not be planned: {self.problem}"


@dataclass(eq=False)
class IdentityUnknown(DomainError):
    reason = "IDENTITY_UNKNOWN"
    problem: str

    def __str__(self) -> str:
        return f"the caller is not known: {self.problem}"


@dataclass(eq=False)
class RoleDenied(DomainError):
    reason = "ROLE_DENIED"
    identity: str
    method: str
    problem: str

    def __str__(self) -> str:
        return f"{self.identity} may not call {self.method}: {self.problem}"


@dataclass(eq=False)
class WorkspaceNotRunning(DomainError):
    reason = "WORKSPACE_NOT_RUNNING"
    workspace: str
    state: str

    def __str__(self) -> str:
        return f"{self.workspace} does not run: it is {self.state}"


@dataclass(eq=False)
class ConnectionRefused(DomainError):
    reason = "CONNECTION_REFUSED"
    workspace: str
    port: int

    def __str__(self) -> str:
        return f"nothing listens on port {self.port} of {self.workspace}"


@dataclass(eq=False)
class ConsoleTaken(DomainError):
    """The console has one reader at a time; a later one takes it."""

    reason = "CONSOLE_TAKEN"
    workspace: str

    def __str__(self) -> str:
        return f"another reader took the console of {self.workspace}"


@dataclass(eq=False)
class DigestMismatch(DomainError):
    reason = "DIGEST_MISMATCH"
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"digest is {self.found}, {self.wanted} was announced"


@dataclass(eq=False)
class OffsetMismatch(DomainError):
    reason = "OFFSET_MISMATCH"
    offset: int
    expected: int

    def __str__(self) -> str:
        return f"offset {self.offset} does not fit, {self.expected} is expected"


@dataclass(eq=False)
class PutInProgress(DomainError):
    reason = "PUT_IN_PROGRESS"
    digest: str

    def __str__(self) -> str:
        return f"another upload of {self.digest} goes on"


@dataclass(eq=False)
class StoreFull(DomainError):
    """In bytes."""

    reason = "STORE_FULL"
    needed: int
    free: int

    def __str__(self) -> str:
        return f"{self.needed} bytes needed, {self.free} free"


class IllegalMove(Exception):
    """A step that the table of states does not have: a bug, INTERNAL on the wire."""
