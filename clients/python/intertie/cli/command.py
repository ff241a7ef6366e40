"""What all commands have in common: options, connection, errors, exit codes."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer
from google.protobuf.message import Message
from rich.console import Console, RenderableType

from intertie.cli import terminal
from intertie.cli.failures import USAGE, Refused, report
from intertie.client import Client, Config, Document, connect, load, to_plain, to_yaml
from intertie.common.clock import Clock, SystemClock

DEBUG = "INTERTIE_DEBUG"
P = ParamSpec("P")


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """What commands are built on; tests give their own."""

    load: Callable[[Path | None], Config] = load
    connect: Callable[[Config, str | None], Awaitable[Client]] = connect
    clock: Clock = field(default_factory=SystemClock)


@dataclass(slots=True, kw_only=True)
class Choices:
    """Options as given before the command's name; the same after it win."""

    wiring: Wiring
    config: Path | None = None
    endpoint: str | None = None
    output: Format | None = None


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of one command."""

    wiring: Wiring
    config_path: Path | None
    endpoint: str | None
    output: Format
    results: Console
    notes: Console
    document: Document | None = None
    """What the user wrote, so that errors can name its lines."""

    def config(self) -> Config:
        return self.wiring.load(self.config_path)

    async def connect(self) -> Client:
        return await self.wiring.connect(self.config(), self.endpoint)

    def note(self, text: str, style: str = "") -> None:
        self.notes.print(terminal.styled(text, style), soft_wrap=True)

    def show(self, plain: Message | list[Any], table: Callable[[], RenderableType]) -> None:
        """The result in the form that was asked for."""
        if self.output is Format.TABLE:
            terminal.print_table(self.results, table())
            return
        self.write(self.plain(plain))

    def plain(self, result: Message | list[Any]) -> Any:
        if isinstance(result, Message):
            return to_plain(result, defaults=True)
        return [self.plain(each) if isinstance(each, Message) else each for each in result]

    def write(self, plain: Any) -> None:
        if self.output is Format.YAML:
            self.print_lines(to_yaml(plain).rstrip("\n"))
        else:
            self.print_lines(json.dumps(plain, indent=2, ensure_ascii=False))

    def write_change(self, change: Message | dict[str, Any]) -> None:
        """One of many: a line of JSON, or one YAML document among several."""
        plain = self.plain(change) if isinstance(change, Message) else change
        if self.output is Format.YAML:
            self.print_lines("---\n" + to_yaml(plain).rstrip("\n"))
        else:
            self.print_lines(json.dumps(plain, ensure_ascii=False))

    def print_lines(self, text: str) -> None:
        """To stdout as it is."""
        self.results.file.write(text + "\n")
        self.results.file.flush()


EndpointOption = Annotated[
    str | None,
    typer.Option("--endpoint", metavar="NAME", help="Which endpoint of the configuration."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Instead of what INTERTIE_CONFIG names."),
]
OutputOption = Annotated[
    Format | None, typer.Option("--output", "-o", help="Form of the result.", show_default=False)
]
_COMMON = {"endpoint": EndpointOption, "config": ConfigOption, "output": OutputOption}


def command(
    app: typer.Typer, name: str, *, hidden: bool = False, **settings: Any
) -> Callable[[Callable[Concatenate[Run, P], Coroutine[Any, Any, None]]], Callable[..., None]]:
    """Registers an async function: it is given the Run, its own arguments and no error escapes."""

    def register(
        function: Callable[Concatenate[Run, P], Coroutine[Any, Any, None]],
    ) -> Callable[..., None]:
        @functools.wraps(function)
        def run(context: typer.Context, **arguments: Any) -> None:
            common = {key: arguments.pop(key) for key in _COMMON}
            _execute(function, _run_of(context, **common), arguments)

        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        shared = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
            for key, option in _COMMON.items()
        ]
        context = inspect.Parameter(
            "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
        )
        parameters = [context, *own, *shared]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        del run.__wrapped__
        app.command(name, hidden=hidden, **settings)(run)
        return run

    return register


def _run_of(
    context: typer.Context, *, endpoint: str | None, config: Path | None, output: Format | None
) -> Run:
    choices = context.obj
    assert isinstance(choices, Choices)
    return Run(
        wiring=choices.wiring,
        config_path=config or choices.config,
        endpoint=endpoint or choices.endpoint,
        output=output or choices.output or Format.TABLE,
        results=terminal.results(),
        notes=terminal.notes(),
    )


def _execute(
    function: Callable[..., Coroutine[Any, Any, None]], run: Run, arguments: dict[str, Any]
) -> None:
    try:
        asyncio.run(function(run, **arguments))
    except (typer.Exit, BrokenPipeError):
        raise
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get(DEBUG):
            raise
        raise typer.Exit(report(error, run.notes, document=run.document)) from None


def usage(problem: str, remedy: str = "") -> Refused:
    return Refused(problem, remedy, exit_code=USAGE)
