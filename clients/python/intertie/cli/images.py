"""`intertie image ...`: what workspaces boot from, in the stores of the sites."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from intertie.api.imagestore.v1.images_pb2 import Image
from intertie.cli import render
from intertie.cli.command import Format, Run, command, usage
from intertie.cli.terminal import shown
from intertie.client import Client, Images

SiteOption = Annotated[
    list[str] | None,
    typer.Option("--site", metavar="ENDPOINT", help="At this site only. May be given again."),
]
ImageArgument = Annotated[str, typer.Argument(help="An image, by name or digest.")]


def register(app: typer.Typer) -> None:
    command(app, "list")(list_images)
    command(app, "show")(show)
    command(app, "put")(put)
    command(app, "delete")(delete)


def _stores(run: Run, client: Client, sites: list[str] | None) -> list[Images]:
    """Of the sites that were named; else the endpoint's own; else all there are."""
    if sites:
        return [client.images(site) for site in sites]
    if client.endpoint.images_address:
        return [client.images()]
    found = [client.images(each.name) for each in client.config.image_stores()]
    if not found:
        raise usage("the configuration names no image store", "Give a site an images_address.")
    return found


async def list_images(run: Run, *, site: SiteOption = None) -> None:
    """Images of your tenant, site by site."""
    async with await run.connect() as client:
        found = [
            (store.site, image)
            for store in _stores(run, client, site)
            for image in await store.list()
        ]
    run.show([image for _, image in found], lambda: render.images(found))


async def show(run: Run, name: ImageArgument, *, site: SiteOption = None) -> None:
    """One image at every site that is asked."""
    async with await run.connect() as client:
        found = [(store.site, await store.stat(name)) for store in _stores(run, client, site)]
    run.show([image for _, image in found], lambda: render.images(found))


async def put(
    run: Run,
    name: Annotated[str, typer.Argument(help="What to call it: the name that clusters use.")],
    file: Annotated[Path, typer.Argument(help="A disk image, raw or qcow2; or data.")],
    *,
    site: SiteOption = None,
    data: Annotated[
        bool, typer.Option("--data", help="It is for data sets, and need be no disk image.")
    ] = False,
) -> None:
    """Store an image. Broken off, the same command goes on where it stopped."""
    if not file.is_file():
        raise usage(f"{file} is not a file")
    stored = []
    async with await run.connect() as client:
        for store in _stores(run, client, site):
            image = await _put_at(run, store, name, file, data=data)
            stored.append(image)
            if run.output is Format.TABLE:
                run.print_lines(image.name)
    if run.output is not Format.TABLE:
        run.write(run.plain(list(stored)))


async def _put_at(run: Run, store: Images, name: str, file: Path, *, data: bool) -> Image:
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=run.notes,
        transient=True,
        disable=not run.notes.is_terminal,
    )
    with progress:
        task = progress.add_task(shown(f"{name} to {store.site}"), total=None)
        image = await store.put(
            file,
            name,
            data=data,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    run.note(f"{name} is at {store.site}: {render.size(image.size_bytes)}, {image.digest[:15]}")
    return image


async def delete(run: Run, name: ImageArgument, *, site: SiteOption = None) -> None:
    """Take an image's name away, and its bytes when no other name has them."""
    async with await run.connect() as client:
        for store in _stores(run, client, site):
            image = await store.delete(name)
            run.print_lines(image.name)
