"""The `intertie` command."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from intertie.cli import actions, clusters, images, migrate, sites, snapshots, streams, usage
from intertie.cli.command import (
    Choices,
    ConfigOption,
    EndpointOption,
    OutputOption,
    Wiring,
)

app = typer.Typer(
    name="intertie",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Virtual clusters over several sites, whole or not at all.",
)
_cluster_app = typer.Typer(no_args_is_help=True, help="Virtual clusters: create, see, use, delete.")
_site_app = typer.Typer(no_args_is_help=True, help="Sites, and what is free there.")
_host_app = typer.Typer(no_args_is_help=True, help="Hosts, and what is free on them.")
_image_app = typer.Typer(no_args_is_help=True, help="Images that workspaces boot from.")
_usage_app = typer.Typer(
    no_args_is_help=True, help="What was reserved at a site, written down and signed."
)
app.add_typer(_cluster_app, name="cluster")
app.add_typer(_site_app, name="site")
app.add_typer(_host_app, name="host")
app.add_typer(_image_app, name="image")
app.add_typer(_usage_app, name="usage")
clusters.register(_cluster_app, app)
actions.register(_cluster_app)
snapshots.register(_cluster_app)
migrate.register(_cluster_app)
streams.register(_cluster_app)
sites.register(_site_app, _host_app)
images.register(_image_app)
usage.register(_usage_app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"intertie {version('intertie')}")
        raise typer.Exit


@app.callback()
def _choose(
    context: typer.Context,
    endpoint: EndpointOption = None,
    config: ConfigOption = None,
    output: OutputOption = None,
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    wiring = context.obj if isinstance(context.obj, Wiring) else Wiring()
    context.obj = Choices(wiring=wiring, config=config, endpoint=endpoint, output=output)
