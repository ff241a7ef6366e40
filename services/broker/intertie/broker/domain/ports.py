"""What the use cases need of the outside."""

from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Protocol

from intertie.broker.domain.account import ChainEntry, Checkpoint, StoredRecord, UsageHead
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.decision import Decision, OpenedReceipt, Receipt, ReceiptBody
from intertie.broker.domain.fleet import HostFacts, SeenPart
from intertie.broker.domain.guarantees import MeasuredPart
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part
from intertie.broker.domain.planning import Image
from intertie.broker.domain.records import Change, ForwardRecord, RequestRecord
from intertie.broker.domain.sending import Arrival, ImageSource
from intertie.broker.domain.snapshots import Grant
from intertie.broker.domain.usage import Usage
from intertie.common.actions import Action
from intertie.common.errors import DomainError
from intertie.common.names import PartName
from intertie.common.part_spec import Transfer
from intertie.common.spec import ClusterSpec
from intertie.common.transfer import TransferGrant
from intertie.common.values import Struct, field


class AtHost(Struct, frozen=True, kw_only=True):
    host: str
    agent_address: str
    workspace: str
    """As its agent knows it: `{part}/workspaces/{workspace}`."""


class AtMetasched(Struct, frozen=True, kw_only=True):
    cluster_id: str
    tenant: str


class WholeCluster(Struct, frozen=True, kw_only=True):
    """A cluster of this site, its part, and what agents say of that, at one moment."""

    cluster: Versioned[ClusterRecord]
    part: Versioned[Part] | None
    seen: Mapping[str, SeenPart]
    """By host."""
    measured: Mapping[str, MeasuredPart] = field(default_factory=dict)
    """What they measure of it, by host."""


class Ledger(Protocol):
    """The site's record of everything. Reads are linearizable, but for `view` and `request` at a
    replica that leads or believes so: what is written by them is compared.

    Everything raises EtcdUnavailable when the store does not answer; after `commit` that leaves
    open whether it was done.
    """

    async def view(self) -> LedgerView:
        """At the replica that leads, with what it has decided on and not yet written counted."""
        ...

    async def whole_cluster(self, tenant: str, cluster_id: str) -> WholeCluster | None: ...

    async def part(self, name: PartName) -> Versioned[Part] | None: ...

    async def parts(self, tenant: str = "") -> tuple[Versioned[Part], ...]:
        """Of one tenant, or all, in the order of their names."""
        ...

    async def cluster(self, tenant: str, cluster_id: str) -> Versioned[ClusterRecord] | None: ...

    async def clusters(self, tenant: str = "") -> tuple[Versioned[ClusterRecord], ...]: ...

    async def request(self, caller: str, request_id: str) -> Versioned[RequestRecord] | None: ...

    async def requests(self) -> tuple[Versioned[RequestRecord], ...]: ...

    async def forward(self, tenant: str, cluster_id: str) -> Versioned[ForwardRecord] | None: ...

    async def forwards(self, tenant: str = "") -> tuple[Versioned[ForwardRecord], ...]: ...

    async def seen(self) -> Mapping[str, Mapping[str, SeenPart]]:
        """What agents say: by part uid, then by host."""
        ...

    async def measured(self) -> Mapping[str, Mapping[str, MeasuredPart]]:
        """What agents measure: by part uid, then by host. It informs owners and decides nothing."""
        ...

    async def facts(self) -> Mapping[str, HostFacts]:
        """What agents say of their hosts, by name."""
        ...

    def submit(self, change: Change) -> Awaitable[int]:
        """Puts a change that was decided on `view` in line. A view from here on counts what it
        takes; written it is when the answer comes, see `commit`."""
        ...

    async def commit(self, change: Change) -> int:
        """The revision at which it was written. StaleWrite when something is not as it was
        read, NotLeading when this replica does not lead."""
        ...

    async def check_leading(self) -> int:
        """NotLeading when this replica does not lead, as far as it knows. Else the term in which
        it does: another each time that the lead was won."""
        ...

    async def leader(self) -> str: ...


class Room(Protocol):
    def check(self) -> None:
        """LedgerFull where the store takes nothing that makes it grow."""
        ...


class UsageRecords(Protocol):
    """The site's chain of usage, which is written by `Ledger.commit`. Reads are linearizable;
    EtcdUnavailable when the store does not answer."""

    async def head(self) -> Versioned[UsageHead] | None:
        """Where it ends; None: it has not begun."""
        ...

    async def records(self, tenant: str, *, after: int, most: int) -> tuple[StoredRecord, ...]:
        """The first ones of a tenant, or of all, whose numbers are above `after`, in order."""
        ...

    async def entries(self, *, after: int, most: int) -> tuple[ChainEntry, ...]: ...

    async def bodies(self, entries: Iterable[ChainEntry]) -> Mapping[int, bytes]:
        """The records of entries that follow on one another, by number; those that are gone are
        missing."""
        ...

    async def checkpoints(self, first: int, last: int) -> tuple[Checkpoint, ...]:
        """Of the entries from `first` to `last`, both included."""
        ...


class Scribe(Protocol):
    """Writes records of usage, and signs for this site."""

    def write(self, usage: Usage) -> bytes:
        """The record's octets; twice are not the same."""
        ...

    def sign(self, head: UsageHead, *, now: datetime) -> Checkpoint: ...


class Hints(Protocol):
    def passes(self, *, period_s: float) -> AsyncIterator[frozenset[str] | None]:
        """Yields None at once and at the latest each period: anything may have changed. Between,
        what may have: names of parts and clusters, uids of parts."""
        ...


class NotCertain(Exception):
    """That nothing of a host runs; why. `wait` says when to ask again, where that is known."""

    def __init__(self, why: str, wait: timedelta | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class Fence(Protocol):
    """Makes certain that nothing of a host runs: a site's own plug-in."""

    async def fence(self, facts: HostFacts, silent_for: timedelta) -> str:
        """What makes it certain that neither the agent that wrote these facts nor any guest that
        it started runs, in words; NotCertain where it is not. May be asked again and again, also
        of a host that is off already, or back."""
        ...


class Images(Protocol):
    async def find(self, tenant: str, image: str) -> Image | None:
        """By name or digest; None unless it is ready at this site. SiteUnreachable when the
        image store does not answer."""
        ...


class Notary(Protocol):
    """Signs for this site, and checks what others signed."""

    def sign(self, body: ReceiptBody) -> Receipt: ...

    def open(self, receipt: Receipt) -> OpenedReceipt:
        """DecisionInvalid unless signature and certificate are good."""
        ...


class Grants(Protocol):
    def sign(self, grant: Grant) -> bytes:
        """As a host carries it to the image store of this site."""
        ...

    def sign_transfer(self, grant: TransferGrant) -> bytes:
        """As another site's image store carries it to the one of this site: a serialized
        imagestore.v1.TransferGrant."""
        ...


class Bringing(Protocol):
    async def bring(self, tenant: str, transfer: Transfer, source: ImageSource) -> Arrival:
        """Has the image store of this site get it, or go on with that, and how far it is. What the
        store refuses is FAILED; SiteUnreachable when it does not answer."""
        ...


class Registers(Protocol):
    async def resolve(self, coordinator: str, tx: str, reason: str) -> Decision:
        """Races to ABORT at the coordinator's register; the decision that stands.
        SiteUnreachable when it does not answer or is not known."""
        ...


class Caller(Struct, frozen=True, kw_only=True):
    """On whose behalf something is done."""

    spiffe: str
    tenant: str
    """Empty: of no tenant."""


class Foreign(Struct, frozen=True, kw_only=True):
    """A cluster as its meta-scheduler tells of it; only the wire looks into it."""

    name: str
    message: bytes
    over: bool
    etag: str


class ForeignPlans(Struct, frozen=True, kw_only=True):
    """Plans to choose from as a meta-scheduler tells them."""

    message: bytes


class RefusedSoFar(Exception):
    """A request was refused by one replica, and another that was asked has said nothing: it may
    have taken it, or do so yet."""

    def __init__(self, error: DomainError) -> None:
        super().__init__(str(error))
        self.error = error


class Metasched(Protocol):
    """The meta-scheduler that requests are handed on to. Its refusals are raised as they are, of
    `create` as RefusedSoFar where they may not be the last word; SiteUnreachable when it does not
    answer, which leaves open what it did."""

    name: str

    async def create(
        self,
        caller: Caller,
        tenant: str,
        cluster_id: str,
        spec: ClusterSpec,
        *,
        request_id: str,
        validate_only: bool,
        plan_token: str,
    ) -> Foreign: ...

    async def plan(
        self, caller: Caller, tenant: str, cluster_id: str, spec: ClusterSpec
    ) -> ForeignPlans: ...

    async def get(self, caller: Caller, tenant: str, cluster_id: str) -> Foreign: ...

    async def delete(self, caller: Caller, tenant: str, cluster_id: str, etag: str) -> Foreign: ...

    async def act(
        self,
        caller: Caller,
        tenant: str,
        cluster_id: str,
        action: Action,
        workspaces: tuple[str, ...],
        *,
        image: str,
        etag: str,
        request_id: str,
    ) -> Foreign: ...

    async def update(
        self,
        caller: Caller,
        tenant: str,
        cluster_id: str,
        spec: ClusterSpec,
        paths: tuple[str, ...],
        *,
        etag: str,
        request_id: str,
        validate_only: bool,
    ) -> Foreign: ...

    def watch(self, caller: Caller, tenant: str, cluster_id: str) -> AsyncIterator[Foreign]: ...
