"""`intertie cluster console`, `ssh` and `forward`: bytes to and from a workspace."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from intertie.cli.clusters import NameArgument
from intertie.cli.command import Run, command
from intertie.cli.failures import Refused
from intertie.cli.stdio import ESCAPE, raw_terminal, read_stdin, write_stdout
from intertie.client import Attachment

WorkspaceArgument = Annotated[
    str, typer.Argument(help="A workspace of it: the group's name and a number, as in worker-0.")
]
SSH_PORT = 22


def register(app: typer.Typer) -> None:
    command(app, "console")(console)
    command(app, "ssh")(ssh)
    command(app, "forward")(forward)


async def console(run: Run, name: NameArgument, workspace: WorkspaceArgument) -> None:
    """Attach to a workspace's serial console. Ctrl-] leaves it."""
    async with (
        await run.connect() as client,
        await client.clusters.attach(name, workspace) as attachment,
    ):
        run.note(f"Attached to {workspace}; Ctrl-] leaves.")
        with raw_terminal():
            await _bridge(attachment, escape=ESCAPE if sys.stdin.isatty() else b"")
        run.note("Detached.")


async def forward(
    run: Run,
    name: NameArgument,
    workspace: WorkspaceArgument,
    port: Annotated[int, typer.Argument(min=1, max=65535, help="A TCP port of the workspace.")],
) -> None:
    """Join stdin and stdout to a TCP port of a workspace: the ProxyCommand of `ssh`."""
    async with (
        await run.connect() as client,
        await client.clusters.attach(name, workspace, port=port) as attachment,
    ):
        await _bridge(attachment)


async def _bridge(attachment: Attachment, *, escape: bytes = b"") -> None:
    """Until the workspace sends no more, or the user has left."""
    sending = asyncio.create_task(_send(attachment, escape))
    receiving = asyncio.create_task(_receive(attachment))
    try:
        done, _ = await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
        if sending in done and not sending.result():
            await receiving
        if receiving in done:
            receiving.result()
    finally:
        for task in (sending, receiving):
            task.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)


async def _send(attachment: Attachment, escape: bytes) -> bool:
    """True: the user asked to leave. False: there is no more to send."""
    while data := await read_stdin():
        head, found, _ = data.partition(escape) if escape else (data, b"", b"")
        if head:
            await attachment.write(head)
        if found:
            return True
    await attachment.end()
    return False


async def _receive(attachment: Attachment) -> None:
    while data := await attachment.read():
        await write_stdout(data)


async def ssh(
    run: Run,
    name: NameArgument,
    workspace: WorkspaceArgument,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND...]", show_default=False)
    ] = None,
    *,
    identity: Annotated[
        Path | None, typer.Option("--identity", "-i", metavar="FILE", help="Private key.")
    ] = None,
    user: Annotated[str, typer.Option("--user", "-l", help="Who to log in as.")] = "root",
) -> None:
    """Log in to a workspace with OpenSSH, or run one command in it.

    The guest's address need not be reachable: the connection goes through the service.
    """
    arguments = ssh_arguments(
        run, name, workspace, words or [], identity=identity, user=user, program=_this_program()
    )
    try:
        os.execvp(arguments[0], arguments)
    except FileNotFoundError:
        raise Refused("there is no ssh on this machine", "Install OpenSSH's client.") from None


def ssh_arguments(
    run: Run,
    name: str,
    workspace: str,
    words: list[str],
    *,
    identity: Path | None,
    user: str,
    program: list[str],
) -> list[str]:
    """Host keys are not kept: a workspace has a new one in every life, and the way to it is
    authenticated already, end to end through the services."""
    proxy = list(program)
    if run.config_path:
        proxy += ["--config", str(run.config_path)]
    if run.endpoint:
        proxy += ["--endpoint", run.endpoint]
    proxy += ["cluster", "forward", name, workspace, str(SSH_PORT)]
    options = [
        f"ProxyCommand={shlex.join(proxy).replace('%', '%%')}",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "GlobalKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
    ]
    arguments = ["ssh"]
    for option in options:
        arguments += ["-o", option]
    if identity:
        arguments += ["-i", str(identity), "-o", "IdentitiesOnly=yes"]
    return [*arguments, "-l", user, workspace, *(["--", *words] if words else [])]


def _this_program() -> list[str]:
    return [sys.executable, "-m", "intertie.cli"]
