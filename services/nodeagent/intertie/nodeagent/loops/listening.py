"""Finds out which guests are ready, and which should have been by now."""

import contextlib
from collections.abc import Iterable, Mapping

from intertie.common.clock import Clock
from intertie.common.names import DeviceNames
from intertie.common.terms import Readiness
from intertie.common.values import replace
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.ports import Channels, Hypervisor
from intertie.nodeagent.domain.reconcile import DomainState, lateness
from intertie.nodeagent.domain.wanted import WantedWorkspace
from intertie.nodeagent.loops.knowledge import Knowledge


class Listening:
    """What guests said is kept in the state file. Since when they are waited for is not: an agent
    that was started again waits from then on."""

    def __init__(
        self, clock: Clock, knowledge: Knowledge, hypervisor: Hypervisor, channels: Channels
    ) -> None:
        self._clock = clock
        self._knowledge = knowledge
        self._hypervisor = hypervisor
        self._channels = channels
        self._waiting_since: dict[str, float] = {}
        """By uid of a workspace that runs and is not ready: a monotonic moment."""

    async def sweep(
        self,
        wanted: Iterable[tuple[str, WantedWorkspace]],
        domains: Mapping[str, DomainState],
    ) -> None:
        """Listens to those that are not ready yet. `wanted` with the uids of their parts."""
        heard = self._channels.heard()
        waiting = dict(self._waiting_since)
        self._waiting_since = {}
        for part_uid, workspace in wanted:
            uid = workspace.uid
            note = self._knowledge.parts[part_uid].note(uid)
            state = domains.get(DeviceNames.domain(uid))
            if state is not DomainState.RUNNING:
                self._channels.close(uid)
                itself = state is DomainState.POWERED_OFF and not note.paused
                off = note.powered_off or itself
                was_ready = note.ready_time or note.was_ready
                off = off and not note.starting
                self._knowledge.remember(
                    part_uid,
                    uid,
                    replace(note, powered_off=off, ready_time=None, was_ready=was_ready),
                )
                continue
            if note.starting or (note.was_ready and not note.ready_time):
                note = replace(note, starting=False, ready_time=note.was_ready)
                self._knowledge.remember(part_uid, uid, note)
            if note.ready_time is not None:
                self._channels.close(uid)
                continue
            moment = heard.get(uid) or (self._clock.now() if await self._ready(workspace) else None)
            if moment is None:
                self._waiting_since[uid] = waiting.get(uid, self._clock.monotonic())
            else:
                self._channels.close(uid)
                # As it is by now: what its memory took may have been noted meanwhile.
                note = self._knowledge.parts[part_uid].note(uid)
                self._knowledge.remember(
                    part_uid, uid, replace(note, powered_off=False, ready_time=moment)
                )

    def started(self, uid: str) -> None:
        """It has all its time again."""
        self._waiting_since.pop(uid, None)

    def late(self, workspace: WantedWorkspace) -> str:
        """Why a guest that runs has failed all the same; empty while it has time."""
        since = self._waiting_since.get(workspace.uid)
        waited_s = 0.0 if since is None else self._clock.monotonic() - since
        return lateness(workspace.environment, waited_s)

    async def _ready(self, workspace: WantedWorkspace) -> bool:
        """As seen from outside; a guest that is to tell by itself is listened to from here on."""
        match workspace.environment.readiness:
            case Readiness.RUNNING:
                return True
            case Readiness.GUEST_AGENT:
                with contextlib.suppress(HostFailure):
                    return await self._hypervisor.agent_answers(DeviceNames.domain(workspace.uid))
            case Readiness.CHANNEL:
                self._channels.listen(workspace.uid, workspace.nonce)
        return False
