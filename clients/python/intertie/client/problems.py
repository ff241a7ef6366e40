"""What is wrong with a document, said so that it can be mended without reading the code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, and where."""

    path: str
    """As in `groups[1].allocation.vcpus`; empty for the document as a whole."""
    line: int
    """Counted from 1; 0 where there is none."""
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        place = self.path or "document"
        if self.line:
            place += f" (line {self.line})"
        return f"{place}: {self.text}"


class DocumentInvalid(ValueError):
    """The document cannot be read as a cluster; `problems` has all that was found."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems
