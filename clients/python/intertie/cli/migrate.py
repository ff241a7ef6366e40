"""`intertie cluster migrate`: workspaces go to other hosts of their sites while they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from intertie.api.cluster.v1.cluster_pb2 import Cluster, Workspace
from intertie.cli import render
from intertie.cli.actions import EtagOption, RequestIdOption, WorkspacesArgument
from intertie.cli.clusters import failed, follow
from intertie.cli.command import Format, Run, command
from intertie.cli.failures import Refused
from intertie.client import OVER
from intertie.client.clusters import draw_request_id


def register(app: typer.Typer) -> None:
    command(app, "migrate")(migrate)


async def migrate(
    run: Run,
    cluster_name: Annotated[
        str, typer.Argument(metavar="NAME", help="A cluster, by its id or in full.")
    ],
    workspaces: WorkspacesArgument = None,
    *,
    to: Annotated[str, typer.Option(help="The host, by operators. Else the site chooses.")] = "",
    wait: Annotated[bool, typer.Option(help="Return once they are there.")] = True,
    etag: EtagOption = "",
    request_id: RequestIdOption = "",
) -> None:
    """Have workspaces go on at other hosts of their sites, while they run or are suspended."""
    labels = workspaces or []
    async with await run.connect() as client:
        before = _places(await client.clusters.get(cluster_name), labels)
        cluster = await client.clusters.act(
            cluster_name,
            "MIGRATE",
            labels,
            etag=etag,
            request_id=request_id or draw_request_id(),
            host=to,
        )
        if run.output is Format.TABLE:
            run.print_lines(cluster.name)
        if wait:
            cluster = await follow(run, client, cluster, _settled(labels))
            if cluster.state in OVER:
                raise failed(cluster)
        if run.output is not Format.TABLE:
            run.write(run.plain(cluster))
        if wait and (stayed := _stayed(cluster, labels, before)):
            raise Refused(
                f"not migrated: {stayed}", "They stay where they are; ask again, or leave them."
            )


def _asked(cluster: Cluster, labels: list[str]) -> list[Workspace]:
    return [each for each in cluster.workspaces if not labels or render.last(each.name) in labels]


def _places(cluster: Cluster, labels: list[str]) -> Mapping[str, str]:
    return {each.name: each.host for each in _asked(cluster, labels)}


_HAS_YET_TO_GO_ON = (Workspace.PLANNED, Workspace.STAGING, Workspace.DEFINED, Workspace.PAUSED)
"""As a host says that has not looked again since it took it."""


def _settled(labels: list[str]) -> Callable[[Cluster], bool]:
    def reached(cluster: Cluster) -> bool:
        return not any(
            each.migrating_to or each.state in _HAS_YET_TO_GO_ON for each in _asked(cluster, labels)
        )

    return reached


def _stayed(cluster: Cluster, labels: list[str], before: Mapping[str, str]) -> str:
    return "; ".join(
        f"{render.last(each.name)} is on {each.host}: {each.message or 'nothing was said'}"
        for each in _asked(cluster, labels)
        if before.get(each.name) == each.host
    )
