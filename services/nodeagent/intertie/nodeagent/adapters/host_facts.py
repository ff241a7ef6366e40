"""What this host has, as the broker is told it."""

import asyncio

from intertie.nodeagent.adapters import capabilities
from intertie.nodeagent.adapters.workspace_storage import WorkspaceStorage
from intertie.nodeagent.domain.ports import Offered
from intertie.nodeagent.domain.report import Capacity, Growth, HostFacts
from intertie.nodeagent.domain.traffic_plan import promisable_mbit_s
from intertie.nodeagent.settings import Settings


class FactsReader:
    """The lesser of what is found and what the operator allows, amount by amount."""

    def __init__(
        self,
        settings: Settings,
        storage: WorkspaceStorage,
        *,
        offered: Offered,
        missing: tuple[str, ...],
        growth: Growth,
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._offered = offered
        self._missing = missing
        self._growth = growth
        self._cpu = capabilities.cpu()

    def uplink_mbit_s(self) -> int:
        """Of the wire, before anything is taken off for headers."""
        underlay = self._settings.underlay
        found = capabilities.link_mbit_s(underlay.interface)
        return min(found or underlay.capacity_mbit_s, underlay.capacity_mbit_s)

    def memory_mib(self) -> int:
        return min(capabilities.memory_mib(), self._settings.offer.memory_mib)

    async def read(self) -> HostFacts:
        return await asyncio.to_thread(self._read)

    def _read(self) -> HostFacts:
        settings, offer = self._settings, self._settings.offer
        gateway = settings.gateway
        mtu = capabilities.mtu(settings.underlay.interface)
        uplink = promisable_mbit_s(self.uplink_mbit_s(), mtu)
        allowed = Capacity(
            vcpus=offer.vcpus,
            memory_mib=offer.memory_mib,
            disk_mib=offer.disk_mib,
            iops=offer.pool_iops,
            throughput_mib_s=offer.pool_throughput_mib_s,
            uplink_mbit_s=uplink,
        )
        found = Capacity(
            vcpus=capabilities.vcpus(),
            memory_mib=capabilities.memory_mib(),
            disk_mib=self._storage.free_mib(),
            iops=offer.pool_iops,
            throughput_mib_s=offer.pool_throughput_mib_s,
            uplink_mbit_s=uplink,
        )
        addresses = settings.listen.addresses
        return HostFacts(
            host=settings.host,
            capacity=found.within(allowed),
            address=settings.underlay.address,
            agent_address=next((each for each in addresses if not each.startswith("unix:")), ""),
            wide_address=gateway.address if gateway else "",
            wide_port=gateway.port if gateway else 0,
            hypervisors=self._offered.kinds,
            architecture=self._offered.architecture,
            cpu=self._cpu,
            missing=self._missing,
            growth=self._growth,
            mtu=mtu,
            wide_mtu=capabilities.mtu(gateway.interface) if gateway else 0,
        )
