"""`intertie cluster ...` and `intertie plan`: from a file to machines and back to nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer

from intertie.api.cluster.v1.cluster_pb2 import Cluster, ClusterSpec
from intertie.cli import render, terminal, watching
from intertie.cli.command import Format, Run, command, usage
from intertie.cli.failures import ClusterFailed, Refused
from intertie.cli.tables import moment
from intertie.cli.waiting import display
from intertie.client import (
    DURATION,
    END_TIME,
    GROUPS,
    OVER,
    Client,
    changes_of,
    draw_request_id,
    read_document,
)
from intertie.client.document import MAX_BYTES
from intertie.client.spans import parse_span

NameArgument = Annotated[str, typer.Argument(help="A cluster, by its id or in full.")]
FileOption = Annotated[
    Path,
    typer.Option(
        "--file", "-f", metavar="FILE", help="The cluster as YAML; - reads it from stdin."
    ),
]
NameOption = Annotated[str, typer.Option("--name", help="Instead of the name in the file.")]
KeyOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--ssh-key",
        metavar="FILE.pub",
        help="A public key that may log in to every workspace. May be given again.",
    ),
]


def register(app: typer.Typer, root: typer.Typer) -> None:
    command(app, "create")(create)
    command(app, "plan")(choose)
    command(app, "list")(list_clusters)
    command(app, "show")(show)
    command(app, "watch")(watch)
    command(app, "update")(update)
    command(app, "delete")(delete)
    command(root, "plan")(plan)


async def create(
    run: Run,
    *,
    file: FileOption,
    name: NameOption = "",
    wait: Annotated[bool, typer.Option(help="Return once every workspace is ready.")] = True,
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help="Plan and check, take nothing.")
    ] = False,
    request_id: Annotated[
        str, typer.Option(help="Ask again for what this id has asked for before.")
    ] = "",
    plan: Annotated[
        str, typer.Option("--plan", metavar="TOKEN", help="Of `intertie cluster plan`: this one.")
    ] = "",
    ssh_key: KeyOption = None,
) -> None:
    """Create a cluster, whole or not at all. Its name goes to stdout, progress to stderr."""
    cluster_id, spec = _read(run, file, name, ssh_key or [])
    async with await run.connect() as client:
        if validate_only:
            planned = await client.clusters.create(
                cluster_id, spec, validate_only=True, plan_token=plan
            )
            _show_plan(run, planned)
            return
        request_id = request_id or draw_request_id()
        with run.notes.status(f"planning {cluster_id}"):
            try:
                cluster = await client.clusters.create(
                    cluster_id, spec, request_id=request_id, plan_token=plan
                )
            except asyncio.CancelledError:
                run.note(
                    "Interrupted before the answer came: it may have been created. The same"
                    f" command with --request-id {request_id} tells, and takes nothing twice."
                )
                raise
        if run.output is Format.TABLE:
            run.print_lines(cluster.name)
        if wait:
            cluster = await _until_active(run, client, cluster)
        if run.output is not Format.TABLE:
            run.write(run.plain(cluster))


async def plan(
    run: Run, *, file: FileOption, name: NameOption = "", ssh_key: KeyOption = None
) -> None:
    """What would go where, when, at which price and why. Takes nothing."""
    cluster_id, spec = _read(run, file, name, ssh_key or [])
    async with await run.connect() as client:
        _show_plan(run, await client.clusters.create(cluster_id, spec, validate_only=True))


async def choose(
    run: Run, *, file: FileOption, name: NameOption = "", ssh_key: KeyOption = None
) -> None:
    """Plans to choose from: the earliest, cheapest, most local, most reliable. Takes nothing."""
    cluster_id, spec = _read(run, file, name, ssh_key or [])
    async with await run.connect() as client:
        with run.notes.status(f"planning {cluster_id}"):
            found = await client.clusters.plan(cluster_id, spec)
    run.show(found, lambda: render.options(found))


def _show_plan(run: Run, cluster: Cluster) -> None:
    run.show(cluster.plan, lambda: render.plan(cluster.plan, cluster.price))


def _read(run: Run, file: Path, name: str, keys: list[Path]) -> tuple[str, ClusterSpec]:
    """The file's cluster under its final name, with the keys in every group."""
    if str(file) == "-":
        text = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        with file.open("rb") as opened:
            text = opened.read(MAX_BYTES + 1)
    document = read_document(text)
    run.document = document
    if not (name or document.name):
        raise usage("the cluster has no name", "Give --name NAME, or begin the file with `name:`.")
    for group in document.spec.groups:
        context = group.environment.contextualization
        context.ssh_authorized_keys.extend(map(_public_key, keys))
    return name or document.name, document.spec


def _public_key(path: Path) -> str:
    """The one line of an OpenSSH public key; a private one must not leave this machine."""
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if "PRIVATE KEY" in text:
        raise usage(f"{path} is a private key", f"Give the public one, {path}.pub say.")
    if "\n" in text or len(text.split()) < 2:
        raise usage(f"{path} is no OpenSSH public key", "Make one with `ssh-keygen -t ed25519`.")
    return text


async def _until_active(run: Run, client: Client, cluster: Cluster) -> Cluster:
    name = render.last(cluster.name)
    begun = run.wiring.clock.monotonic()
    if cluster.state == Cluster.SCHEDULED and _starts_later(run, cluster):
        run.note(f"{name} starts at {moment(cluster.window.start_time)}")
    try:
        cluster = await follow(run, client, cluster, lambda each: each.state == Cluster.ACTIVE)
    except asyncio.CancelledError:
        run.note(
            f"Stopped waiting; {name} goes on without you."
            f" See it: intertie cluster show {name}. End it: intertie cluster delete {name}."
        )
        raise
    if cluster.state != Cluster.ACTIVE:
        raise failed(cluster)
    took_s = run.wiring.clock.monotonic() - begun
    run.note(f"{name}: {len(cluster.workspaces)} workspaces ready after {took_s:.0f} s", "green")
    return cluster


def _starts_later(run: Run, cluster: Cluster) -> bool:
    return cluster.window.start_time.seconds > run.wiring.clock.now().timestamp()


def failed(cluster: Cluster) -> ClusterFailed:
    state = Cluster.State.Name(cluster.state)
    failure = cluster.failure
    return ClusterFailed(render.last(cluster.name), state, failure.reason, failure.message)


async def follow(
    run: Run, client: Client, cluster: Cluster, reached: Callable[[Cluster], bool]
) -> Cluster:
    """The cluster once it is as wanted, or over."""
    with display(run.notes) as shown:
        shown.update(cluster)
        if reached(cluster) or cluster.state in OVER:
            return cluster
        async with aclosing(client.clusters.watch(cluster.name)) as changes:
            async for cluster in changes:
                shown.update(cluster)
                if reached(cluster) or cluster.state in OVER:
                    return cluster
    raise Refused(
        f"the service stopped telling of {cluster.name}",
        f"Look with `intertie cluster show {render.last(cluster.name)}`.",
    )


async def list_clusters(
    run: Run,
    *,
    over: Annotated[bool, typer.Option("--all", help="Those that are over as well.")] = False,
) -> None:
    """The clusters of your tenant."""
    async with await run.connect() as client:
        found = [each for each in await client.clusters.list() if over or each.state not in OVER]
    run.show(list(found), lambda: render.clusters(found))


async def show(run: Run, name: NameArgument) -> None:
    """One cluster: its workspaces, and what is promised to it."""
    async with await run.connect() as client:
        cluster = await client.clusters.get(name)
    run.show(cluster, lambda: render.cluster(cluster, run.wiring.clock.now()))


async def watch(
    run: Run,
    name: Annotated[
        str, typer.Argument(help="A cluster, by its id or in full; all of them without it.")
    ] = "",
    *,
    resume: Annotated[
        str, typer.Option(metavar="TOKEN", help="Of all: go on behind what had this token.")
    ] = "",
) -> None:
    """A line for every change, until the cluster is over. With -o json, a document a line.

    Without a name all clusters, from what there is now, until it is interrupted.
    """
    if not name:
        await watching.watch_all(run, resume)
        return
    if resume:
        raise usage("--resume is for all clusters", "Leave out the name, or --resume.")
    lines: dict[str, str] = {}
    async with (
        await run.connect() as client,
        aclosing(client.clusters.watch(name)) as changes,
    ):
        async for cluster in changes:
            if run.output is not Format.TABLE:
                run.write_change(cluster)
                continue
            said = render.changes(cluster, lines)
            stamp = run.wiring.clock.now().strftime("%H:%M:%SZ")
            for line in said:
                run.results.print(terminal.styled(f"{stamp}  {line}"), soft_wrap=True)


async def update(
    run: Run,
    name: NameArgument,
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="The whole cluster as it is to be; - reads stdin."
        ),
    ] = None,
    end: Annotated[
        str, typer.Option(metavar="MOMENT", help="When it is to end: 2026-11-30T12:00:00Z.")
    ] = "",
    duration: Annotated[
        str, typer.Option(metavar="SPAN", help="How long it is to last, from its start: 2h.")
    ] = "",
    wait: Annotated[bool, typer.Option(help="Return once every workspace is ready.")] = True,
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help="Check and show, change nothing.")
    ] = False,
    etag: Annotated[str, typer.Option(help="Only if it is still as it was seen.")] = "",
    request_id: Annotated[
        str, typer.Option(help="Ask again for what this id has asked for before.")
    ] = "",
    ssh_key: KeyOption = None,
) -> None:
    """Give a cluster that stands more or less: time, workspaces, or what each of them gets."""
    spec, paths = _end(end, duration)
    if file is None and not paths:
        raise usage("nothing is to be changed", "Give --file, --end or --duration.")
    async with await run.connect() as client:
        if file is not None:
            spec, paths = await _changes(run, client, file, name, ssh_key or [], spec, paths)
        request_id = request_id or ("" if validate_only else draw_request_id())
        try:
            cluster = await client.clusters.update(
                name, spec, paths, etag=etag, request_id=request_id, validate_only=validate_only
            )
        except asyncio.CancelledError:
            run.note(
                "Interrupted before the answer came: it may have been changed. The same"
                f" command with --request-id {request_id} tells, and changes nothing twice."
            )
            raise
        if validate_only:
            run.show(cluster, lambda: render.cluster(cluster, run.wiring.clock.now()))
            return
        if run.output is Format.TABLE:
            run.print_lines(cluster.name)
        run.note(
            f"{render.last(cluster.name)}: {len(cluster.workspaces)} workspaces until"
            f" {moment(cluster.window.end_time)}, terms {cluster.terms}"
        )
        if wait and not _starts_later(run, cluster):
            cluster = await follow(run, client, cluster, _all_ready)
            if cluster.state in OVER:
                raise failed(cluster)
        if run.output is not Format.TABLE:
            run.write(run.plain(cluster))


async def _changes(
    run: Run,
    client: Client,
    file: Path,
    name: str,
    keys: list[Path],
    lease: ClusterSpec,
    end: list[str],
) -> tuple[ClusterSpec, list[str]]:
    """What of the file's cluster is to be asked for; of the end, what options say wins."""
    _read(run, file, name, keys)
    assert run.document is not None
    if run.document.name not in ("", render.last(name)):
        raise usage(
            f"{file} is of cluster {run.document.name}, not of {render.last(name)}",
            "Give the name that is in the file, or take it out of the file.",
        )
    spec, paths = changes_of(run.document, await client.clusters.get(name))
    if not end:
        return spec, paths
    spec.lease.CopyFrom(lease.lease)
    return spec, [GROUPS, *end]


def _end(end: str, duration: str) -> tuple[ClusterSpec, list[str]]:
    """The lease that options ask for, and the path that names it."""
    spec = ClusterSpec()
    if end and duration:
        raise usage("--end and --duration are both given", "Give one of them.")
    if duration:
        span = parse_span(duration)
        if span is None:
            raise usage(f"{duration!r} is no span of time", "Write 2h, 90m or 1h30m.")
        lasts = spec.lease.duration
        lasts.seconds, lasts.nanos = divmod(span, 1_000_000_000)
        return spec, [DURATION]
    if end:
        try:
            spec.lease.end_time.FromJsonString(end)
        except ValueError:
            raise usage(
                f"{end!r} is no moment", "Write it with its time zone: 2026-11-30T12:00:00Z."
            ) from None
        return spec, [END_TIME]
    return spec, []


def _all_ready(cluster: Cluster) -> bool:
    return all(each.ready for each in cluster.workspaces)


async def delete(
    run: Run,
    name: NameArgument,
    *,
    wait: Annotated[bool, typer.Option(help="Return once nothing is left on any host.")] = True,
    etag: Annotated[str, typer.Option(help="Only if it is still as it was seen.")] = "",
) -> None:
    """End a cluster's lease and take everything back."""
    async with await run.connect() as client:
        cluster = await client.clusters.delete(name, etag=etag)
        if run.output is Format.TABLE:
            run.print_lines(cluster.name)
        if wait:
            cluster = await _until_gone(run, client, cluster)
        if run.output is not Format.TABLE:
            run.write(run.plain(cluster))


async def _until_gone(run: Run, client: Client, cluster: Cluster) -> Cluster:
    name = render.last(cluster.name)
    try:
        cluster = await follow(run, client, cluster, lambda each: each.state in OVER)
    except asyncio.CancelledError:
        run.note(f"Stopped waiting; {name} is being taken back all the same.")
        raise
    run.note(f"{name} is {Cluster.State.Name(cluster.state)}; nothing of it is left", "green")
    return cluster
