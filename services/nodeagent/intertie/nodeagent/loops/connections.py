"""The networks of a host's parts, and what each may send on them."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from intertie.common.names import DeviceNames
from intertie.common.values import replace
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.network_plan import Place, plan_networks
from intertie.nodeagent.domain.ports import Applied, HostNetwork, Traffic
from intertie.nodeagent.domain.record_rules import MAX_NICS
from intertie.nodeagent.domain.traffic_plan import (
    DevicePlan,
    IncastShare,
    NicPlan,
    plan_nics,
    plan_uplink,
    plan_wide,
)
from intertie.nodeagent.domain.wanted import WantedPart


class Connections:
    """Makes the networks of the parts that are given and takes those of others away.

    What `apply` and `apply_known` raise, HostFailure or OSError, leaves some of it undone.
    """

    def __init__(
        self,
        network: HostNetwork,
        traffic: Traffic,
        place: Place,
        *,
        uplink_mbit_s: int,
        wide_mbit_s: int,
    ) -> None:
        self._network = network
        self._traffic = traffic
        self._place = place
        self._uplink_mbit_s = uplink_mbit_s
        self._wide_mbit_s = wide_mbit_s
        self._active: list[WantedPart] | None = None
        """None before the first pass: what an earlier agent has made is left alone until then."""
        self._shares: Mapping[str, IncastShare] = {}
        self._shaping = asyncio.Lock()
        self.applied = Applied()
        """What came of the networks at the last pass."""
        self.unenforced = "nothing is shaped yet"
        """Why what guests may send is not held to at present; empty where it is."""

    async def apply(self, active: list[WantedPart], reserved: Mapping[str, int]) -> None:
        """Of a host that knows all its parts. `reserved`: see plan_wide."""
        with self._enforcing():
            self.applied = await self._network.apply(plan_networks(active, self._place))
            await self._shape(active, (), reserved)

    async def apply_known(
        self,
        active: list[WantedPart],
        known: Iterable[WantedPart],
        strangers: Iterable[str],
        reserved: Mapping[str, int],
    ) -> None:
        """Of a host that may have parts that it does not know.

        Of devices, only those of `known` are removed, and those of `strangers`, workspaces that
        may belong to a part that is not known, go on as they are. Their classes on the uplink
        cannot be kept: what they send is counted among what nothing was promised to.
        """
        removable = plan_networks(known, self._place).devices
        plan = replace(plan_networks(active, self._place), removable=removable)
        with self._enforcing():
            self.applied = await self._network.apply(plan)
            await self._shape(active, _left_alone(strangers), reserved)

    async def send_on(self, parts: list[WantedPart]) -> None:
        """What of those was given to other hosts, before the pass that does all the rest."""
        await self._network.send_on(plan_networks(parts, self._place))

    async def yield_to(self, shares: Mapping[str, IncastShare]) -> None:
        """Sends those hosts no more than they ask for, from now on and at every pass."""
        async with self._shaping:
            self._shares = dict(shares)
            if self._active is not None:
                await self._shape_uplink(self._active)

    @contextmanager
    def _enforcing(self) -> Iterator[None]:
        try:
            yield
        except (HostFailure, OSError) as error:
            self.unenforced = str(error)
            raise
        self.unenforced = ""

    async def _shape(
        self, active: list[WantedPart], kept: tuple[NicPlan, ...], reserved: Mapping[str, int]
    ) -> None:
        async with self._shaping:
            self._active = active
            await self._traffic.apply_nics((*plan_nics(active, self._uplink_mbit_s), *kept))
            await self._shape_uplink(active)
            if self._place.wide_address:
                plan = plan_wide(active, self._place, self._wide_mbit_s, reserved)
                await self._traffic.apply_device(plan)

    async def _shape_uplink(self, active: list[WantedPart]) -> None:
        plan = plan_uplink(active, self._place, self._uplink_mbit_s, self._shares)
        await self._traffic.apply_device(plan)


def _left_alone(strangers: Iterable[str]) -> tuple[NicPlan, ...]:
    """For a tap that is not there nothing is shaped, but its ifb is wanted: so it stays."""
    return tuple(
        NicPlan(tap="", cap_kbit=1, sent=DevicePlan(device=device, capacity_kbit=1, default_kbit=1))
        for uid in strangers
        for device in (DeviceNames.ifb(uid, number) for number in range(MAX_NICS))
    )
