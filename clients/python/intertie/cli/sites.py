"""`intertie site ...` and `intertie host ...`: what there is, and how much of it is free."""

from __future__ import annotations

from typing import Annotated

import typer

from intertie.cli import render
from intertie.cli.command import Run, command


def register(sites: typer.Typer, hosts: typer.Typer) -> None:
    command(sites, "list")(list_sites)
    command(sites, "show")(show_site)
    command(hosts, "list")(list_hosts)
    command(hosts, "show")(show_host)


async def list_sites(run: Run) -> None:
    """Sites that the service plans over."""
    async with await run.connect() as client:
        found = await client.sites.list()
    run.show(list(found), lambda: render.sites(found))


async def show_site(run: Run, name: Annotated[str, typer.Argument(help="As in north.")]) -> None:
    """One site."""
    async with await run.connect() as client:
        found = await client.sites.get(name)
    run.show(found, lambda: render.sites([found]))


async def list_hosts(
    run: Run, *, site: Annotated[str, typer.Option(help="Of this site only.")] = ""
) -> None:
    """Hosts of all sites, with what is free at this moment."""
    async with await run.connect() as client:
        found = await client.hosts.list(site or None)
    run.show(list(found), lambda: render.hosts(found))


async def show_host(run: Run, name: Annotated[str, typer.Argument(help="As in north/n1.")]) -> None:
    """One host."""
    async with await run.connect() as client:
        found = await client.hosts.get(name)
    run.show(found, lambda: render.hosts([found]))
