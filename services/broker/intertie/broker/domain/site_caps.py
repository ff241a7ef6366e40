"""Disks for which no cap was asked get their site's."""

from intertie.broker.domain.fleet import Policy
from intertie.common.part_spec import PartSpec
from intertie.common.spec import Allocation, capped_disk
from intertie.common.values import replace


def with_site_defaults(spec: PartSpec, policy: Policy) -> PartSpec:
    """Every disk has a cap: the site's default where none was given. IOPS and throughput are
    admitted by the sum of caps, since that is what makes each floor hold."""
    capped = tuple(
        each if each.allocation is allocation else replace(each, allocation=allocation)
        for each in spec.workspaces
        for allocation in (with_site_caps(each.allocation, policy),)
    )
    same = all(one is other for one, other in zip(capped, spec.workspaces, strict=True))
    return spec if same else replace(spec, workspaces=capped)


def with_site_caps(allocation: Allocation, policy: Policy) -> Allocation:
    disk = capped_disk(
        allocation.disk, iops=policy.default_disk_cap_iops, mib_s=policy.default_disk_cap_mib_s
    )
    return allocation if disk is allocation.disk else replace(allocation, disk=disk)
