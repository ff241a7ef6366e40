"""What a checker says is read rightly: a search that ended early is none that found nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.checker import checker, search, search_of
from tests.model.models import COMMIT

COUNTS = """\
byte count;
bool small = true;
active proctype Up() {
  do
  :: d_step { count < 100 -> count++ }
  :: d_step { count == 70 -> small = false; assert(small); small = true; count++ }
  od
}
"""


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    """The checker of a model that breaks its one promise and then stands still."""
    model = tmp_path / "counts.pml"
    model.write_text(COUNTS)
    return checker(tmp_path, model)


def test_a_failure_is_read_from_what_a_checker_says(counts: Path) -> None:
    every = search(counts, "-c0")
    assert every.broken == {"small", "invalid end state"}
    assert every.errors == 2
    assert every.whole


def test_a_search_that_stopped_is_not_whole(counts: Path) -> None:
    first = search(counts, "-c1")
    assert first.errors == 1
    assert not first.whole


def test_a_search_that_was_not_deep_enough_is_not_whole(counts: Path) -> None:
    """It finds no error, and that says nothing."""
    shallow = search(counts, "-c0", depth=50)
    assert shallow.errors == 0
    assert not shallow.whole


def test_a_search_that_had_too_little_memory_is_not_whole(tmp_path: Path) -> None:
    small = search(checker(tmp_path, COMMIT.path, memory_mib=140))
    assert small.errors == 0
    assert not small.whole


def test_what_is_no_search_is_not_read() -> None:
    with pytest.raises(ValueError, match="no summary"):
        search_of("pan: cannot open\n")
