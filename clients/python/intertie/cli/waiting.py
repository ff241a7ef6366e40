"""What is shown while a cluster comes up or goes: bars on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from intertie.api.cluster.v1.cluster_pb2 import Cluster, Workspace
from intertie.cli.render import WAITING_STATES, last, queue_line, size
from intertie.cli.terminal import shown, styled

_STEPS = {
    Workspace.PLANNED: 0,
    Workspace.STAGING: 1,
    Workspace.DEFINED: 2,
    Workspace.RUNNING: 3,
}
_READY_STEP = 4


class Display(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def update(self, cluster: Cluster) -> None: ...


def display(notes: Console) -> Display:
    """Bars only where they can be drawn over: a dumb terminal would be shown nothing."""
    return Bars(notes) if notes.is_terminal and not notes.is_dumb_terminal else Lines(notes)


def staged(workspaces: Iterable[Workspace]) -> tuple[int, int]:
    """Bytes that have arrived, of how many. Guests of one image on one host share its copy."""
    copies = {
        (each.site, each.host, each.image_digest): each
        for each in workspaces
        if each.staging_total_bytes
    }
    done = sum(each.staging_done_bytes for each in copies.values())
    return done, sum(each.staging_total_bytes for each in copies.values())


def state_of(workspace: Workspace, *, ending: bool = False) -> str:
    """In a word or two; what the guest says of itself counts while it runs."""
    if ending and workspace.state not in (Workspace.ENDED, Workspace.FAILED):
        return "being taken back"
    if workspace.state == Workspace.RUNNING:
        return "ready" if workspace.ready else "booting"
    word = Workspace.State.Name(workspace.state).lower()
    return f"{word}: {workspace.message}" if workspace.message else word


def place_of(workspace: Workspace) -> str:
    return f"{workspace.site}/{last(workspace.host)}" if workspace.host else workspace.site


class Bars:
    """A bar for the bytes that are staged and one for each workspace; gone when all is done."""

    def __init__(self, notes: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[what]}", markup=False),
            console=notes,
            transient=True,
        )
        self._staging: TaskID | None = None
        self._queue: TaskID | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def update(self, cluster: Cluster) -> None:
        done, total = staged(cluster.workspaces)
        ending = cluster.HasField("end_requested_time")
        if cluster.state in WAITING_STATES and self._queue is None:
            self._queue = self._progress.add_task(shown(last(cluster.name)), total=None, what="")
        if self._queue is not None:
            waits = cluster.state in WAITING_STATES
            what = shown(queue_line(cluster)) if waits else ""
            self._progress.update(self._queue, visible=waits, what=what)
        if total and not ending:
            if self._staging is None:
                self._staging = self._progress.add_task("staging", what="")
            what = f"{size(done)} of {size(total)}"
            self._progress.update(self._staging, completed=done, total=total, what=what)
        for workspace in cluster.workspaces:
            name = last(workspace.name)
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(shown(name), total=_READY_STEP, what="")
            step = _READY_STEP if workspace.ready else _STEPS.get(workspace.state, 0)
            if ending:
                step = _READY_STEP if workspace.state == Workspace.ENDED else 0
            what = shown(f"{place_of(workspace)}  {state_of(workspace, ending=ending)}")
            self._progress.update(self._tasks[name], completed=step, what=what)


class Lines:
    """A line for every change."""

    def __init__(self, notes: Console) -> None:
        self._notes = notes
        self._said: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def update(self, cluster: Cluster) -> None:
        ending = cluster.HasField("end_requested_time")
        if cluster.state in WAITING_STATES and self._said.get("") != (line := queue_line(cluster)):
            self._said[""] = line
            self._notes.print(styled(f"{last(cluster.name)} {line}"), soft_wrap=True)
        for workspace in cluster.workspaces:
            name = last(workspace.name)
            says = f"{place_of(workspace):<12} {state_of(workspace, ending=ending)}"
            if self._said.get(name) != says:
                self._said[name] = says
                self._notes.print(styled(f"{name:<12} {says}"), soft_wrap=True)
