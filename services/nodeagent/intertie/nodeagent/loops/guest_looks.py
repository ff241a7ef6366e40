"""What there is of each guest, what is to be done next for it, and what is told of it."""

from collections.abc import Mapping
from datetime import datetime

from intertie.common.clock import Clock
from intertie.common.names import DeviceNames
from intertie.nodeagent.domain.failures import Attempts, HostFailure
from intertie.nodeagent.domain.keeping import is_put_aside
from intertie.nodeagent.domain.ports import Images, Storage
from intertie.nodeagent.domain.power import SHUTDOWN_S, Button, Memory
from intertie.nodeagent.domain.reconcile import (
    ALIVE,
    DomainState,
    KnownPart,
    Observed,
    Phase,
    Step,
    must_stop,
    state_of,
    steps,
)
from intertie.nodeagent.domain.report import SeenWorkspace
from intertie.nodeagent.domain.told_migration import told_of
from intertie.nodeagent.domain.wanted import WantedWorkspace
from intertie.nodeagent.loops.guest_steps import GuestSteps
from intertie.nodeagent.loops.knowledge import Knowledge
from intertie.nodeagent.loops.listening import Listening
from intertie.nodeagent.loops.live_terms import LiveTerms
from intertie.nodeagent.loops.sending_guests import SendingGuests

Domains = Mapping[str, DomainState]
"""By name, as libvirt tells them."""


class GuestLooks:
    """Changes nothing; what it keeps is when power buttons were pressed."""

    def __init__(
        self,
        clock: Clock,
        knowledge: Knowledge,
        storage: Storage,
        images: Images,
        listening: Listening,
        terms: LiveTerms,
        guest_steps: GuestSteps,
        sending: SendingGuests,
    ) -> None:
        self._clock = clock
        self._knowledge = knowledge
        self._storage = storage
        self._images = images
        self._listening = listening
        self._terms = terms
        self._steps = guest_steps
        self._sending = sending
        self._pressed: dict[str, float] = {}
        """By uid: a monotonic moment."""

    def pressed(self, uid: str) -> None:
        """Its power button was, just now."""
        self._pressed[uid] = self._clock.monotonic()

    def forget(self, uid: str) -> None:
        """It is off, or wanted no more."""
        self._pressed.pop(uid, None)

    def observe(self, workspace: WantedWorkspace, domains: Domains) -> Observed:
        uid = workspace.uid
        domain, disk = domains.get(DeviceNames.domain(uid)), self._storage.has_disk(uid)
        return Observed(
            domain=domain,
            image=self._images.ready(workspace.environment.image) is not None,
            data=all(self._images.has_data(each) for each in workspace.data),
            disk=disk,
            small=disk and domain not in ALIVE and self._is_small(workspace),
            volumes=all(
                each.image or self._storage.has_volume(uid, number)
                for number, each in enumerate(workspace.disks)
            ),
            seed=self._storage.has_seed(uid),
            memory=self._storage.memory(uid),
            given=workspace.migration is not None and self._storage.is_given(uid),
            unsent=bool(self._sending.failed(uid, workspace.migration)),
            come=self._storage.has_come(uid),
        )

    def next_steps(
        self,
        part: KnownPart,
        workspace: WantedWorkspace,
        phase: Phase,
        seen: Observed,
        now: datetime,
    ) -> tuple[Step, ...]:
        return steps(
            phase,
            seen,
            part.note(workspace.uid),
            workspace.switched,
            isolated=self.isolated(workspace, now),
            button=self._button(workspace.uid),
            keeps=part.wanted.keep_until is not None,
            role=workspace.migration.role if workspace.migration is not None else None,
            goes_aside=workspace.migration is not None and workspace.migration.aside,
        )

    def has_all(
        self,
        part: KnownPart,
        workspace: WantedWorkspace,
        phase: Phase,
        domains: Domains,
        now: datetime,
    ) -> bool:
        """One that does not run has all once no step is left: each start is from the newest. Not
        so one that is put aside, which goes on with what it had then; but while it has no window
        that is all that it is to be."""
        seen = self.observe(workspace, domains)
        if phase is Phase.KEEP:
            return is_put_aside(seen) and workspace.uid not in self._steps.moving()
        if seen.memory is not Memory.NONE or workspace.uid in self._steps.moving():
            return False
        if self._button(workspace.uid) is Button.PRESSED:
            return False
        if self.next_steps(part, workspace, phase, seen, now):
            return False
        return seen.domain not in ALIVE or self._terms.in_force(workspace)

    def told(
        self,
        part: KnownPart,
        workspace: WantedWorkspace,
        phase: Phase,
        domains: Domains,
        attempts: Attempts,
        now: datetime,
        *,
        waits: str = "",
        sure: bool = True,
    ) -> SeenWorkspace:
        """`waits`: what it begins with as soon as that is there; nothing of it has failed. Where
        it is not `sure`, libvirt has not said what there is."""
        note = part.note(workspace.uid)
        staged = [
            self._images.progress(each) for each in (workspace.environment.image, *workspace.data)
        ]
        late = self._listening.late(workspace) if phase is Phase.RUN else ""
        seen = self.observe(workspace, domains)
        state = state_of(
            phase,
            seen,
            note,
            workspace.switched,
            isolated=self.isolated(workspace, now),
            attempts=attempts,
            late=bool(late),
        )
        return SeenWorkspace(
            name=workspace.name,
            uid=workspace.uid,
            state=state,
            message=attempts.problem or waits or late,
            ready_time=note.ready_time if phase is Phase.RUN else None,
            staging_done_bytes=sum(each.done_bytes for each in staged),
            staging_total_bytes=sum(each.total_bytes for each in staged),
            pending=self._terms.pending(workspace.uid) if phase is Phase.RUN else "",
            saved=note.saved,
            restored=note.restored,
            snapshot=self._steps.snapshots.told(part.wanted.uid, workspace),
            migration=told_of(
                workspace.migration if sure else None,
                seen,
                moves=workspace.uid in self._steps.moving(),
                stands=note.paused,
                problem=self._sending.failed(workspace.uid, workspace.migration)
                or attempts.problem,
            ),
        )

    def _is_small(self, workspace: WantedWorkspace) -> bool:
        """A disk of which that cannot be told is left to whoever opens it, who says what it has."""
        try:
            return self._storage.disk_mib(workspace.uid) < workspace.allocation.disk_mib
        except (HostFailure, OSError):
            return False

    def isolated(self, workspace: WantedWorkspace, now: datetime) -> bool:
        """It must not run, as nobody has been heard of for so long."""
        return self._knowledge.must_be_off or must_stop(
            workspace, last_contact=self._knowledge.contact, now=now
        )

    def _button(self, uid: str) -> Button:
        pressed = self._pressed.get(uid)
        if pressed is None:
            return Button.FREE
        waits = self._clock.monotonic() - pressed < SHUTDOWN_S
        return Button.PRESSED if waits else Button.IGNORED
