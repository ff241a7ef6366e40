"""Records of usage in the fields of APEL's cloud record (version 0.4), one for each workspace.

A cloud record says of one machine all that it had until now: so what a site has written down day by
day is added up. Of what a site has counted in part it is the least that was used. What it has not
counted at all is left out, but for CpuDuration, without which a record is of no use: there it is
what was reserved, all vCPUs for all of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from intertie.api.broker.v1.usage_pb2 import UsageRecord, UsageWorkspaces
from intertie.api.types.v1.used_pb2 import Used
from intertie.common.names import uid_of, workspace_label

HEADER = "APEL-cloud-message: v0.4"
END_OF_RECORD = "%%"
CLOUD_TYPE = "Intertie"
MEGABYTE = 1_000_000


@dataclass(slots=True)
class _Lease:
    """Of one part, all its records."""

    first: UsageRecord
    last: UsageRecord
    had: timedelta = timedelta()
    groups: dict[str, UsageWorkspaces] = field(default_factory=dict)
    """By workspace."""
    used: dict[str, Used] = field(default_factory=dict)
    """What is known of it, by workspace."""


def message(records: Iterable[UsageRecord], *, since: datetime | None = None) -> str:
    """Of the workspaces that had something after `since`, or of all. `records` are all of a lease
    from its beginning on, in the order of their numbers."""
    lines = [HEADER]
    for lease in _leases(records):
        if since is None or lease.last.period.end_time.ToDatetime(tzinfo=UTC) > since:
            for workspace, has in lease.groups.items():
                lines += [f"{key}: {value}" for key, value in _fields(lease, workspace, has)]
                lines.append(END_OF_RECORD)
    return "\n".join(lines) + "\n"


def _leases(records: Iterable[UsageRecord]) -> Iterator[_Lease]:
    found: dict[tuple[str, str], _Lease] = {}
    for each in records:
        lease = found.setdefault((each.part, each.cluster_uid), _Lease(each, each))
        lease.last = each
        lease.had += each.period.end_time.ToDatetime() - each.period.start_time.ToDatetime()
        for counted in each.used:
            if counted.used.HasField("read_time"):
                _add(lease.used.setdefault(counted.workspace, Used()), counted.used)
        for alike in each.workspaces:
            for index in alike.indices:
                lease.groups[workspace_label(alike.group, index)] = alike
    return iter(found.values())


def _add(total: Used, more: Used) -> None:
    for name in ("cpu_time", "suspended_time"):
        span = getattr(total, name)
        span.FromNanoseconds(span.ToNanoseconds() + getattr(more, name).ToNanoseconds())
    for name in ("sent_bytes", "received_bytes"):
        setattr(total, name, getattr(total, name) + getattr(more, name))


def _fields(lease: _Lease, workspace: str, has: UsageWorkspaces) -> Iterator[tuple[str, object]]:
    last, seconds = lease.last, round(lease.had.total_seconds())
    used = lease.used.get(workspace)
    yield "VMUUID", uid_of(last.part, last.cluster_uid, workspace)
    yield "SiteName", last.site
    yield "CloudComputeService", last.site
    yield "MachineName", f"{last.cluster}/workspaces/{workspace}"
    yield "LocalUserId", last.owner
    yield "LocalGroupId", last.tenant
    yield "GlobalUserName", last.owner
    yield "FQAN", last.tenant
    yield "Status", "completed" if last.final else "started"
    yield "StartTime", lease.first.period.start_time.seconds
    yield "EndTime", last.period.end_time.seconds if last.final else 0
    yield "SuspendDuration", used.suspended_time.seconds if used else 0
    yield "WallDuration", seconds
    yield "CpuDuration", used.cpu_time.seconds if used else seconds * has.each.vcpus
    yield "CpuCount", has.each.vcpus
    if used:
        yield "NetworkInbound", round(used.received_bytes / MEGABYTE)
        yield "NetworkOutbound", round(used.sent_bytes / MEGABYTE)
    yield "Memory", has.each.memory_mib
    yield "Disk", -(-has.each.disk_mib // 1024)
    yield "ImageId", has.image
    yield "CloudType", CLOUD_TYPE
