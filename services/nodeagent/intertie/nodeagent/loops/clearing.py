"""Away with what is not wanted on a host: guests, and then their files."""

import structlog

from intertie.common.names import DeviceNames
from intertie.common.points import reach
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.ports import Channels, Hypervisor, Storage
from intertie.nodeagent.domain.reconcile import ALIVE
from intertie.nodeagent.domain.wanted import WantedPart
from intertie.nodeagent.loops.driving import Driving
from intertie.nodeagent.loops.guest_steps import GuestSteps
from intertie.nodeagent.loops.knowledge import Knowledge
from intertie.nodeagent.loops.sight import Sight

log = structlog.get_logger(__name__)


class Clearing:
    def __init__(
        self,
        sight: Sight,
        knowledge: Knowledge,
        hypervisor: Hypervisor,
        storage: Storage,
        channels: Channels,
        steps: GuestSteps,
        driving: Driving,
    ) -> None:
        self._sight = sight
        self._knowledge = knowledge
        self._hypervisor = hypervisor
        self._storage = storage
        self._channels = channels
        self._steps = steps
        self._driving = driving

    async def put_off(self) -> None:
        """All guests, those included that nobody knows of here."""
        sight = self._sight
        running = [name for name, state in (sight.domains or {}).items() if state in ALIVE]
        for name in running:
            try:
                await self._hypervisor.stop(name)
                log.warning("guest.put_off", domain=name)
            except HostFailure as error:
                sight.problem(error)
        if running:
            await sight.look()

    def is_off(self) -> bool:
        """No guest runs, nor is one on its way."""
        sight = self._sight
        if sight.domains is None or sight.stuck or self._steps.moving():
            return False
        return ALIVE.isdisjoint(sight.domains.values())

    async def clear(self, held: list[WantedPart]) -> None:
        """Removes guests, then their files. While libvirt is silent, nothing: a guest may run."""
        domains = self._sight.domains
        if domains is None:
            return
        uids = {workspace.uid for part in held for workspace in part.workspaces}
        spared = uids | self.strangers()
        wanted = {DeviceNames.domain(uid) for uid in spared}
        left = dict(domains)
        for name in [name for name in domains if name not in wanted]:
            try:
                reach("agent.before_remove")
                await self._hypervisor.remove(name)
                reach("agent.removed")
                del left[name]
                log.info("guest.removed", domain=name)
            except HostFailure as error:
                self._sight.stuck = True
                self._sight.problem(error)
        self._sight.domains = left
        for uid in (self._storage.uids() | self._channels.listening()) - spared:
            self._channels.close(uid)
            self._driving.forget(uid)
            await self._steps.snapshots.drop(uid)
            if DeviceNames.domain(uid) not in left:
                try:
                    await self._storage.remove(uid)
                    reach("agent.files_removed")
                except OSError as error:
                    self._sight.stuck = True
                    self._sight.problem(HostFailure(f"files of {uid}: {error.strerror}"))

    def strangers(self) -> frozenset[str]:
        """Workspaces on this host that may belong to a part whose record cannot be read."""
        if self._knowledge.complete:
            return frozenset()
        known = {ws.uid for part in self._knowledge.parts.values() for ws in part.wanted.workspaces}
        guests = {name.removeprefix(DeviceNames.domain("")) for name in self._sight.domains or {}}
        return (self._storage.uids() | guests) - known
