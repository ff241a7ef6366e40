"""Clusters on the wire."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from google.protobuf.timestamp_pb2 import Timestamp

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.api.types.v1 import measured_pb2, price_pb2, refund_pb2, snapshot_pb2
from intertie.common.errors import FieldInvalid, NotFound
from intertie.common.guarantees import Guarantee, GuaranteeKind, Measured
from intertie.common.names import ANY, ClusterName, Parent, check_label
from intertie.common.rpc.action_proto import action_from_proto
from intertie.common.rpc.identity import Identity
from intertie.common.rpc.price_proto import price_fields
from intertie.common.rpc.refund_proto import refund_fields
from intertie.common.rpc.shortfalls_proto import shortfall_to_proto
from intertie.common.rpc.snapshot_proto import image_asked_for, snapshot_fields
from intertie.common.rpc.spec_proto import cluster_spec_from_proto, cluster_spec_to_proto
from intertie.common.rpc.terms_proto import (
    duration_to_proto,
    timestamp_to_proto,
    window_to_proto,
)
from intertie.common.ways import Way, between, known_ends
from intertie.metasched.domain.alternatives import Merit
from intertie.metasched.domain.cluster import (
    WAITING,
    ClusterRecord,
    ClusterState,
    ClusterView,
    WorkspaceState,
    WorkspaceView,
)
from intertie.metasched.domain.data import Arrival, TransferPlan
from intertie.metasched.domain.plan import LinkPlan, Plan
from intertie.metasched.usecases.act_on_cluster import ActOrder
from intertie.metasched.usecases.order import Order
from intertie.metasched.usecases.plan_cluster import Option
from intertie.metasched.usecases.update_cluster import UpdateOrder

_STATES: Mapping[ClusterState, cluster_pb2.Cluster.State.ValueType] = {
    state: cluster_pb2.Cluster.State.Value(state.name) for state in ClusterState
}
_WORKSPACE_STATES: Mapping[WorkspaceState, cluster_pb2.Workspace.State.ValueType] = {
    state: cluster_pb2.Workspace.State.Value(state.name) for state in WorkspaceState
}
_KINDS: Mapping[GuaranteeKind, cluster_pb2.Guarantee.Kind.ValueType] = {
    kind: cluster_pb2.Guarantee.Kind.Value(kind.name) for kind in GuaranteeKind
}
_MERITS: Mapping[Merit, clusters_pb2.PlanOption.Merit.ValueType] = {
    merit: clusters_pb2.PlanOption.Merit.Value(merit.name) for merit in Merit
}
_REQUEST_ID = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def parent_of(text: str, authority: str) -> Parent:
    """The parent under this service; `-` stands for it, every other authority is not here."""
    parent = Parent.parse(text, "parent").at(authority)
    if parent.authority != authority:
        raise FieldInvalid("parent", f"{text!r} is not served here; use {authority}/tenants/…")
    return parent


def name_of(text: str, authority: str, field: str = "name") -> str:
    """The full name of a cluster of this service; those of others do not exist here."""
    name = ClusterName.parse(text, field).at(authority)
    if name.authority != authority:
        raise NotFound(text)
    return str(name)


def act_order_of(
    request: clusters_pb2.ActOnClusterRequest, identity: Identity, authority: str
) -> ActOrder:
    _check_request_id(request.request_id)
    action = action_from_proto(request.action)
    workspaces = tuple(dict.fromkeys(request.workspaces))
    return ActOrder(
        name=name_of(request.name, authority),
        action=action,
        workspaces=workspaces,
        image=image_asked_for(action, request.image, workspaces),
        etag=request.etag,
        caller=identity.caller,
        request_id=request.request_id,
    )


def _check_request_id(text: str, *, may_lack: bool = False) -> None:
    if not may_lack and not text:
        raise FieldInvalid("request_id", "must not be empty; give a UUID, the same at a retry")
    if len(text) > 64 or not set(text) <= _REQUEST_ID:
        raise FieldInvalid("request_id", "must be 1 to 64 of A-Z, a-z, 0-9 and ._-")


def order_of(
    request: clusters_pb2.CreateClusterRequest, identity: Identity, authority: str
) -> Order:
    name = _new_name(request.parent, request.cluster_id, authority)
    _check_request_id(request.request_id, may_lack=request.validate_only)
    return Order(
        name=name,
        spec=cluster_spec_from_proto(request.spec),
        caller=identity.caller,
        request_id=request.request_id,
        plan_token=request.plan_token,
    )


def plan_order_of(
    request: clusters_pb2.PlanClusterRequest, identity: Identity, authority: str
) -> Order:
    return Order(
        name=_new_name(request.parent, request.cluster_id, authority),
        spec=cluster_spec_from_proto(request.spec),
        caller=identity.caller,
    )


def _new_name(parent: str, cluster_id: str, authority: str) -> ClusterName:
    under = parent_of(parent, authority)
    if under.tenant == ANY:
        raise FieldInvalid("parent", "must name a tenant")
    return ClusterName(under, check_label(cluster_id, "cluster_id"))


def update_order_of(
    request: clusters_pb2.UpdateClusterRequest, identity: Identity, authority: str
) -> UpdateOrder:
    _check_request_id(request.request_id, may_lack=request.validate_only)
    return UpdateOrder(
        name=name_of(request.cluster.name, authority, "cluster.name"),
        spec=cluster_spec_from_proto(request.cluster.spec),
        paths=tuple(dict.fromkeys(request.update_mask.paths)),
        etag=request.etag,
        caller=identity.caller,
        request_id=request.request_id,
    )


def cluster_to_proto(view: ClusterView) -> cluster_pb2.Cluster:
    record, price, refund = view.record, price_fields(view.price), refund_fields(view.refunds)
    message = cluster_pb2.Cluster(
        name=record.name,
        uid=record.uid,
        spec=cluster_spec_to_proto(record.spec),
        state=_STATES[record.state],
        window=None if _has_no_site(record) else window_to_proto(record.window),
        plan=plan_to_proto(record.plan, _start_of(record), view.arrivals, view.ways),
        workspaces=[_workspace_to_proto(record.name, each) for each in view.workspaces],
        create_time=timestamp_to_proto(record.create_time),
        etag=view.etag,
        end_requested_time=_maybe(record.end_requested_time),
        guarantees=[_guarantee_to_proto(each) for each in view.guarantees],
        owner=record.owner,
        price=price_pb2.Price(**price) if price else None,
        refund=refund_pb2.Refund(**refund) if refund else None,
        terms=record.terms,
        run_time=duration_to_proto(record.waits.ran) if record.waits is not None else None,
    )
    if record.amend is not None:
        message.amendment.CopyFrom(
            cluster_pb2.Amendment(
                tx=record.amend.tx,
                spec=cluster_spec_to_proto(record.amend.spec),
                begin_time=timestamp_to_proto(record.amend.begin_time),
            )
        )
    if record.failure is not None:
        message.failure.CopyFrom(
            cluster_pb2.Failure(
                reason=record.failure.reason,
                message=record.failure.message,
                shortfalls=[shortfall_to_proto(each) for each in record.failure.shortfalls],
            )
        )
    return message


def cluster_octets(view: ClusterView) -> bytes:
    """The same for the same cluster, wherever it is made."""
    return cluster_to_proto(view).SerializeToString(deterministic=True)


def _has_no_site(record: ClusterRecord) -> bool:
    """It waits for room, and nobody knows when that is."""
    return record.waits is not None and not record.plan.sites


def option_to_proto(option: Option) -> clusters_pb2.PlanOption:
    price = price_fields(option.plan.expected())
    return clusters_pb2.PlanOption(
        merits=[_MERITS[each] for each in option.merits],
        plan=plan_to_proto(option.plan, option.plan.window.start),
        window=window_to_proto(option.plan.window),
        price=price_pb2.Price(**price) if price else None,
        gives_way=[shortfall_to_proto(each) for each in option.gives_way],
        token=option.token,
        accept_before=timestamp_to_proto(option.accept_before),
    )


def _start_of(record: ClusterRecord) -> datetime | None:
    if record.waits is not None and (_has_no_site(record) or record.state in WAITING):
        return record.waits.foreseen
    return record.plan.window.start


def plan_to_proto(
    plan: Plan,
    start: datetime | None,
    arrivals: Mapping[tuple[str, str], Arrival] = MappingProxyType({}),
    ways: Mapping[str, tuple[Way, ...]] = MappingProxyType({}),
) -> cluster_pb2.Plan:
    links: dict[tuple[str, str], cluster_pb2.PlannedLink] = {}
    for link in plan.links:
        ends = link.from_site, link.to_site
        if ends not in links:
            links[ends] = _link_to_proto(link, between(ways, *ends))
        links[ends].mbit_s += link.mbit_s
    for ends in known_ends(ways):
        if ends not in links:
            links[ends] = _way_to_proto(*ends, between(ways, *ends))
    return cluster_pb2.Plan(
        start_time=_maybe(start),
        parts=[
            cluster_pb2.PlannedPart(site=each.site, counts=dict(each.counts), cost=each.cost)
            for each in plan.sites
        ],
        links=list(links.values()),
        cost=plan.cost,
        reasons=plan.reasons,
        shortfalls=[shortfall_to_proto(each) for each in plan.shortfalls],
        optimal=plan.optimal,
        transfers=[
            _transfer_to_proto(each, arrivals.get((each.item, each.to_site)))
            for each in plan.transfers
        ],
    )


def _link_to_proto(link: LinkPlan, way: Way) -> cluster_pb2.PlannedLink:
    message = _way_to_proto(link.from_site, link.to_site, way)
    message.latency.CopyFrom(duration_to_proto(link.latency))
    return message


def _way_to_proto(site: str, peer: str, way: Way) -> cluster_pb2.PlannedLink:
    took = way.round_trip
    return cluster_pb2.PlannedLink(
        from_site=site,
        to_site=peer,
        round_trip=duration_to_proto(took) if took is not None else None,
        lost_since=_maybe(way.lost_since),
    )


def _transfer_to_proto(
    transfer: TransferPlan, arrival: Arrival | None
) -> cluster_pb2.PlannedTransfer:
    return cluster_pb2.PlannedTransfer(
        digest=transfer.item,
        size_bytes=transfer.size_bytes,
        from_site=transfer.from_site,
        to_site=transfer.to_site,
        mbit_s=transfer.mbit_s,
        begin_time=timestamp_to_proto(transfer.begin),
        end_time=timestamp_to_proto(transfer.end),
        done_bytes=arrival.done_bytes if arrival else 0,
        done=arrival.done if arrival else False,
        message=arrival.message if arrival else "",
    )


def _workspace_to_proto(cluster: str, view: WorkspaceView) -> cluster_pb2.Workspace:
    seen, snapshot = view.seen, snapshot_fields(view.seen.snapshot)
    return cluster_pb2.Workspace(
        name=f"{cluster}/workspaces/{view.label}",
        group=view.group,
        index=view.index,
        site=view.site,
        host=seen.host,
        state=_WORKSPACE_STATES[seen.state],
        message=seen.message,
        ready=seen.ready,
        ready_time=_maybe(seen.ready_time),
        addresses=[
            cluster_pb2.Address(network=nic.network, address=nic.address, mac=nic.mac)
            for nic in view.nics
        ],
        staging_done_bytes=seen.staging_done_bytes,
        staging_total_bytes=seen.staging_total_bytes,
        image_digest=view.image_digest,
        pending=seen.pending,
        restarts=seen.restarts,
        snapshot=snapshot_pb2.Snapshot(**snapshot) if snapshot else None,
        migrating_to=seen.migrating_to,
    )


def _guarantee_to_proto(value: Guarantee) -> cluster_pb2.Guarantee:
    message = cluster_pb2.Guarantee(
        kind=_KINDS[value.kind],
        to=value.target,
        network=value.network,
        guarantee=value.guarantee,
        cap=value.cap,
        unit=value.unit,
        measured=[_measured_to_proto(each) for each in value.measured],
    )
    setattr(message, "from", value.source)  # a keyword of Python, a field of the proto
    return message


def _measured_to_proto(value: Measured) -> measured_pb2.Measured:
    message = measured_pb2.Measured(
        to=value.target,
        value=value.value,
        measured_time=timestamp_to_proto(value.at),
        backlogged=value.backlogged,
        below_since=_maybe(value.below_since),
    )
    setattr(message, "from", value.source)  # a keyword of Python, a field of the proto
    return message


def _maybe(moment: datetime | None) -> Timestamp | None:
    return timestamp_to_proto(moment) if moment is not None else None
