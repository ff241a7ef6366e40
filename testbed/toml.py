"""Writing TOML: as much of it as configuration files of services need."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path


def dumps(table: Mapping[str, object]) -> str:
    """Values first, then tables, each under its header; None values are left out."""
    return "\n".join(_table(table, ())).strip() + "\n"


def _table(table: Mapping[str, object], path: tuple[str, ...]) -> list[str]:
    lines = []
    later: list[tuple[str, object]] = []
    for name, value in table.items():
        if isinstance(value, Mapping) or _is_tables(value):
            later.append((name, value))
        elif value is not None:
            lines.append(f"{name} = {_value(value)}")
    for name, value in later:
        here = (*path, name)
        if isinstance(value, Mapping):
            lines += ["", f"[{'.'.join(here)}]", *_table(value, here)]
        elif isinstance(value, Sequence):
            for each in value:
                lines += ["", f"[[{'.'.join(here)}]]", *_table(each, here)]
    return lines


def _is_tables(value: object) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str() | Path():
            return json.dumps(str(value), ensure_ascii=False)
        case list() | tuple():
            return "[" + ", ".join(_value(each) for each in value) + "]"
        case _:
            raise TypeError(f"not for TOML: {value!r}")
