"""Keeps count of what workspaces use."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import structlog

from intertie.common.clock import Clock
from intertie.common.names import DeviceNames
from intertie.nodeagent.domain.failures import HostFailure, HypervisorSilent
from intertie.nodeagent.domain.ports import DomainCounters, Hypervisor
from intertie.nodeagent.domain.reconcile import KnownPart, WorkspaceState
from intertie.nodeagent.domain.report import SeenPart
from intertie.nodeagent.domain.used import GUEST, Mark, Tally, counted, guest_mark

log = structlog.get_logger(__name__)

PERIOD_S = 5.0
"""Between two readings; of what a guest uses before it ends, so much may be lost."""
KEPT_S = 60.0
"""After so long at the latest, tallies are on disk. Whose guest goes on meanwhile loses nothing
when the agent is killed: its counters do."""


class TallyStore(Protocol):
    def load_tallies(self) -> dict[str, Tally]:
        """By uid of the workspace; none where nothing is known."""
        ...

    def save_tallies(self, tallies: Mapping[str, Tally]) -> None:
        """OSError leaves what was saved before."""
        ...


class UsageMeter:
    """`sweep` is one reading."""

    def __init__(
        self,
        known: Callable[[], Mapping[str, KnownPart]],
        report: Callable[[], Iterable[SeenPart] | None],
        hypervisor: Hypervisor,
        read_tap: Callable[[str], Mark | None],
        store: TallyStore,
        clock: Clock,
    ) -> None:
        self._known = known
        self._report = report
        self._hypervisor = hypervisor
        self._read_tap = read_tap
        self._store = store
        self._clock = clock
        self._tallies = store.load_tallies()
        self._kept: Mapping[str, Tally] = dict(self._tallies)
        self._kept_at = clock.monotonic()

    def of(self, part_uid: str) -> dict[str, Tally]:
        """Of every workspace that the part has or had here, by its uid, as far as it was read."""
        return {uid: each for uid, each in self._tallies.items() if each.part_uid == part_uid}

    async def run(self) -> None:
        try:
            self._store.save_tallies(self._tallies)  # so that what cannot be kept is known at once
        except OSError as error:
            log.warning("usage.failed", problem=str(error))
        while True:
            try:
                await self.sweep()
            except (HostFailure, OSError) as error:
                log.warning("usage.failed", problem=str(error))
            await self._clock.sleep(PERIOD_S)

    async def sweep(self) -> None:
        known = self._known()
        for uid in [uid for uid, each in self._tallies.items() if each.part_uid not in known]:
            del self._tallies[uid]
        if any(part.wanted.workspaces for part in known.values()):
            await self._read(known)
        self._keep()

    async def _read(self, known: Mapping[str, KnownPart]) -> None:
        """Nothing while libvirt is silent: then nothing new is known, not even that it is off; and
        nothing before the first look at guests, which says who is suspended."""
        report = self._report()
        if report is None:
            return
        try:
            counters = await self._hypervisor.counters()
        except HypervisorSilent:
            return
        suspended = {
            each.uid
            for part in report
            for each in part.workspaces
            if each.state is WorkspaceState.SUSPENDED
        }
        now = self._clock.now()
        for part in known.values():
            nics: dict[str, list[str]] = {}
            for workspace, number, _ in part.wanted.taps():
                nics.setdefault(workspace.uid, []).append(DeviceNames.tap(workspace.uid, number))
            for workspace in part.wanted.workspaces:
                marks = self._marks(
                    counters.get(DeviceNames.domain(workspace.uid)), nics.get(workspace.uid, ())
                )
                tally = self._tallies.get(workspace.uid)
                if tally is None:
                    if not marks:
                        continue  # it was never there
                    tally = Tally(part_uid=part.wanted.uid, workspace=workspace.name, read_time=now)
                self._tallies[workspace.uid] = counted(
                    tally, marks, suspended=workspace.uid in suspended, at=now
                )

    def _marks(self, guest: DomainCounters | None, taps: Iterable[str]) -> dict[str, Mark]:
        marks = {tap: mark for tap in taps if (mark := self._read_tap(tap)) is not None}
        if guest is not None:
            marks[GUEST] = guest_mark(
                guest.made,
                cpu_ns=guest.cpu_time_ns,
                disk_operations=guest.read_operations
                + guest.write_operations
                + sum(each.operations for each in guest.others.values()),
                disk_bytes=guest.read_bytes
                + guest.write_bytes
                + sum(each.bytes for each in guest.others.values()),
            )
        return marks

    def _keep(self) -> None:
        """At once where counters have begun anew, or somebody is suspended: what there was before
        is nowhere else."""
        late = self._clock.monotonic() - self._kept_at >= KEPT_S
        if self._tallies == self._kept or not (late or self._anew()):
            return
        self._store.save_tallies(self._tallies)
        self._kept, self._kept_at = dict(self._tallies), self._clock.monotonic()

    def _anew(self) -> bool:
        return self._tallies.keys() != self._kept.keys() or any(
            _made(tally) != _made(self._kept[uid])
            or tally.was_suspended != self._kept[uid].was_suspended
            or tally.suspended != self._kept[uid].suspended
            for uid, tally in self._tallies.items()
        )


def _made(tally: Tally) -> dict[str, str]:
    return {key: mark.made for key, mark in tally.marks.items()}
