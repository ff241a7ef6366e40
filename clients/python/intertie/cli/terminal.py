"""What is written where: results to stdout, everything about them to stderr."""

from __future__ import annotations

import sys
from typing import TextIO

from rich.console import Console
from rich.text import Text

PIPE_WIDTH = 200
"""Columns where no terminal says how many it has: tables are not folded for a pipe."""


def results() -> Console:
    return _console(sys.stdout)


def notes() -> Console:
    return _console(sys.stderr)


def _console(file: TextIO) -> Console:
    width = None if file.isatty() else PIPE_WIDTH
    return Console(file=file, width=width, highlight=False, markup=False, soft_wrap=False)


def shown(text: object) -> str:
    """`text` without what could drive a terminal: other people's words go through here."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in str(text))


def styled(text: object, style: str = "") -> Text:
    return Text(shown(text), style=style)
