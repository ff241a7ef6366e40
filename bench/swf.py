"""Reads traces: jobs in the Standard Workload Format, and reservations to inject."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from intertie.common.errors import FieldInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A best-effort lease of a trace."""

    name: str
    submit_s: int
    run_s: int
    """How long it really runs; the scheduler does not know."""
    nodes: int
    requested_s: int

    @property
    def estimate_s(self) -> int:
        """Jobs outrun what they asked for, and are not killed for it."""
        return max(self.run_s, self.requested_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """An advance reservation of a trace."""

    name: str
    submit_s: int
    start_s: int
    duration_s: int
    real_s: int
    nodes: int


def read_swf(lines: Iterable[str]) -> list[Job]:
    """The jobs by submit time. Left out: those with no run time (cancelled in the queue).
    FieldInvalid names the line and the field."""
    jobs = []
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or fields[0].startswith(";"):
            continue
        if len(fields) < 9:
            raise FieldInvalid(f"line {number}", f"has {len(fields)} fields; must have 9 or more")
        job = Job(
            name=fields[0],
            submit_s=_number(number, "2", fields[1]),
            run_s=_number(number, "4", fields[3]),
            nodes=_number(number, "8", fields[7]),
            requested_s=_number(number, "9", fields[8]),
        )
        if job.run_s > 0:
            jobs.append(job)
    return sorted(jobs, key=lambda job: job.submit_s)


def read_injected(lines: Iterable[str]) -> list[Injected]:
    """The reservations by submit time; each is named for its line."""
    found = []
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or fields[0].startswith(("#", ";")):
            continue
        if len(fields) < 5:
            raise FieldInvalid(f"line {number}", f"has {len(fields)} fields; must have 5 or more")
        submit, start, duration, real, nodes = (
            _number(number, str(place), text) for place, text in enumerate(fields[:5], 1)
        )
        found.append(
            Injected(
                name=f"ar{number}",
                submit_s=submit,
                start_s=start,
                duration_s=duration,
                real_s=real,
                nodes=nodes,
            )
        )
    return sorted(found, key=lambda injected: injected.submit_s)


def _number(line: int, field: str, text: str) -> int:
    """Whole seconds or nodes; a part of a second is dropped."""
    try:
        return int(float(text))
    except ValueError:
        problem = f"is {text!r}; must be a number"
        raise FieldInvalid(f"line {line}, field {field}", problem) from None
