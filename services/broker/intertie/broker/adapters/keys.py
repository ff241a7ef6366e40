"""Where in etcd, below the site's prefix, the broker keeps what."""

from functools import lru_cache

from intertie.broker.domain.account import Account
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.lost_hosts import HostRecord
from intertie.broker.domain.part import Part
from intertie.broker.domain.records import ForwardRecord, Record, RequestRecord, Tomb, Unchanged
from intertie.common.names import REMEMBERED, ClusterName, Parent, PartName, uid_of

GENERATION = "ledger/generation"
PARTS = "parts/"
CLUSTERS = "clusters/"
REQUESTS = "requests/"
FORWARDS = "forwards/"
WANTED = "wanted/"
SEEN = "seen/"
VNIS = "vni/"
ACCOUNTS = "accounts/"
HOSTS = "hosts/"
TOMBS = "tombs/"
LEDGER = ("ledger/", PARTS, CLUSTERS, REQUESTS, FORWARDS, WANTED, VNIS, ACCOUNTS, HOSTS, TOMBS)
"""What only the leader writes, and has in its book."""
ARCHIVE = "archive/"
"""Only the leader writes it too: what is over, as it was. No book has it; who asks for it reads
it."""
ARCHIVED_PARTS = "archive/parts/"
ARCHIVED_CLUSTERS = "archive/clusters/"
USAGE = "usage/"
"""Only the leader writes it too, but it grows for ever, so no book has it and no fail-over reads
it."""
USAGE_HEAD = "usage/head"
USAGE_ENTRIES = "usage/entries/"
USAGE_CHECKPOINTS = "usage/checkpoints/"
USAGE_CERTIFICATES = "usage/certificates/"


def part_key(name: PartName) -> str:
    return f"{PARTS}{name.tenant}/{name.part_id}"


def cluster_key(tenant: str, cluster_id: str) -> str:
    return f"{CLUSTERS}{tenant}/{cluster_id}"


def forward_key(tenant: str, cluster_id: str) -> str:
    return f"{FORWARDS}{tenant}/{cluster_id}"


def request_key(caller: str, request_id: str) -> str:
    return f"{REQUESTS}{_uid_of_caller(caller)}/{request_id}"


def vni_key(vni: int) -> str:
    return f"{VNIS}{vni}"


def vni_of(key: str) -> int:
    return int(key.removeprefix(VNIS))


def wanted_key(host: str, part_uid: str) -> str:
    return f"{WANTED}{host}/parts/{part_uid}"


def wanted_host_key(host: str) -> str:
    """What the host is told of itself."""
    return f"{WANTED}{host}/host"


def facts_key(host: str) -> str:
    return f"{SEEN}{host}/facts"


def host_key(host: str) -> str:
    return f"{HOSTS}{host}"


def account_key(name: PartName) -> str:
    return f"{ACCOUNTS}{name.tenant}/{name.part_id}"


def tomb_key(tomb: Tomb) -> str:
    if tomb.of_part:
        return f"{TOMBS}{part_key(PartName.parse(tomb.name))}"
    name = ClusterName.parse(tomb.name)
    return f"{TOMBS}{cluster_key(name.tenant, name.cluster_id)}"


def archived_part_key(name: PartName) -> str:
    return f"{ARCHIVE}{part_key(name)}"


def archived_clusters_key(tenant: str, cluster_id: str) -> str:
    """Before all that had the name, one after another: `archived_cluster_key`."""
    return f"{ARCHIVE}{cluster_key(tenant, cluster_id)}/"


def archived_cluster_key(name: ClusterName, uid: str) -> str:
    return f"{archived_clusters_key(name.tenant, name.cluster_id)}{uid}"


def archived_key(record: Part | ClusterRecord) -> str:
    if isinstance(record, Part):
        return archived_part_key(record.path)
    return archived_cluster_key(ClusterName.parse(record.name), record.uid)


def archived_keys_of(tomb: Tomb) -> tuple[str, ...]:
    """What goes with it."""
    part = (archived_part_key(PartName.parse(tomb.name)),) if tomb.of_part else ()
    if not tomb.cluster:
        return part
    return (*part, archived_cluster_key(ClusterName.parse(tomb.cluster), tomb.cluster_uid))


def entry_key(number: int) -> str:
    """In the order of numbers."""
    return f"{USAGE_ENTRIES}{number:012d}"


def checkpoint_key(number: int) -> str:
    return f"{USAGE_CHECKPOINTS}{number:012d}"


def usage_record_key(tenant: str, number: int) -> str:
    """Each tenant's together, in the order of numbers."""
    return f"{USAGE}records/{tenant}/{number:012d}"


def number_of(key: str) -> int:
    """Of an entry, a record of usage or a checkpoint."""
    return int(key.rpartition("/")[2])


def certificate_key(name: str) -> str:
    return f"{USAGE_CERTIFICATES}{name}"


def touched_by(key: str, site: str) -> str:
    """What a change of the key may concern: the name of a part or a cluster, a part's uid, or
    the key itself."""
    match key.split("/"):
        case ["parts", tenant, part_id]:
            return str(PartName(site, tenant, part_id))
        case ["archive", "parts", tenant, part_id]:
            return str(PartName(site, tenant, part_id))
        case ["archive", "clusters", tenant, cluster_id, _]:
            return str(ClusterName(Parent(f"sites/{site}", tenant), cluster_id))
        case ["clusters", tenant, cluster_id]:
            return str(ClusterName(Parent(f"sites/{site}", tenant), cluster_id))
        case ["seen" | "wanted", _, "parts", uid]:
            return uid
    return key


@lru_cache(maxsize=REMEMBERED)
def _uid_of_caller(caller: str) -> str:
    return uid_of(caller)


def of_record(record: Record) -> str:
    match record:
        case Part():
            return part_key(record.path)
        case ClusterRecord():
            name = ClusterName.parse(record.name)
            return cluster_key(name.tenant, name.cluster_id)
        case ForwardRecord():
            name = ClusterName.parse(record.name)
            return forward_key(name.tenant, name.cluster_id)
        case Account():
            return account_key(PartName.parse(record.name))
        case RequestRecord():
            return request_key(record.caller, record.request_id)
        case HostRecord():
            return host_key(record.name)
        case Tomb():
            return tomb_key(record)


def of_unchanged(record: Unchanged) -> str:
    if record.kind is Part:
        return part_key(PartName.parse(record.name))
    name = ClusterName.parse(record.name)
    key = cluster_key if record.kind is ClusterRecord else forward_key
    return key(name.tenant, name.cluster_id)


def host_and_part(key: str) -> tuple[str, str] | None:
    """Of `wanted/{host}/parts/{uid}` and `seen/{host}/parts/{uid}`; None of other keys."""
    match key.split("/"):
        case [_, host, "parts", uid]:
            return host, uid
    return None


def host_of_facts(key: str) -> str:
    """Of `seen/{host}/facts`; empty of other keys."""
    match key.split("/"):
        case ["seen", host, "facts"]:
            return host
    return ""


def host_of_measured(key: str) -> str:
    """Of `seen/{host}/measured`; empty of other keys."""
    match key.split("/"):
        case ["seen", host, "measured"]:
            return host
    return ""
