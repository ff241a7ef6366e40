"""Between the API's messages and the domain."""

import hashlib
import re
from datetime import datetime

from google.protobuf.message import Message

from intertie.api.broker.v1 import part_pb2, parts_pb2
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.broker.domain.cluster import (
    ClusterState,
    ClusterView,
    Failure,
    PartView,
    WorkspaceView,
)
from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import Foreign, ForeignPlans
from intertie.broker.domain.price import terms_of
from intertie.broker.domain.records import RequestKey
from intertie.broker.domain.refunds import within_price
from intertie.broker.domain.terms import Amend
from intertie.broker.receipts_proto import endpoint_to_proto
from intertie.broker.usecases.act import ActOrder
from intertie.broker.usecases.create_cluster import Order
from intertie.broker.usecases.hold_part import HoldOrder
from intertie.broker.usecases.resolve_part import Terms
from intertie.broker.usecases.update_cluster import UpdateOrder
from intertie.common.actions import Action
from intertie.common.errors import FieldInvalid, NotFound
from intertie.common.guarantees import Guarantee, Measured
from intertie.common.names import ANY, ClusterName, Parent, PartName, check_label
from intertie.common.part_rules import validate_part
from intertie.common.rpc.action_proto import action_from_proto
from intertie.common.rpc.price_proto import price_fields
from intertie.common.rpc.refund_proto import refund_fields
from intertie.common.rpc.snapshot_proto import image_asked_for, snapshot_fields
from intertie.common.rpc.spec_proto import (
    Fields,
    cluster_spec_fields,
    cluster_spec_from_proto,
    duration_fields,
    duration_from_proto,
    part_spec_fields,
    part_spec_from_proto,
    shortfall_to_proto,
    timestamp_fields,
    timestamp_from_proto,
    window_fields,
)
from intertie.common.ways import Way

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def parent_here(text: str, site: str) -> Parent:
    """A parent that is this site's; `-` stands for it."""
    parent = Parent.parse(text)
    if parent.authority not in ("-", f"sites/{site}"):
        raise NotFound(text)
    return Parent(f"sites/{site}", parent.tenant)


def tenant_of(parent: Parent) -> str:
    """Empty for `-`, which stands for all."""
    return "" if parent.tenant == ANY else parent.tenant


def cluster_here(text: str, site: str, field: str = "name") -> ClusterName:
    """A cluster's name: this site's own, for which `-` stands too, or a meta-scheduler's, as
    Create tells it when the request was handed on."""
    name = ClusterName.parse(text, field)
    if name.authority.startswith("metascheds/"):
        return name
    if name.authority not in ("-", f"sites/{site}"):
        raise NotFound(text)
    return ClusterName(Parent(f"sites/{site}", name.tenant), name.cluster_id)


def part_here(text: str, site: str) -> PartName:
    name = PartName.parse(text)
    if name.site not in ("-", site):
        raise NotFound(text)
    return PartName(site, name.tenant, name.part_id)


def order_from_proto(
    request: clusters_pb2.CreateClusterRequest, *, site: str, caller: str
) -> Order:
    parent = parent_here(request.parent, site)
    if parent.tenant == ANY:
        raise FieldInvalid("parent", "must name one tenant")
    cluster_id = check_label(request.cluster_id, "cluster_id")
    if not request.validate_only or request.request_id:
        _check_request_id(request.request_id)
    return Order(
        name=ClusterName(parent, cluster_id),
        spec=cluster_spec_from_proto(request.spec),
        request=RequestKey(caller=caller, request_id=request.request_id, digest=_digest(request)),
        validate_only=request.validate_only,
        plan_token=request.plan_token,
    )


def plan_order_from_proto(
    request: clusters_pb2.PlanClusterRequest, *, site: str, caller: str
) -> Order:
    """As of a Create that takes nothing."""
    as_create = clusters_pb2.CreateClusterRequest(
        parent=request.parent,
        cluster_id=request.cluster_id,
        spec=request.spec,
        validate_only=True,
    )
    return order_from_proto(as_create, site=site, caller=caller)


def plans_to_proto(
    found: ClusterView | Foreign | ForeignPlans,
) -> clusters_pb2.PlanClusterResponse:
    if isinstance(found, ForeignPlans):
        return clusters_pb2.PlanClusterResponse.FromString(found.message)
    cluster = cluster_to_proto(found)
    only = clusters_pb2.PlanOption(
        merits=[clusters_pb2.PlanOption.EARLIEST],
        plan=cluster.plan,
        window=cluster.window,
        price=cluster.price,
    )
    return clusters_pb2.PlanClusterResponse(options=[only])


def update_from_proto(
    request: clusters_pb2.UpdateClusterRequest, *, site: str, caller: str
) -> UpdateOrder:
    name = cluster_here(request.cluster.name, site, "cluster.name")
    if not request.validate_only or request.request_id:
        _check_request_id(request.request_id)
    return UpdateOrder(
        name=name,
        spec=cluster_spec_from_proto(request.cluster.spec),
        paths=tuple(dict.fromkeys(request.update_mask.paths)),
        etag=request.etag,
        request=RequestKey(caller=caller, request_id=request.request_id, digest=_digest(request)),
        validate_only=request.validate_only,
    )


def act_from_proto(
    request: clusters_pb2.ActOnClusterRequest | parts_pb2.ActOnPartRequest, *, caller: str
) -> ActOrder:
    _check_request_id(request.request_id)
    action = action_from_proto(request.action)
    workspaces = tuple(dict.fromkeys(request.workspaces))
    host = request.host if isinstance(request, clusters_pb2.ActOnClusterRequest) else ""
    if host and action is not Action.MIGRATE:
        raise FieldInvalid("host", "is for MIGRATE alone")
    return ActOrder(
        action=action,
        host=host,
        workspaces=workspaces,
        image=image_asked_for(action, request.image, workspaces),
        request=RequestKey(caller=caller, request_id=request.request_id, digest=_digest(request)),
    )


def hold_from_proto(request: parts_pb2.HoldPartRequest, *, site: str, caller: str) -> HoldOrder:
    parent = parent_here(request.parent, site)
    if parent.tenant == ANY:
        raise FieldInvalid("parent", "must name one tenant")
    _check_request_id(request.request_id)
    body = parts_pb2.HoldPartRequest()
    body.CopyFrom(request)
    body.ClearField("coordinator_time")  # when it was sent, which differs with each retry
    return HoldOrder(
        name=PartName(site, parent.tenant, check_label(request.part_id, "part_id")),
        spec=part_spec_from_proto(request.spec),
        tx=request.tx,
        digest=request.digest,
        ttl=duration_from_proto(request.ttl, "ttl"),
        coordinator=request.coordinator,
        participants=tuple(request.participants),
        decide_by=timestamp_from_proto(request.decide_by, "decide_by"),
        coordinator_time=timestamp_from_proto(request.coordinator_time, "coordinator_time"),
        owner=request.owner,
        request=RequestKey(caller=caller, request_id=request.request_id, digest=_digest(body)),
        prepare=request.prepare,
        replaces=_replaces(request) if request.HasField("amend") else None,
    )


def terms_from_proto(request: parts_pb2.ResolvePartRequest) -> Terms | None:
    """Of a COMMIT for which no site was asked."""
    if not request.HasField("amend"):
        return None
    spec = part_spec_from_proto(request.spec)
    validate_part(spec)
    return Terms(replaces=_replaces(request), spec=spec)


def _replaces(request: parts_pb2.HoldPartRequest | parts_pb2.ResolvePartRequest) -> int:
    if request.amend.replaces < 0:
        raise FieldInvalid("amend.replaces", "must be the number of terms, 0 or more")
    return request.amend.replaces


def _check_request_id(text: str) -> None:
    if not _REQUEST_ID.fullmatch(text):
        raise FieldInvalid("request_id", "must be 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`")


def _digest(message: Message) -> str:
    octets = message.SerializeToString(deterministic=True)
    return hashlib.blake2b(octets, digest_size=16).hexdigest()


def cluster_to_proto(view: ClusterView | Foreign) -> cluster_pb2.Cluster:
    if isinstance(view, Foreign):
        return cluster_pb2.Cluster.FromString(view.message)
    return cluster_pb2.Cluster(**_cluster_fields(view))


def cluster_octets(view: ClusterView) -> bytes:
    """The same for the same cluster, wherever it is made."""
    return cluster_to_proto(view).SerializeToString(deterministic=True)


def _cluster_fields(view: ClusterView) -> Fields:
    record, ended, failure = view.record, view.record.end_requested_time, view.record.failure
    waits, queued = record.waits, _has_not_begun(view)
    return {
        "name": record.name,
        "uid": record.uid,
        "spec": cluster_spec_fields(record.spec),
        "state": record.state.name,
        "window": None if queued else window_fields(record.window),
        "plan": _plan_fields(view),
        "workspaces": [_workspace_fields(each, view) for each in view.workspaces],
        "create_time": timestamp_fields(record.create_time),
        "end_requested_time": timestamp_fields(ended) if ended is not None else None,
        "failure": _failure_fields(failure) if failure is not None else None,
        "etag": view.etag,
        "guarantees": [_guarantee_fields(each) for each in view.guarantees],
        "owner": record.owner,
        "terms": record.terms,
        "run_time": duration_fields(waits.ran) if waits is not None else None,
        "price": price_fields(terms_of(view.price, view.site)),
        "refund": refund_fields(within_price(view.refunds, view.price)),
    }


def _has_not_begun(view: ClusterView) -> bool:
    """It waits for its first stretch, and nobody knows when that is."""
    record = view.record
    waits = record.state in (ClusterState.PLANNED, ClusterState.QUEUED)
    return waits and record.waits is not None and record.spec.lease.deadline is None


def _is_aside(view: ClusterView) -> bool:
    return view.record.state is ClusterState.SUSPENDED


def _failure_fields(failure: Failure) -> Fields:
    return {
        "reason": failure.reason,
        "message": failure.message,
        "shortfalls": [shortfall_to_proto(each) for each in failure.shortfalls],
    }


def _plan_fields(view: ClusterView) -> Fields:
    record = view.record
    start: datetime | None = record.window.start
    if record.waits is not None and (_has_not_begun(view) or _is_aside(view)):
        start = record.waits.foreseen
    return {
        "start_time": timestamp_fields(start) if start is not None else None,
        "parts": [{"site": view.site, "counts": dict(record.counts), "cost": record.cost}],
        "cost": record.cost,
        "reasons": record.reasons,
        "shortfalls": [shortfall_to_proto(each) for each in record.shortfalls],
    }


def _workspace_fields(workspace: WorkspaceView, view: ClusterView) -> Fields:
    return {
        "name": f"{view.record.name}/workspaces/{workspace.label}",
        "group": workspace.group,
        "index": workspace.index,
        "site": view.site,
        "host": workspace.host,
        "state": workspace.state.name,
        "message": workspace.message,
        "ready": workspace.ready,
        "ready_time": _moment(workspace),
        "addresses": [
            {"network": nic.network, "address": nic.address, "mac": nic.mac}
            for nic in workspace.nics
        ],
        "staging_done_bytes": workspace.staging_done_bytes,
        "staging_total_bytes": workspace.staging_total_bytes,
        "image_digest": workspace.image_digest,
        "pending": workspace.pending,
        "restarts": workspace.restarts,
        "snapshot": snapshot_fields(workspace.snapshot),
        "migrating_to": workspace.migrating_to,
    }


def _moment(workspace: WorkspaceView) -> Fields | None:
    return timestamp_fields(workspace.ready_time) if workspace.ready_time else None


def _guarantee_fields(guarantee: Guarantee) -> Fields:
    return {
        "kind": guarantee.kind.name,
        "from": guarantee.source,
        "to": guarantee.target,
        "network": guarantee.network,
        "guarantee": guarantee.guarantee,
        "cap": guarantee.cap,
        "unit": guarantee.unit,
        "measured": [_measured_fields(each) for each in guarantee.measured],
    }


def _measured_fields(measured: Measured) -> Fields:
    since = measured.below_since
    return {
        "from": measured.source,
        "to": measured.target,
        "value": measured.value,
        "measured_time": timestamp_fields(measured.at),
        "backlogged": measured.backlogged,
        "below_since": timestamp_fields(since) if since else None,
    }


def part_to_proto(view: PartView) -> part_pb2.Part:
    return part_pb2.Part(**_part_fields(view))


def _part_fields(view: PartView) -> Fields:
    part = view.part
    expires, decide_by, ended = part.expire_time, part.decide_by, part.end_requested_time
    return {
        "name": part.name,
        "state": part.state.name,
        "spec": part_spec_fields(part.spec),
        "tx": part.tx,
        "digest": part.digest,
        "generation": part.generation,
        "expire_time": timestamp_fields(expires) if expires is not None else None,
        "coordinator": part.coordinator,
        "participants": part.participants,
        "decide_by": timestamp_fields(decide_by) if decide_by is not None else None,
        "end_requested_time": timestamp_fields(ended) if ended is not None else None,
        "end_reason": part.end_reason,
        "end_message": part.end_message,
        "workspaces": [
            {
                "name": f"{part.name}/workspaces/{each.label}",
                "host": each.host,
                "state": int(each.state),
                "message": each.message,
                "ready": each.ready,
                "ready_time": _moment(each),
                "staging_done_bytes": each.staging_done_bytes,
                "staging_total_bytes": each.staging_total_bytes,
                "restarts": each.restarts,
                "pending": each.pending,
                "snapshot": snapshot_fields(each.snapshot),
                "migrating_to": each.migrating_to,
            }
            for each in view.workspaces
        ],
        "endpoints": [endpoint_to_proto(each) for each in part.endpoints],
        "arrivals": [
            {
                "digest": each.digest,
                "done_bytes": each.done_bytes,
                "state": each.state.name,
                "message": each.message,
            }
            for each in part.arrivals
        ],
        "etag": view.etag,
        "owner": part.owner,
        "measured": [
            {
                "kind": int(each.kind),
                "network": each.network,
                "measured": _measured_fields(each),
            }
            for each in view.measured
        ],
        "ways": [_way_fields(each) for each in view.ways],
        "price": price_fields(terms_of(part.agreed, part.path.site)),
        "refund": refund_fields(within_price(part.refunds, part.agreed)),
        "terms": part.terms,
        "amendment": _amendment_fields(part.amend) if part.amend is not None else None,
        **_recalled_fields(part),
    }


def _way_fields(way: Way) -> Fields:
    took, since = way.round_trip, way.lost_since
    return {
        "site": way.site,
        "round_trip": duration_fields(took) if took is not None else None,
        "lost_since": timestamp_fields(since) if since is not None else None,
    }


def _recalled_fields(part: Part) -> Fields:
    recalled, keeping = part.recalled_end, part.keeping
    kept = keeping is not None and keeping.until is not None
    return {
        "recalled_end": timestamp_fields(recalled) if recalled is not None else None,
        "keep_until": timestamp_fields(part.ends) if kept else None,
        "restore_time": duration_fields(keeping.again) if kept and keeping else None,
    }


def _amendment_fields(amend: Amend) -> Fields:
    expires = amend.expire_time
    return {
        "tx": amend.tx,
        "replaces": amend.replaces,
        "spec": part_spec_fields(amend.spec),
        "state": amend.state.name,
        "expire_time": timestamp_fields(expires) if expires is not None else None,
        "decide_by": timestamp_fields(amend.decide_by),
    }
