"""Values that follow files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from intertie.common.followed import LOOK_S, Followed
from tests.fakes.clock import FakeClock
from tests.unit.common.builders import NOW


class Place:
    """A file, what is made of it, and what was complained of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock(NOW)
        self.problems: list[str] = []
        path.write_bytes(b"one")
        self.followed = Followed(
            (path,), self.make, self.clock, refused=lambda error: self.problems.append(str(error))
        )

    @staticmethod
    def make(contents: tuple[bytes, ...]) -> list[bytes]:
        if contents == (b"bad",):
            raise ValueError("it is bad")
        return list(contents)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "file")


async def test_it_is_the_same_object_until_the_file_is_another(place: Place) -> None:
    first = place.followed.now()
    await place.clock.advance(10 * LOOK_S)
    assert place.followed.now() is first
    place.path.write_bytes(b"two")
    await place.clock.advance(LOOK_S)
    assert place.followed.now() == [b"two"]


async def test_files_are_looked_at_once_a_second_or_when_it_is_asked_for(place: Place) -> None:
    place.path.write_bytes(b"two")
    await place.clock.advance(LOOK_S / 2)
    assert place.followed.now() == [b"one"]
    assert place.followed.now(at_once=True) == [b"two"]


async def test_a_file_of_the_same_size_and_date_is_seen_too(place: Place) -> None:

    before = place.path.stat()
    place.path.write_bytes(b"two")
    os.utime(place.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert place.followed.now(at_once=True) == [b"two"]


async def test_what_cannot_be_used_changes_nothing_is_told_once_and_tried_again(
    place: Place,
) -> None:
    first = place.followed.now()
    for spoil in (lambda: place.path.write_bytes(b"bad"), place.path.unlink):
        spoil()
        for _ in range(3):
            assert place.followed.now(at_once=True) is first
    assert place.problems == ["it is bad"]
    place.path.write_bytes(b"one")
    assert place.followed.now(at_once=True) is first
    place.path.write_bytes(b"bad")
    assert place.followed.now(at_once=True) is first
    assert place.problems == ["it is bad", "it is bad"]
    place.path.write_bytes(b"two")
    assert place.followed.now(at_once=True) == [b"two"]


def test_without_a_first_value_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Followed((tmp_path / "none",), Place.make, FakeClock(NOW))
