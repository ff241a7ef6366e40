"""What users ask for: clusters, and other terms for those that stand."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from google.protobuf import field_mask_pb2

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.api.types.v1 import action_pb2, resources_pb2
from tests.sim.services import SITES
from tests.sim.virtual_loop import EPOCH

GRID_S = 10
"""Leases that are asked for ahead begin and end at multiples of this, so that many touch."""
LONG_S = (150, 240)
"""Leases that get other terms: with less than two minutes left one gets no more."""
DURATION, GROUPS = "spec.lease.duration", "spec.groups"


def spec_of(
    draw: random.Random, door: str, now_s: float, *, stays: bool = False
) -> cluster_pb2.ClusterSpec:
    """A cluster of one site or of all, now or ahead. `stays`: long enough to get other terms, and
    if ahead, so far that it may get them before it begins, when others give way for them."""
    if draw.random() < (0.75 if door == "meta" else 0.35):
        groups = [_group(draw, f"g-{site}", site) for site in SITES]
    else:
        groups = [_group(draw, "worker", "" if door == "meta" else door)]
    lease = cluster_pb2.LeaseTerms()
    if draw.random() < 0.5:
        ahead = int(now_s / GRID_S) + draw.randrange(1, 4) + (2 if stays else 0)
        lease.start_time.FromDatetime(EPOCH + timedelta(seconds=ahead * GRID_S))
        lease.duration.FromSeconds(draw.choice((GRID_S, GRID_S, 2 * GRID_S, 2 * GRID_S + 1)))
    else:
        lease.duration.FromSeconds(draw.randrange(10, 50))
    if stays:
        lease.duration.FromSeconds(draw.randrange(*LONG_S))
        for group in groups:
            group.allocation.vcpus = draw.choice((2, 2, 4))
    if draw.random() < 0.3:
        lease.max_delay.FromSeconds(30)
    # Without one, no VXLAN id is taken, which would be compared beside all else.
    lan = [cluster_pb2.Network(name="lan", subnet="10.1.0.0/24")]
    networks = lan if draw.random() < 0.6 else []
    return cluster_pb2.ClusterSpec(groups=groups, networks=networks, lease=lease)


def waiting_spec(draw: random.Random, site: str, now_s: float) -> cluster_pb2.ClusterSpec:
    """A lease that runs when there is room, or that is to be done by a deadline."""
    group = _group(draw, "worker", site)
    malleable = draw.random() < 0.4
    if malleable:
        group.count, group.min_count, group.max_count = 0, 1, draw.choice((3, 5))
        group.allocation.vcpus = 2
    group.allocation.memory_mib = draw.choice((256, 512))
    lasts = draw.randrange(30, 90) if malleable else draw.randrange(10, 60)
    lease = cluster_pb2.LeaseTerms(kind=cluster_pb2.LeaseTerms.BEST_EFFORT)
    lease.duration.FromSeconds(lasts)
    if draw.random() < 0.4:
        lease.kind = cluster_pb2.LeaseTerms.DEADLINE
        done_s = now_s + lasts + draw.choice((20, 60, 120))
        lease.deadline.FromDatetime(EPOCH + timedelta(seconds=done_s))
    else:
        if draw.random() < 0.3:
            lease.max_wait.FromSeconds(draw.randrange(10, 60))
        lease.cancellable = draw.random() < 0.2
    lan = [cluster_pb2.Network(name="lan", subnet="10.1.0.0/24")]
    networks = lan if draw.random() < 0.3 else []
    return cluster_pb2.ClusterSpec(groups=[group], networks=networks, lease=lease)


def spec_in_time(draw: random.Random, now_s: float) -> cluster_pb2.ClusterSpec:
    """A lease over all sites that is to be done by a deadline, mostly with time to give way."""
    groups = [_group(draw, f"g-{site}", site) for site in SITES]
    lasts = draw.randrange(25, 50)
    lease = cluster_pb2.LeaseTerms(kind=cluster_pb2.LeaseTerms.DEADLINE)
    lease.duration.FromSeconds(lasts)
    done_s = now_s + 2 * lasts + draw.choice((0, 75, 120))
    lease.deadline.FromDatetime(EPOCH + timedelta(seconds=done_s))
    return cluster_pb2.ClusterSpec(groups=groups, lease=lease)


def _group(draw: random.Random, name: str, site: str) -> cluster_pb2.Group:
    group = cluster_pb2.Group(
        name=name,
        count=draw.choice((1, 1, 2)),
        environment=resources_pb2.Environment(
            image="guest", readiness=resources_pb2.Environment.RUNNING
        ),
        allocation=resources_pb2.Allocation(
            vcpus=draw.choice((2, 4, 4, 6)), memory_mib=256, disk_mib=128,
            disk=resources_pb2.DiskTerm(guarantee_iops=100),
        ),
        placement=cluster_pb2.GroupPlacement(allow_sites=[site] if site else []),
    )  # fmt: skip
    if draw.random() < 0.7:
        group.allocation.availability.on_host_loss = resources_pb2.AvailabilityTerm.RESTART
    return group


def amended(
    draw: random.Random, spec: cluster_pb2.ClusterSpec
) -> tuple[cluster_pb2.ClusterSpec, tuple[str, ...]]:
    """The specification with other terms, and what of it an update is to name: longer or shorter,
    more or fewer workspaces, more or less for each, or several of these."""
    after = cluster_pb2.ClusterSpec()
    after.CopyFrom(spec)
    paths: set[str] = set()
    for _ in range(draw.choice((1, 1, 2, 3))):
        group = draw.choice(after.groups)
        match draw.randrange(7):
            case 0:
                after.lease.duration.seconds += draw.choice((10, 30, 60))
                paths.add(DURATION)
            case 1:
                after.lease.duration.seconds -= draw.choice((10, 30, 100))
                paths.add(DURATION)
            case 2:
                group.count = min(group.count + 1, 3)
                paths.add(GROUPS)
            case 3:
                group.count = max(group.count - 1, 1)
                paths.add(GROUPS)
            case 4:
                group.allocation.vcpus = draw.choice((2, 4))
                paths.add(GROUPS)
            case 5:  # what one gives up, another gets
                group.allocation.vcpus = 2
                after.groups[0 if group is after.groups[-1] else -1].allocation.vcpus += 2
                paths.add(GROUPS)
            case 6:
                group.allocation.memory_mib = draw.choice((256, 512, 1024))
                group.allocation.disk_mib += draw.choice((0, 0, 128))
                paths.add(GROUPS)
    return after, tuple(sorted(paths))


def actions_of(draw: random.Random) -> tuple[int, ...]:
    """What is done to a workspace, one after the other; at times back and forth at once."""
    kind = action_pb2
    return draw.choice(
        (
            (kind.SUSPEND, kind.RESUME),
            (kind.SUSPEND, kind.RESUME, kind.SUSPEND, kind.RESUME),
            (kind.STOP, kind.START),
            (kind.REBOOT,),
            (kind.REBOOT, kind.SUSPEND, kind.RESUME),
            (kind.PAUSE, kind.RESUME, kind.STOP),
            (kind.SUSPEND, kind.STOP, kind.START),
            (kind.SUSPEND, kind.REBOOT),
        )
    )


def act_of(
    name: str, action: int, workspaces: list[str], request_id: str
) -> clusters_pb2.ActOnClusterRequest:
    return clusters_pb2.ActOnClusterRequest(
        name=name,
        action=action,  # type: ignore[arg-type]
        workspaces=workspaces,
        request_id=request_id,
    )


def switching_of(request: clusters_pb2.ActOnClusterRequest) -> str:
    """What an action asks for, for the checker."""
    action = action_pb2.Action.Name(request.action)
    return json.dumps({"action": action, "workspaces": list(request.workspaces)})


def update_of(
    name: str, spec: cluster_pb2.ClusterSpec, paths: tuple[str, ...], request_id: str
) -> clusters_pb2.UpdateClusterRequest:
    return clusters_pb2.UpdateClusterRequest(
        cluster=cluster_pb2.Cluster(name=name, spec=spec),
        update_mask=field_mask_pb2.FieldMask(paths=paths),
        request_id=request_id,
    )


def terms_of(spec: cluster_pb2.ClusterSpec, paths: tuple[str, ...]) -> str:
    """What an update asks for, for the checker: how long, in seconds, and what each group is."""
    said: dict[str, Any] = {}
    if DURATION in paths:
        said["duration"] = spec.lease.duration.seconds
    if GROUPS in paths:
        said["groups"] = list(_groups(spec))
    return json.dumps(said)


def _groups(spec: cluster_pb2.ClusterSpec) -> Iterator[list[object]]:
    for each in spec.groups:
        has = each.allocation
        yield [each.name, each.count, has.vcpus, has.memory_mib, has.disk_mib]
