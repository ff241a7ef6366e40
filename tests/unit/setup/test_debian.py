"""The list of Debian packages."""

from setup.debian import wanted_packages


def test_comments_and_empty_lines_are_no_packages() -> None:
    assert wanted_packages("# why\nspin\n\ngcc # compiles\n") == ["spin", "gcc"]
