"""What the use cases need of the world; adapters and the tests' fakes provide it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ParamSpec, Protocol, TypeVar

from intertie.common.actions import Action
from intertie.common.intervals import Window
from intertie.common.names import PartName
from intertie.common.part_spec import PartSpec
from intertie.metasched.domain.cluster import ClusterRecord, PartSeen, SeenRecord
from intertie.metasched.domain.commit import (
    Decision,
    LeftPart,
    Receipt,
    ReceiptFacts,
    Settled,
    TxRecord,
)
from intertie.metasched.domain.problem import Offer
from intertie.metasched.domain.told_plan import ToldPlan

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldOrder:
    """What a site is asked to hold and prepare."""

    part: PartName
    spec: PartSpec
    tx: str
    digest: str
    coordinator: str
    participants: tuple[str, ...]
    decide_by: datetime
    now: datetime
    """The coordinator's clock."""
    owner: str
    replaces: int | None = None
    """See TxRecord."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a site answers once it may not let go alone."""

    receipt: Receipt
    seen: PartSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """That a site is told, and was not asked for."""

    replaces: int
    spec: PartSpec


class Sites(Protocol):
    """The brokers. Each method raises SiteUnreachable where there is no answer in time, which
    leaves open whether it was done; and the errors of intertie.api.broker.v1.Parts."""

    @property
    def names(self) -> tuple[str, ...]: ...

    async def offers(
        self,
        site: str,
        tenant: str,
        windows: tuple[Window, ...],
        images: tuple[str, ...],
        *,
        before_others: bool = False,
    ) -> tuple[Offer, ...]:
        """One for each window, in their order. `before_others`: what may be put aside is free, once
        it can be saved."""
        ...

    async def prepare(self, order: HoldOrder) -> Prepared:
        """Holds and prepares, in one transaction of the site."""
        ...

    async def act(
        self,
        part: PartName,
        action: Action,
        workspaces: Sequence[str],
        *,
        image: str,
        request_id: str,
    ) -> PartSeen:
        """On these, by label. `image`: what a SNAPSHOT is called. Idempotent by `request_id`,
        24 hours."""
        ...

    async def resolve(
        self, part: PartName, decision: Decision, terms: Terms | None = None
    ) -> PartSeen:
        """The part as it is once it has obeyed. `terms`: of a COMMIT for which none was asked."""
        ...

    async def release(self, part: PartName, reason: str) -> None: ...

    async def part(self, part: PartName) -> PartSeen: ...


class Solvers(Protocol):
    """Where problems are solved, so that who serves meanwhile is not held up."""

    async def run(self, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """What `work` gives or raises, which may take long: a function of a module, of values that
        it is given, which is all that it goes by. If the caller is cancelled, it ends at once.
        SolverFailed where it took more memory than it may, or was ended by somebody else."""
        ...


class ReceiptReader(Protocol):
    def read(self, receipt: Receipt, site: str) -> ReceiptFacts:
        """DecisionInvalid unless the broker of that very site has signed it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """At most one cluster, or one change of it, for a caller and request id."""

    digest: str
    """Of the request's body."""
    cluster: str
    cluster_uid: str
    create_time: datetime
    tx: str = ""
    """Of an amend; empty: of a Create, or of an Update that changed nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    record: ClusterRecord
    read_at: int
    """Revision that a write of it must compare."""


class Clusters(Protocol):
    """Every write raises StaleWrite when it lost to another, NotLeading when another replica leads,
    whether or not this one knows."""

    async def check_leading(self) -> None:
        """NotLeading, with who does, unless this replica leads as far as it knows."""
        ...

    async def get(self, name: str) -> Stored | None: ...

    async def listed(self, tenant: str = "") -> tuple[Stored, ...]:
        """By name; of all tenants, without one."""
        ...

    async def request(self, key: str) -> RequestRecord | None: ...

    async def requests(self) -> Mapping[str, RequestRecord]: ...

    async def save(self, record: ClusterRecord, *, read_at: int) -> int:
        """The revision that it was written at."""
        ...

    async def enqueue(self, record: ClusterRecord, *, read_at: int, request: RequestRecord) -> int:
        """Writes a cluster that waits, and the request that it was made by; StaleWrite where either
        was written by another. The revision."""
        ...

    async def delete(self, stored: Stored) -> None:
        """The record, and the idempotency record that was written with it."""
        ...

    async def forget_request(self, key: str) -> None: ...

    async def note(self, key: str, request: RequestRecord, stored: Stored) -> None:
        """Writes down that a request was answered by the cluster as it stands."""
        ...

    async def clear(self, stored: Stored) -> None:
        """The record without its amend, which was aborted; the request of that goes too."""
        ...


class Room(Protocol):
    def check(self) -> None:
        """LedgerFull where the store takes nothing that makes it grow."""
        ...


class Sightings(Protocol):
    """What sites say of clusters, written down for who follows changes; nothing is decided on it.
    Only the leader writes it: NotLeading when another replica leads."""

    async def listed(self) -> tuple[SeenRecord, ...]: ...

    async def save(self, name: str, seen: SeenRecord) -> None:
        """Goes with the cluster's record."""
        ...


class ToldPlans(Protocol):
    """Plans that were told to choose from. Every replica writes and reads them."""

    async def keep(self, tenant: str, plans: Mapping[str, ToldPlan], within: timedelta) -> None:
        """By their tokens, which nobody else has, for so long at least."""
        ...

    async def get(self, tenant: str, token: str) -> ToldPlan | None:
        """One that was kept for that tenant; its time may be over."""
        ...


class Register(Protocol):
    """Decisions, and the transactions that are not settled yet."""

    async def transaction(self, tx: str) -> TxRecord | None: ...

    async def transactions(self) -> tuple[TxRecord, ...]: ...

    async def decision(self, tx: str) -> Decision | None: ...

    async def begin(
        self,
        tx: TxRecord,
        cluster: ClusterRecord,
        *,
        read_at: int,
        request: RequestRecord | None,
    ) -> int:
        """Writes the transaction, its cluster and, the first time, the idempotency record
        together, or raises StaleWrite: the cluster's key or the request's was written by
        another. The revision it was written at."""
        ...

    async def commit(
        self,
        decision: Decision,
        cluster: ClusterRecord,
        *,
        read_at: int,
        left: Sequence[LeftPart] = (),
    ) -> None:
        """UNDECIDED to COMMIT, together with the cluster's record and what it leaves; StaleWrite
        when something else stands, or when the cluster was written by another; NotLeading when
        another replica leads."""
        ...

    async def begin_amend(
        self,
        tx: TxRecord,
        cluster: ClusterRecord,
        *,
        read_at: int,
        key: str = "",
        request: RequestRecord | None = None,
        decision: Decision | None = None,
    ) -> int:
        """Writes the transaction, its cluster and, where it is one, the request together, and,
        where no site is asked, the decision; StaleWrite where any was written by another."""
        ...

    def check_amend(
        self,
        tx: TxRecord,
        cluster: ClusterRecord,
        decision: Decision | None,
        *,
        spare_bytes: int = 0,
    ) -> None:
        """FieldInvalid where `begin_amend` of these, and so many octets more, would be too large
        to be written together."""
        ...

    async def abort(self, decision: Decision) -> Decision:
        """UNDECIDED to ABORT, from any replica; the decision that stands."""
        ...

    async def settle(self, tx: TxRecord, *, now: datetime) -> None:
        """Forgets a transaction that every site has answered for, also one that was decided and
        could not be begun. The decision stays, until it is forgotten too; StaleWrite when there is
        none."""
        ...

    async def left(self) -> tuple[LeftPart, ...]:
        """Parts that clusters have left, and that their sites may still have."""
        ...

    async def forget_left(self, part: str) -> None:
        """Nothing is left of it. NotLeading."""
        ...

    async def settled(self) -> tuple[Settled, ...]:
        """Transactions whose decisions are to be forgotten some day."""
        ...

    async def forget(self, settled: Settled) -> None:
        """The decision, and that it was settled, unless the transaction is on record again;
        NotLeading, StaleWrite."""
        ...


class Pause(Protocol):
    """Lets a test stop the coordinator at a named point: `after_prepare`, `after_decide`."""

    async def __call__(self, point: str) -> None: ...
