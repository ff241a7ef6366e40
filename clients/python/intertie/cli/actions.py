"""`intertie cluster stop`, `start` and what else is done to workspaces while a lease goes on."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any

import typer

from intertie.api.cluster.v1.cluster_pb2 import Cluster, Workspace
from intertie.cli import render
from intertie.cli.clusters import failed, follow
from intertie.cli.command import Format, Run, command
from intertie.client import OVER
from intertie.client.clusters import draw_request_id

WorkspacesArgument = Annotated[
    list[str] | None, typer.Argument(help="Such as worker-0; all where none is named.")
]
WaitOption = Annotated[bool, typer.Option(help="Return once it is so on every host.")]
EtagOption = Annotated[str, typer.Option(help="Only if it is still as it was seen.")]
RequestIdOption = Annotated[
    str, typer.Option(help="Ask again for what this id has asked for before.")
]

ACTIONS: Mapping[str, str] = {
    "stop": "Switch workspaces off. What they have on their hosts stays theirs.",
    "start": "Switch workspaces on that are off.",
    "reboot": "Switch workspaces off and on: they boot by their newest terms.",
    "pause": "Have workspaces stand still, in the memory of their hosts.",
    "resume": "Have workspaces go on after pause or suspend.",
    "suspend": "Keep the memory of workspaces on the disks of their hosts.",
}
_STATE_AFTER = {
    "stop": Workspace.STOPPED,
    "pause": Workspace.PAUSED,
    "suspend": Workspace.SUSPENDED,
}
"""Of the others: it runs, and is ready anew."""


def register(app: typer.Typer) -> None:
    for name, what in ACTIONS.items():
        command(app, name)(_command(name, what))


def _command(name: str, what: str) -> Callable[..., Coroutine[Any, Any, None]]:
    async def act(
        run: Run,
        cluster_name: Annotated[
            str, typer.Argument(metavar="NAME", help="A cluster, by its id or in full.")
        ],
        workspaces: WorkspacesArgument = None,
        *,
        wait: WaitOption = True,
        etag: EtagOption = "",
        request_id: RequestIdOption = "",
    ) -> None:
        labels = workspaces or []
        async with await run.connect() as client:
            before: Mapping[str, str] = {}
            if wait and name == "reboot":
                before = _ready_times(await client.clusters.get(cluster_name))
            cluster = await client.clusters.act(
                cluster_name,
                name.upper(),
                labels,
                etag=etag,
                request_id=request_id or draw_request_id(),
            )
            if run.output is Format.TABLE:
                run.print_lines(cluster.name)
            if wait:
                cluster = await follow(run, client, cluster, _reached(name, labels, before))
                if cluster.state in OVER:
                    raise failed(cluster)
            if run.output is not Format.TABLE:
                run.write(run.plain(cluster))

    act.__name__, act.__doc__ = name, what
    return act


def _ready_times(cluster: Cluster) -> Mapping[str, str]:
    return {
        render.last(each.name): each.ready_time.ToJsonString() if each.ready else ""
        for each in cluster.workspaces
    }


def _reached(
    action: str, labels: list[str], before: Mapping[str, str]
) -> Callable[[Cluster], bool]:
    """`before`: when each workspace became ready before a reboot, where it was."""
    state = _STATE_AFTER.get(action)

    def reached(cluster: Cluster) -> bool:
        asked = [
            each for each in cluster.workspaces if not labels or render.last(each.name) in labels
        ]
        if state is not None:
            return all(each.state == state for each in asked)
        now = _ready_times(cluster)
        return all(
            each.state == Workspace.RUNNING
            and now[label]
            and (action != "reboot" or now[label] != before.get(label))
            for each in asked
            for label in (render.last(each.name),)
        )

    return reached
