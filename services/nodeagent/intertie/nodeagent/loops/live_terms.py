"""Brings guests that run to the newest terms, and knows what of them is not in force.

Each guest is looked at when its terms are new, when it was started and every minute, not at every
pass: to look costs calls of its hypervisor.
"""

from dataclasses import dataclass

import structlog

from intertie.common.clock import Clock
from intertie.common.names import DeviceNames
from intertie.common.terms import Readiness
from intertie.nodeagent.domain.failures import Attempts, HostFailure, HypervisorSilent
from intertie.nodeagent.domain.guest_terms import (
    Change,
    GuestTerms,
    Lacking,
    LetGoOn,
    PlugMemory,
    lacking,
    terms_of,
)
from intertie.nodeagent.domain.ports import Hypervisor
from intertie.nodeagent.domain.wanted import WantedWorkspace
from intertie.nodeagent.loops.room import Room

log = structlog.get_logger(__name__)

LOOK_AGAIN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What came of the last look at one guest."""

    wanted: GuestTerms
    in_force: bool
    """As far as it is its host's to do."""
    pending: tuple[str, ...]
    look_again: float
    """A monotonic moment."""
    attempts: Attempts


class LiveTerms:
    """A change that fails is tried again 1, 2, 4 ... 60 s later; the guest goes on meanwhile, and
    what else is lacking is done all the same."""

    def __init__(self, clock: Clock, hypervisor: Hypervisor, room: Room, *, cgroups: bool) -> None:
        self._clock = clock
        self._hypervisor = hypervisor
        self._room = room
        self._cgroups = cgroups
        self._found: dict[str, _Found] = {}
        """By workspace uid, of guests that run."""
        self._still: dict[str, Attempts] = {}
        """Likewise, of those that were looked at because they stand still."""

    def forget(self, uid: str) -> None:
        """It does not run, or was started anew."""
        self._found.pop(uid, None)
        self._still.pop(uid, None)

    def pending(self, uid: str) -> str:
        """What of its terms a guest that runs does not have, in words; empty when it has all."""
        found = self._found.get(uid)
        return "; ".join(found.pending) if found else ""

    def in_force(self, workspace: WantedWorkspace) -> bool:
        """Its guest was seen to have all that it is to have, whether or not it makes use of it."""
        found = self._found.get(workspace.uid)
        wanted = self._wanted(workspace)
        return found is not None and found.wanted == wanted and found.in_force

    def due(self, workspace: WantedWorkspace) -> bool:
        """Whether it is time to look at a guest that runs."""
        found = self._found.get(workspace.uid)
        if found is None or found.wanted != self._wanted(workspace):
            return True
        return self._clock.monotonic() >= found.look_again

    async def follow(self, workspace: WantedWorkspace) -> None:
        """Looks at a guest that runs, and does what it lacks. HypervisorSilent: nothing is known of
        it any more, so it is looked at anew."""
        wanted, before = self._wanted(workspace), self._found.get(workspace.uid)
        try:
            missing, left = await self._bring(workspace, wanted)
        except HypervisorSilent:
            self.forget(workspace.uid)
            raise
        except HostFailure as error:
            missing, left = (f"what it has cannot be seen: {error}",), Lacking()
        except Exception as error:
            # A fault in one guest's way, whatever it is, does not keep others from theirs.
            log.error("guest.fault", workspace=workspace.uid, exc_info=True)
            missing, left = (repr(error),), Lacking()
        now, attempts = self._clock.monotonic(), Attempts()
        if unsettled := (*missing, *left.left_to_guest):
            if before is not None and before.wanted == wanted:
                attempts = before.attempts
            attempts = attempts.failed(HostFailure("; ".join(unsettled)), now=now)
        if missing:
            log.warning("guest.not_changed", workspace=workspace.uid, problem=attempts.problem)
        self._found[workspace.uid] = _Found(
            wanted=wanted,
            in_force=not missing and not left.waits,
            pending=(*missing, *left.waits, *left.left_to_guest),
            look_again=attempts.not_before if unsettled else now + LOOK_AGAIN_S,
            attempts=attempts,
        )

    async def let_go_on(self, workspace: WantedWorkspace) -> None:
        """One that stands still for a change whose agent did not live to do it, and nothing else:
        while nothing may begin on this host. Looks at it at growing pauses. HypervisorSilent."""
        uid, now = workspace.uid, self._clock.monotonic()
        tried = self._still.get(uid, Attempts())
        if not tried.may_try(now=now):
            return
        name = DeviceNames.domain(uid)
        try:
            if not (await self._hypervisor.running(name)).stands_still:
                self._still[uid] = Attempts(not_before=now + LOOK_AGAIN_S)
                return
            await self._hypervisor.change(name, LetGoOn())
        except HypervisorSilent:
            raise
        except HostFailure as error:
            self._still[uid] = tried.failed(error, now=now)
            log.warning("guest.not_changed", workspace=uid, problem=str(error))
        else:
            self.forget(uid)
            log.info("guest.changed", workspace=uid, has=str(LetGoOn()))

    async def _bring(
        self, workspace: WantedWorkspace, wanted: GuestTerms
    ) -> tuple[tuple[str, ...], Lacking]:
        """What was to be done and is not, in words, and what is lacking; both by what is seen in
        the end."""
        name = DeviceNames.domain(workspace.uid)
        refusals: dict[Change, str] = {}
        left = lacking(await self._hypervisor.running(name), wanted)
        if left.left_to_guest and workspace.environment.readiness is Readiness.GUEST_AGENT:
            await self._use_vcpus(name)
        if not left.changes:
            return (), left
        for change in left.changes:
            try:
                if isinstance(change, PlugMemory):
                    await self._room.take(workspace.uid, change.mib)
                await self._hypervisor.change(name, change)
            except HypervisorSilent:
                raise
            except HostFailure as error:
                refusals[change] = str(error)
            else:
                log.info("guest.changed", workspace=workspace.uid, has=str(change))
        left = lacking(await self._hypervisor.running(name), wanted)
        missing = tuple(
            f"not yet {change}: {refusals.get(change, 'it is not seen to have it')}"
            for change in left.changes
        )
        return missing, left

    async def _use_vcpus(self, name: str) -> None:
        """Where its agent does not, its owner may."""
        try:
            await self._hypervisor.use_vcpus(name)
        except HypervisorSilent:
            raise
        except HostFailure as error:
            log.info("guest.vcpus_unused", domain=name, problem=str(error))

    def _wanted(self, workspace: WantedWorkspace) -> GuestTerms:
        return terms_of(workspace.allocation, cgroups=self._cgroups)
