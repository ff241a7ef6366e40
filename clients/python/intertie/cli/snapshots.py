"""`intertie cluster snapshot`: an image of a workspace's disk, at the site of the workspace."""

from __future__ import annotations

from typing import Annotated

import typer

from intertie.api.cluster.v1.cluster_pb2 import Cluster
from intertie.api.types.v1.snapshot_pb2 import Snapshot
from intertie.cli import render
from intertie.cli.actions import EtagOption, RequestIdOption
from intertie.cli.clusters import failed, follow
from intertie.cli.command import Format, Run, command
from intertie.cli.failures import Refused
from intertie.cli.tables import moment
from intertie.client import OVER
from intertie.client.clusters import draw_request_id

_OVER = frozenset({Snapshot.READY, Snapshot.FAILED})


def register(app: typer.Typer) -> None:
    command(app, "snapshot")(snapshot)


async def snapshot(
    run: Run,
    cluster_name: Annotated[
        str, typer.Argument(metavar="NAME", help="A cluster, by its id or in full.")
    ],
    workspace: Annotated[str, typer.Argument(help="Such as worker-0.")],
    *,
    image: Annotated[str, typer.Option(help="What to call it; an image of that name is replaced.")],
    wait: Annotated[bool, typer.Option(help="Return once the image is in the store.")] = True,
    etag: EtagOption = "",
    request_id: RequestIdOption = "",
) -> None:
    """Make an image of a workspace's disk as it is at one moment. It goes on meanwhile."""
    async with await run.connect() as client:
        cluster = await client.clusters.snapshot(
            cluster_name, workspace, image, etag=etag, request_id=request_id or draw_request_id()
        )
        if wait:
            cluster = await follow(run, client, cluster, lambda now: _of(now, workspace) in _OVER)
    made = _found(cluster, workspace)
    if wait and made.state == Snapshot.FAILED:
        raise Refused(
            f"there is no image of {workspace}: {made.message}",
            "Mend that, and ask again; this request will not be tried again.",
        )
    if wait and made.state != Snapshot.READY:
        raise failed(cluster) if cluster.state in OVER else Refused("it was taken away meanwhile")
    if run.output is Format.TABLE:
        run.print_lines(made.image)
        if made.state == Snapshot.READY:
            how = "its file systems written out" if made.quiesced else "as after a power failure"
            taken = moment(made.taken_time)
            run.note(f"{workspace} as of {taken}, {how}: {render.size(made.total_bytes)}")
    else:
        run.write(run.plain(cluster))


def _of(cluster: Cluster, workspace: str) -> int:
    return _found(cluster, workspace).state


def _found(cluster: Cluster, workspace: str) -> Snapshot:
    for each in cluster.workspaces:
        if render.last(each.name) == workspace:
            return each.snapshot
    return Snapshot()
