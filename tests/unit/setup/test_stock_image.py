"""Where the stock image's packages come from."""

from pathlib import Path

import pytest

from setup.stock_image import BuildFailed, debian_sources

DEBIAN = """Types: deb
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main
"""


def written(folder: Path, **lists: str) -> Path:
    (folder / "sources.list.d").mkdir()
    for name, text in lists.items():
        (folder / "sources.list.d" / name.replace("_", ".")).write_text(text)
    return folder


def test_they_are_debian_s_alone(tmp_path: Path) -> None:
    """What a machine has beside them may bring packages of the same names."""
    folder = written(
        tmp_path,
        debian_sources=DEBIAN,
        cloud_list="deb https://packages.example.org/apt cloud-sdk-bookworm main\n",
        node_sources=DEBIAN.replace("bookworm bookworm-updates", "nodistro"),
    )
    (folder / "sources.list").write_text("")
    assert [each.name for each in debian_sources(folder)] == ["debian.sources"]


def test_a_line_of_the_old_form_is_one_too(tmp_path: Path) -> None:
    folder = written(tmp_path, old_list="deb [arch=amd64] http://deb.debian.org/debian bookworm\n")
    assert [each.name for each in debian_sources(folder)] == ["old.list"]


def test_a_machine_without_any_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="names bookworm"):
        debian_sources(written(tmp_path, other_list="deb http://deb.debian.org/debian trixie main"))
