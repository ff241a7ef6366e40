"""Disks for which no cap was asked get their site's."""

from intertie.broker.domain.fleet import Policy
from intertie.common.part_spec import PartSpec, PartWorkspace
from intertie.common.spec import Allocation, DiskTerm, capped_disk
from intertie.common.values import replace


def with_site_defaults(spec: PartSpec, policy: Policy) -> PartSpec:
    """Every disk has a cap: the site's default where none was given. IOPS and throughput are
    admitted by the sum of caps, since that is what makes each floor hold."""
    capped = tuple(_capped(each, policy) for each in spec.workspaces)
    same = all(one is other for one, other in zip(capped, spec.workspaces, strict=True))
    return spec if same else replace(spec, workspaces=capped)


def _capped(workspace: PartWorkspace, policy: Policy) -> PartWorkspace:
    allocation = with_site_caps(workspace.allocation, policy)
    if workspace.disks:
        disks = tuple(
            replace(each, disk=capped_by_site(each.disk, policy)) for each in workspace.disks
        )
        return replace(workspace, allocation=allocation, disks=disks)
    if allocation is workspace.allocation:
        return workspace
    return replace(workspace, allocation=allocation)


def capped_by_site(disk: DiskTerm, policy: Policy) -> DiskTerm:
    return capped_disk(disk, iops=policy.default_disk_cap_iops, mib_s=policy.default_disk_cap_mib_s)


def with_site_caps(allocation: Allocation, policy: Policy) -> Allocation:
    disk = capped_by_site(allocation.disk, policy)
    return allocation if disk is allocation.disk else replace(allocation, disk=disk)
