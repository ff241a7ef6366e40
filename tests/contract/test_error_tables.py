"""The error tables in the protos' comments against the errors that there are.

A method's comment has the rows of its own, a service's leading comment those that every one of its
methods may answer.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from intertie.common import errors
from intertie.common.rpc.errors import CODES

PROTOS = Path(__file__).parents[2] / "protos"
HEAD = ["Condition", "Code", "Reason", "Caller"]
_SERVICE = re.compile(r"service (\w+) \{")
_METHOD = re.compile(r"rpc (\w+)\(")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    place: str
    condition: str
    code: str
    reason: str
    caller: str


@dataclass(slots=True, kw_only=True)
class Service:
    every: list[Row]
    """What all its methods may answer."""
    methods: dict[str, list[Row]] = field(default_factory=dict)


def services_in(text: str, source: str) -> dict[str, Service]:
    """By name. A comment belongs to the `service` or `rpc` on the line below it; a table of a
    comment that stands elsewhere is an error, for nobody would find it."""
    found: dict[str, Service] = {}
    comment: list[str] = []
    inside: Service | None = None
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if line.startswith("//"):
            comment.append(line.removeprefix("//").strip())
            continue
        place = f"{source}:{number}"
        if begins := _SERVICE.match(line):
            inside = Service(every=list(_rows(comment, place)))
            found[begins[1]] = inside
        elif (begins := _METHOD.match(line)) and inside is not None:
            inside.methods[begins[1]] = list(_rows(comment, f"{place} {begins[1]}"))
        elif list(_rows(comment, place)):
            raise ValueError(f"{place}: a table that belongs to no service and no method")
        comment = []
    return found


def _rows(comment: list[str], place: str) -> Iterator[Row]:
    lines = [line for line in comment if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    if not cells:
        return
    if cells[0] != HEAD or any(set(cell) != {"-"} for cell in cells[1]) or len(cells) < 3:
        raise ValueError(f"{place}: a table reads {' | '.join(HEAD)}, a rule, and its rows")
    for row in cells[2:]:
        if len(row) != len(HEAD) or not all(row):
            raise ValueError(f"{place}: {row} has not {len(HEAD)} cells")
        condition, code, reason, caller = row
        yield Row(place=place, condition=condition, code=code, reason=reason, caller=caller)


def _services() -> dict[str, Service]:
    found: dict[str, Service] = {}
    for path in sorted(PROTOS.rglob("*.proto")):
        found |= services_in(path.read_text(), str(path.relative_to(PROTOS)))
    return found


def _all_rows() -> list[Row]:
    return [
        row
        for service in _services().values()
        for rows in (service.every, *service.methods.values())
        for row in rows
    ]


def wrong_in(rows: list[Row]) -> list[str]:
    """Rows whose reason is not one, or goes by another code."""
    code_of = {kind.reason: code.name for kind, code in CODES.items()}
    return [
        f"{row.place}: {row.code} / {row.reason}, the errors' table says {code_of.get(row.reason)}"
        for row in rows
        if code_of.get(row.reason) != row.code
    ]


def test_every_service_and_method_is_read() -> None:
    services = _services()
    assert len(services) == 10
    assert sum(len(service.methods) for service in services.values()) > 30


def test_rows_say_what_the_errors_say() -> None:
    assert wrong_in(_all_rows()) == []


def test_every_reason_stands_in_a_table() -> None:
    reasons = {each.reason for each in _kinds(errors.DomainError)}
    assert reasons - {row.reason for row in _all_rows()} == set()


def test_every_error_has_a_code() -> None:
    assert set(_kinds(errors.DomainError)) == set(CODES)


def test_every_method_has_a_table_of_its_own_or_of_its_service() -> None:
    bare = [
        f"{name}.{method}"
        for name, service in _services().items()
        for method, rows in service.methods.items()
        if not rows and not service.every
    ]
    assert bare == []


def test_every_service_says_who_may_not_call() -> None:
    for name, service in _services().items():
        assert {"IDENTITY_UNKNOWN", "ROLE_DENIED"} <= {row.reason for row in service.every}, name


def test_a_method_does_not_say_one_condition_twice() -> None:
    for name, service in _services().items():
        for method, rows in service.methods.items():
            conditions = [row.condition for row in rows]
            assert len(set(conditions)) == len(conditions), f"{name}.{method}"


def test_a_row_with_a_wrong_code_or_an_unknown_reason_is_found() -> None:
    found = services_in(_proto("NOT_FOUND | STORE_FULL", "NOT_FOUND | NO_SUCH_REASON"), "x.proto")
    assert [each.partition(",")[0] for each in wrong_in(found["Things"].methods["Get"])] == [
        "x.proto:6 Get: NOT_FOUND / STORE_FULL",
        "x.proto:6 Get: NOT_FOUND / NO_SUCH_REASON",
    ]


@pytest.mark.parametrize("row", ["NOT_FOUND", "NOT_FOUND | NOT_FOUND | more", " | NOT_FOUND"])
def test_a_row_of_another_shape_is_refused(row: str) -> None:
    with pytest.raises(ValueError, match="cells"):
        services_in(_proto(row), "x.proto")


def test_a_table_of_nothing_is_refused() -> None:
    text = _proto("NOT_FOUND | NOT_FOUND").replace("rpc Get(", "message Get(")
    with pytest.raises(ValueError, match="belongs to no service"):
        services_in(text, "x.proto")


def _proto(*rows: str) -> str:
    lines = ["// | Condition | Code | Reason | Caller |", "// |---|---|---|---|"]
    lines += [f"// | it is so | {row} | gives up |" for row in rows]
    return "\n".join(["service Things {", *lines, "rpc Get(A) returns (B);", "}"])


def _kinds(base: type[errors.DomainError]) -> Iterator[type[errors.DomainError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)
