"""The memory that guests of this host have, looked at when one more is to begin."""

import asyncio
from collections.abc import Callable, Mapping

from intertie.common.names import DeviceNames
from intertie.nodeagent.domain.memory_room import MemoryRoom
from intertie.nodeagent.domain.ports import Hypervisor


class Room:
    """Looks at most once a pass: what was given back since is there for the next one."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        capacity_mib: Callable[[], int],
        moving: Callable[[], Mapping[str, int]],
    ) -> None:
        """`capacity_mib` is what the site was told of this host, `moving` has what those take
        whose memory is on its way, by uid."""
        self._hypervisor = hypervisor
        self._capacity_mib = capacity_mib
        self._moving = moving
        self._found: MemoryRoom | None = None
        self._looking = asyncio.Lock()

    def look_again(self) -> None:
        self._found = None

    async def take(self, uid: str, more_mib: int) -> None:
        """For a guest that begins or gets more. NoMemoryYet, HypervisorSilent."""
        async with self._looking:
            if self._found is None:
                # First those on their way: who has come to its end meanwhile is in both.
                taken = {DeviceNames.domain(each): mib for each, mib in self._moving().items()}
                taken |= await self._hypervisor.memory_mib()
                self._found = MemoryRoom(self._capacity_mib(), taken)
            self._found.take(DeviceNames.domain(uid), more_mib)
