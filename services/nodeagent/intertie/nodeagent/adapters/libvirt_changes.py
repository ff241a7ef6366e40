"""What libvirt is asked to read of a guest that runs, and to change.

Changes are made to the guest alone, not to its definition: that is written anew before each start.
"""

import libvirt

from intertie.nodeagent.domain.domain_xml import MIB, ROOT_DISK, terms_in
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.guest_terms import (
    CPU_PERIOD_US,
    CapDisk,
    Change,
    GrowDisk,
    GuestTerms,
    WeighCpu,
)

_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE


def read_terms(domain: libvirt.virDomain) -> GuestTerms:
    """HostFailure when it neither runs nor is paused, libvirtError when there is no telling."""
    if not domain.isActive():
        raise HostFailure("it does not run")
    capacity, _, _ = domain.blockInfo(ROOT_DISK)
    return terms_in(domain.XMLDesc(), disk_mib=capacity // MIB)


def take(domain: libvirt.virDomain, change: Change) -> None:
    """libvirtError where it is not done."""
    match change:
        case CapDisk():
            caps = {
                libvirt.VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_IOPS_SEC: change.iops,
                libvirt.VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_BYTES_SEC: change.mib_s * MIB,
            }
            domain.setBlockIoTune(ROOT_DISK, caps, _LIVE)
        case GrowDisk():
            in_bytes = libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
            domain.blockResize(ROOT_DISK, change.mib * MIB, in_bytes)
        case WeighCpu():
            weights = {
                libvirt.VIR_DOMAIN_SCHEDULER_CPU_SHARES: change.shares,
                libvirt.VIR_DOMAIN_SCHEDULER_VCPU_PERIOD: CPU_PERIOD_US,
                libvirt.VIR_DOMAIN_SCHEDULER_VCPU_QUOTA: change.quota_us,
            }
            domain.setSchedulerParametersFlags(weights, _LIVE)
