"""What is written where: results to stdout, everything about them to stderr."""

from __future__ import annotations

import sys
from typing import TextIO

from rich.console import Console, RenderableType
from rich.text import Text

PIPE_WIDTH = 200
"""Columns where no terminal says how many it has."""


def results() -> Console:
    """Tables are never cut: a terminal that is too narrow folds their lines itself."""
    console = _console(sys.stdout, None)
    return _console(sys.stdout, max(console.width, PIPE_WIDTH))


def notes() -> Console:
    return _console(sys.stderr, None if sys.stderr.isatty() else PIPE_WIDTH)


def _console(file: TextIO, width: int | None) -> Console:
    return Console(file=file, width=width, highlight=False, markup=False)


def print_table(console: Console, table: RenderableType) -> None:
    """A pipe gets no blanks at the ends of lines."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        console.file.write(line.rstrip() + "\n")
    console.file.flush()


def quantity(number: int | str, unit: str) -> str:
    """`150/s`, `20 Mbit/s`, `3`."""
    if unit.startswith("1/"):
        return shown(f"{number}{unit[1:]}")
    return shown(f"{number} {unit}" if unit else number)


def shown(text: object) -> str:
    """`text` without what could drive a terminal: other people's words go through here."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in str(text))


def styled(text: object, style: str = "") -> Text:
    return Text(shown(text), style=style)
