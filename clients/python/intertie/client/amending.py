"""A cluster's document against the cluster that stands: what an update is to be asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from intertie.api.cluster.v1.cluster_pb2 import (
    Cluster,
    ClusterSpec,
    Dataset,
    LeaseTerms,
    Volume,
)
from intertie.client.document import Document
from intertie.client.problems import DocumentInvalid, Problem

END_TIME, DURATION, GROUPS = "spec.lease.end_time", "spec.lease.duration", "spec.groups"

D = TypeVar("D", Dataset, Volume)

_REMEDY = "Write it as it was, or make a new cluster."


def changes_of(document: Document, standing: Cluster) -> tuple[ClusterSpec, list[str]]:
    """What to send, and the paths of its mask. The service judges groups, since it knows what their
    defaults are; what no update can change is DocumentInvalid here, as the mask would leave it out
    without a word.

    SSH keys of a group that has none in the document are those that it has in the cluster.
    """
    if problems := tuple(_unchangeable(document, standing)):
        raise DocumentInvalid(problems)
    spec = ClusterSpec()
    spec.CopyFrom(document.spec)
    known = {each.name: each.environment.contextualization for each in standing.spec.groups}
    for group in spec.groups:
        context = group.environment.contextualization
        if group.name in known and not context.ssh_authorized_keys:
            context.ssh_authorized_keys.extend(known[group.name].ssh_authorized_keys)
    return spec, [GROUPS, *_end(spec.lease, standing.spec.lease)]


def _end(asked: LeaseTerms, standing: LeaseTerms) -> Iterator[str]:
    """A document that does not say when it ends leaves that as it is."""
    if asked.HasField("end_time") and asked.end_time != standing.end_time:
        yield END_TIME
    if asked.HasField("duration") and asked.duration != standing.duration:
        yield DURATION


def _unchangeable(document: Document, standing: Cluster) -> Iterator[Problem]:
    asked, had = document.spec, standing.spec
    lease = asked.lease
    starts = [had.lease.start_time, standing.window.start_time]
    differing = {
        "networks": list(asked.networks) != list(had.networks),
        "datasets": bool(asked.datasets) and _capped(asked.datasets) != _capped(had.datasets),
        "volumes": bool(asked.volumes) and _capped(asked.volumes) != _capped(had.volumes),
        "placement": asked.placement != had.placement,
        "lease.start_time": lease.HasField("start_time") and lease.start_time not in starts,
        "lease.max_delay": lease.HasField("max_delay") and lease.max_delay != had.lease.max_delay,
    }
    for path, differs in differing.items():
        if differs:
            yield Problem(
                path=path,
                line=document.line_of(path),
                text="is not what the cluster has, and may not be changed",
                remedy=_REMEDY,
            )


def _capped(disks: Iterable[D]) -> list[D]:
    """With the caps that the service gives them: their guarantees, where they say none."""
    found = []
    for each in disks:
        copy = type(each)()
        copy.CopyFrom(each)
        copy.disk.cap_iops = each.disk.cap_iops or each.disk.guarantee_iops
        copy.disk.cap_mib_s = each.disk.cap_mib_s or each.disk.guarantee_mib_s
        found.append(copy)
    return found
