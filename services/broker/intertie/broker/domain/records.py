"""What is written down beside parts and clusters, and changes: what is written together."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from intertie.broker.domain.account import Account, UsageBatch
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.lost_hosts import HostRecord
from intertie.broker.domain.part import Part
from intertie.broker.domain.wanted import WantedPart
from intertie.common.errors import RequestIdReuse
from intertie.common.names import uid_of
from intertie.common.values import Struct, field

REQUESTS_KEPT = timedelta(hours=24)


class RequestKey(Struct, frozen=True, kw_only=True):
    """One request: who asks, by which id, and the digest of all else that the request says."""

    caller: str
    request_id: str
    digest: str


class RequestRecord(Struct, frozen=True, kw_only=True):
    """That a request was answered, and with what: kept for 24 hours."""

    caller: str
    request_id: str
    digest: str
    answer: str
    """Name of the cluster, the part or, for what was handed on, the cluster's local name."""
    uid: str
    create_time: datetime
    expire_time: datetime

    @classmethod
    def of(cls, key: RequestKey, *, answer: str, uid: str, now: datetime) -> "RequestRecord":
        return cls(
            caller=key.caller,
            request_id=key.request_id,
            digest=key.digest,
            answer=answer,
            uid=uid,
            create_time=now,
            expire_time=now + REQUESTS_KEPT,
        )

    def answers(self, key: RequestKey, *, now: datetime) -> bool:
        """The same request again gets the first answer; the same id with another body is
        refused; after 24 hours the id is free."""
        if now >= self.expire_time:
            return False
        if self.digest != key.digest:
            raise RequestIdReuse(key.request_id)
        return True


class ForwardRecord(Struct, frozen=True, kw_only=True):
    """That a request was handed on to a meta-scheduler, written before it is."""

    name: str
    """The cluster's local name, an alias from here on."""
    metasched: str
    request_id: str
    """Derived from the caller's, the same for every retry."""
    caller: str
    create_time: datetime


def forwarded_request_id(key: RequestKey) -> str:
    return f"fwd-{uid_of(key.caller, key.request_id)}"


def forward_uid(key: RequestKey) -> str:
    """What stands for the cluster in the record of a request that was handed on."""
    return uid_of("forward", forwarded_request_id(key))


class Tomb(Struct, frozen=True, kw_only=True):
    """That a part is over, and kept in the archive; or a cluster that had none at its end."""

    name: str
    """The part's, or the cluster's."""
    state: str
    until: datetime
    """Then it goes, with what is in the archive."""
    cluster: str = ""
    """Name of the cluster that is in the archive with it."""
    cluster_uid: str = ""

    @property
    def of_part(self) -> bool:
        return self.name != self.cluster


Record = Part | ClusterRecord | RequestRecord | ForwardRecord | Account | HostRecord | Tomb


class Write(Struct, frozen=True, kw_only=True):
    """Put the record, if it was last written at `read_at`; 0: if there is none."""

    record: Record
    read_at: int = 0


class Erase(Struct, frozen=True, kw_only=True):
    record: Record
    read_at: int


class Unchanged(Struct, frozen=True, kw_only=True):
    """A record that a decision rests on and does not write: last written at `read_at`; 0: there
    is none of that name."""

    kind: type[Part] | type[ClusterRecord] | type[ForwardRecord]
    name: str
    read_at: int = 0


class Change(Struct, frozen=True, kw_only=True):
    """All of it, or nothing; the leader's only."""

    writes: tuple[Write, ...] = ()
    erasures: tuple[Erase, ...] = ()
    archived: tuple[Part | ClusterRecord, ...] = ()
    """Of what is erased, what is kept aside until its tombstone, which is written here, goes."""
    unchanged: tuple[Unchanged, ...] = ()
    """Read, not written."""
    admitted_on: int | None = None
    """Set where capacity is taken: the generation of the ledger that this was decided on. It must
    still be that, and grows by one."""
    wanted: Mapping[str, WantedPart] = field(default_factory=dict)
    """By host."""
    unwanted: tuple[tuple[str, str], ...] = ()
    """(host, part uid)"""
    silent: tuple[tuple[str, int], ...] = ()
    """(host, revision): it has written no facts since."""
    vnis: tuple[tuple[int, str], ...] = ()
    """(VXLAN id, part uid): nobody's until now."""
    vnis_left: tuple[int, ...] = ()
    """Given back by parts that go on."""
    usage: UsageBatch | None = None
    """What is added to the site's chain of usage, whose end must still be where it was."""

    def parts(self) -> tuple[Part, ...]:
        """That it writes."""
        return tuple(each.record for each in self.writes if isinstance(each.record, Part))

    @property
    def may_free(self) -> bool:
        """An admission with which parts that are on record get other terms: what they take less is
        counted, and may be given to others, before it is written."""
        return self.admitted_on is not None and any(
            each.read_at and isinstance(each.record, Part) for each in self.writes
        )

    def vnis_given_back(self) -> tuple[int, ...]:
        """A part that is over has no ids."""
        over = (each.vni for part in self.parts() if part.over for each in part.network_ids)
        return (*self.vnis_left, *over)
