"""Each guest towards what is wanted of it: its steps, and then its newest terms."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime

import structlog

from intertie.common.clock import Clock
from intertie.common.names import DeviceNames
from intertie.nodeagent.domain.failures import (
    Attempts,
    HostFailure,
    HypervisorSilent,
    as_failure,
)
from intertie.nodeagent.domain.memory_room import NoMemoryYet
from intertie.nodeagent.domain.reconcile import (
    ALIVE,
    DomainState,
    KnownPart,
    Note,
    Observed,
    Phase,
    Step,
)
from intertie.nodeagent.domain.wanted import WantedWorkspace
from intertie.nodeagent.loops.guest_looks import GuestLooks
from intertie.nodeagent.loops.guest_steps import GuestSteps
from intertie.nodeagent.loops.knowledge import Knowledge
from intertie.nodeagent.loops.live_terms import LiveTerms
from intertie.nodeagent.loops.sending_guests import SendingGuests
from intertie.nodeagent.loops.sight import Sight

log = structlog.get_logger(__name__)

_WITHOUT_A_NOTE = frozenset(
    {Step.STOP, Step.RESUME, Step.PRESS, Step.SAVE, Step.KEEP, Step.GIVE, Step.TAKE_IN}
)
"""What is done even while nothing may be started, or written down."""
_AT_ONCE = 4
"""Guests that are made or started at the same time."""


class Driving:
    """What fails is tried again later, guest by guest."""

    def __init__(
        self,
        clock: Clock,
        sight: Sight,
        knowledge: Knowledge,
        looks: GuestLooks,
        steps: GuestSteps,
        terms: LiveTerms,
        sending: SendingGuests,
    ) -> None:
        self._clock = clock
        self._sight = sight
        self._knowledge = knowledge
        self._looks = looks
        self._steps = steps
        self._terms = terms
        self._sending = sending
        self._attempts: dict[str, Attempts] = {}
        self.waits: dict[str, str] = {}
        """By workspace uid, what kept it from beginning in this pass that is no failure."""
        self.moving: frozenset[str] = frozenset()
        """Whose memory was on its way when guests were last looked at."""
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    def begin(self, changed: Iterable[WantedWorkspace]) -> None:
        """A pass. What failed of those whose record has changed is tried again at once."""
        self.waits = {}
        for workspace in changed:
            self._attempts.pop(workspace.uid, None)

    def attempts(self, uid: str) -> Attempts:
        return self._attempts.get(uid, Attempts())

    def forget(self, uid: str) -> None:
        """Of one that is wanted no more."""
        self._attempts.pop(uid, None)
        self._terms.forget(uid)
        self._looks.forget(uid)
        self._steps.forget(uid)
        self._sending.forget(uid)

    async def drive(
        self, part: KnownPart, workspace: WantedWorkspace, phase: Phase, now: datetime
    ) -> None:
        """Takes what steps there are for one guest, and else brings it to its newest terms."""
        sight = self._sight
        if sight.domains is None:
            return
        if workspace.uid in self.moving | self._steps.moving():
            alive = sight.domains.get(DeviceNames.domain(workspace.uid)) in ALIVE
            stops = alive and self._looks.isolated(workspace, now)
            await self._sending.follow(workspace, sight.problem, stops=stops)
            return
        seen = self._looks.observe(workspace, sight.domains)
        self._sending.tell(workspace, given=seen.given)
        if seen.domain in ALIVE and workspace.uid not in part.notes:
            # The file with the notes was lost: what was asked of it was done for all that is known,
            # and what is there of a copy may be of one that froze it.
            frozen = self._steps.snapshots.may_have_frozen(workspace)
            known = Note(boots=workspace.switched.boots, frozen=frozen)
            self._knowledge.remember(part.wanted.uid, workspace.uid, known)
            part = self._knowledge.parts[part.wanted.uid]
        wanted = self._looks.next_steps(part, workspace, phase, seen, now)
        crowded = DomainState.STALLED in sight.domains.values()
        await self._steps.snapshots.follow(
            part, workspace, phase, seen, at_rest=not wanted, crowded=crowded
        )
        if not self._knowledge.may_start and not _WITHOUT_A_NOTE & {*wanted}:
            if not wanted and phase is Phase.RUN:
                await self._let_go_on(workspace, seen)
            return
        if seen.domain not in ALIVE:
            self._looks.forget(workspace.uid)
        if not wanted:
            self._attempts.pop(workspace.uid, None)
            self._steps.forget(workspace.uid)
        attempts = self.attempts(workspace.uid)
        if not wanted or not attempts.may_try(now=self._clock.monotonic()):
            if phase is not Phase.KEEP:
                await self._put_in_force(workspace, seen)
            return
        if Step.START in wanted:
            self._terms.forget(workspace.uid)
        async with self._at_once:
            try:
                for step in wanted:
                    if step is Step.PRESS:
                        self._looks.pressed(workspace.uid)
                    if sight.domains is not None:
                        await self._steps.take(step, part.wanted, workspace)
            except HypervisorSilent as error:
                sight.blind(error)
            except NoMemoryYet as error:
                self.waits[workspace.uid] = str(error)
            except Exception as error:
                # A fault in one guest's way, whatever it is, does not keep others from theirs.
                if not isinstance(error, (HostFailure, OSError)):
                    log.error("guest.fault", workspace=workspace.uid, exc_info=True)
                self._failed(workspace, attempts, as_failure(error))

    async def _put_in_force(self, workspace: WantedWorkspace, seen: Observed) -> None:
        """Its newest terms, while it runs; what fails of them is no failure of the guest."""
        if seen.domain not in (DomainState.RUNNING, DomainState.PAUSED):
            self._terms.forget(workspace.uid)
            return
        if self._terms.due(workspace):
            await self._of_terms(self._terms.follow, workspace)

    async def _let_go_on(self, workspace: WantedWorkspace, seen: Observed) -> None:
        """What is done of its terms even while nothing may be started: it runs already."""
        if seen.domain is not DomainState.PAUSED or self._knowledge.must_be_off:
            return
        await self._of_terms(self._terms.let_go_on, workspace)

    async def _of_terms(
        self, work: Callable[[WantedWorkspace], Awaitable[None]], workspace: WantedWorkspace
    ) -> None:
        """Once it is its turn, if guests are seen then."""
        async with self._at_once:
            if self._sight.domains is None:
                return
            try:
                await work(workspace)
            except HypervisorSilent as error:
                self._sight.blind(error)

    def _failed(self, workspace: WantedWorkspace, attempts: Attempts, error: HostFailure) -> None:
        tried = attempts.failed(error, now=self._clock.monotonic())
        self._attempts[workspace.uid] = tried
        log.warning("guest.failed", workspace=workspace.uid, problem=str(error))
