from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from testbed import toml


def test_what_is_written_is_read_back() -> None:
    table = {
        "text": 'quote " backslash \\ ü',
        "count": 3,
        "share": 0.5,
        "yes": True,
        "names": ["a", "b"],
        "nothing": [],
        "inner": {"deep": {"x": 1}, "y": 2},
        "rows": [{"k": 1, "sub": {"z": 2}}, {"k": 2}],
    }
    assert tomllib.loads(toml.dumps(table)) == table


def test_paths_are_text_and_none_is_left_out() -> None:
    assert tomllib.loads(toml.dumps({"p": Path("/a"), "n": None})) == {"p": "/a"}


def test_what_toml_has_no_word_for_is_refused() -> None:
    with pytest.raises(TypeError):
        toml.dumps({"x": object()})
