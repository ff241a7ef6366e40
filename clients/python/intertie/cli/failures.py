"""Errors as a person wants them: what, where, and what to do. Never a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby

from rich.console import Console
from rich.table import Table

from intertie.cli.explained import explained
from intertie.cli.remedies import REMEDIES
from intertie.cli.tables import instant
from intertie.cli.terminal import print_table, quantity, shown, styled
from intertie.client import ClientError, Document, DocumentInvalid
from intertie.client.errors import ConfigInvalid, ConfigMissing, EndpointUnknown
from intertie.common.errors import DomainError, FieldInvalid, ImageNotReady, NoCapacity, Shortfall

FAILURE = 1
USAGE = 2
INTERRUPTED = 130


class Refused(Exception):
    """A command cannot do what it was asked for; found on this side."""

    def __init__(self, problem: str, remedy: str = "", *, exit_code: int = FAILURE) -> None:
        super().__init__(problem)
        self.remedy = remedy
        self.exit_code = exit_code


class ClusterFailed(Exception):
    """It was created, and then did not come up."""

    def __init__(self, name: str, state: str, reason: str, message: str) -> None:
        super().__init__(f"{name} is {state}: {message or reason or 'no reason is given'}")
        self.remedy = f"Look with `intertie cluster show {name}`."


def report(error: BaseException, notes: Console, *, document: Document | None = None) -> int:
    """Tells of the error and returns the exit code. `document` is what the user had written."""
    match error:
        case DocumentInvalid(problems=problems):
            for problem in problems:
                _say(notes, str(problem), problem.remedy)
        case NoCapacity(shortfalls=shortfalls, explanation=explanation):
            _say(notes, f"it does not fit [{error.reason}]")
            print_table(notes, shortfall_table(shortfalls))
            for field in dict.fromkeys(each.field for each in shortfalls if each.field):
                notes.print(styled(f"asked for in {_place(field, document)}"), soft_wrap=True)
            for line in explained(explanation, lambda field: _place(field, document)):
                notes.print(styled(line), soft_wrap=True)
            if not explanation.counter_offers:
                _say_remedy(notes, REMEDIES[error.reason])
        case FieldInvalid(field=field, problem=problem):
            place = _place(field, document)
            remedy = "" if ";" in problem else REMEDIES[error.reason]
            text = f"{problem} [{error.reason}]"
            _say(notes, f"{place}: {text}" if place else text, remedy)
        case ImageNotReady(field=field) if field:
            text = f"{_place(field, document)}: {error} [{error.reason}]"
            _say(notes, text, REMEDIES[error.reason])
        case DomainError():
            _say(notes, f"{error} [{error.reason}]", REMEDIES.get(error.reason, ""))
        case ConfigMissing() | ConfigInvalid() | EndpointUnknown():
            _say(notes, str(error), error.remedy)
            return USAGE
        case ClientError() | ClusterFailed():
            _say(notes, str(error), error.remedy)
        case Refused():
            _say(notes, str(error), error.remedy)
            return error.exit_code
        case KeyboardInterrupt():
            return INTERRUPTED
        case TimeoutError():
            _say(notes, "no answer in time", "Try again.")
        case OSError():
            _say(notes, _of_system(error))
        case _:
            _say(
                notes,
                f"{type(error).__name__}: {error}",
                "This is a fault of the command itself: please report it with what you typed.",
            )
    return FAILURE


def _place(field: str, document: Document | None) -> str:
    """A field as the user wrote it, with its line where there is one."""
    line = document.line_of(field) if document else 0
    return f"{field.removeprefix('spec.')} (line {line})" if line else field


def _of_system(error: OSError) -> str:
    problem = (error.strerror or str(error)).lower()
    return f"{error.filename}: {problem}" if error.filename else problem


def _say(notes: Console, problem: str, remedy: str = "") -> None:
    notes.print(styled("error: ", "bold red") + styled(problem), soft_wrap=True)
    _say_remedy(notes, remedy)


def _say_remedy(notes: Console, remedy: str) -> None:
    if remedy:
        notes.print(styled("Try: ", "bold") + styled(remedy), soft_wrap=True)


def shortfall_table(shortfalls: Iterable[Shortfall]) -> Table:
    """Site by site, what was short, by how much and, where that is known, until when."""
    shortfalls = list(shortfalls)
    told = any(each.until for each in shortfalls)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("SITE", "WHERE", "GROUP", "RESOURCE"):
        table.add_column(title)
    table.add_column("WANTED", justify="right")
    table.add_column("AVAILABLE", justify="right")
    if told:
        table.add_column("ENOUGH FROM")
    table.add_column("")
    by_site: Callable[[Shortfall], str] = lambda each: each.site  # noqa: E731
    for site, of_site in groupby(sorted(shortfalls, key=by_site), key=by_site):
        for index, each in enumerate(of_site):
            *amounts, sentence = _amounts(each)
            table.add_row(
                styled("" if index else site or "(all)"),
                styled(_where(each)),
                styled(each.group),
                styled(each.resource),
                *amounts,
                *([instant(each.until) if each.until else ""] if told else []),
                sentence,
            )
    return table


def _where(short: Shortfall) -> str:
    if short.peer:
        return f"link to {short.peer}"
    return short.host


def _amounts(short: Shortfall) -> tuple[str, str, str]:
    """Numbers where there are some, else the sentence."""
    if short.unit or short.wanted:
        return quantity(short.wanted, short.unit), quantity(short.available, short.unit), ""
    return "", "", shown(short.message or "missing")
