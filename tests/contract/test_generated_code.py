"""What is checked in below services/api is what protos/ generate, no more and no less.

Generated in a process of its own: libraries bring protos of the same names, and which of them
are found depends on what was imported before.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from setup import protos


def _generate(output: Path) -> dict[str, str]:
    command = [sys.executable, "-m", "setup.protos", str(output)]
    subprocess.run(command, cwd=protos.ROOT, check=True)
    return _texts(output)


def _texts(tree: Path) -> dict[str, str]:
    return {
        str(path.relative_to(tree)): path.read_text()
        for path in sorted(tree.rglob("*_pb2*.py*"))
        if path.suffix in (".py", ".pyi")
    }


def _differences(checked_in: dict[str, str], fresh: dict[str, str]) -> list[str]:
    names = sorted(checked_in.keys() | fresh.keys())
    return [name for name in names if checked_in.get(name) != fresh.get(name)]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return _generate(tmp_path_factory.mktemp("api"))


def test_generated_code_is_current(fresh: dict[str, str]) -> None:
    assert fresh, "nothing was generated"
    assert not _differences(_texts(protos.GENERATED), fresh), "run `make protos`"


def test_a_file_too_few_too_many_or_edited_is_noticed(fresh: dict[str, str]) -> None:
    name = next(iter(fresh))
    assert _differences(fresh | {name: fresh[name] + "#"}, fresh) == [name]
    assert _differences(fresh | {"old_pb2.py": ""}, fresh) == ["old_pb2.py"]
    assert _differences({key: fresh[key] for key in fresh if key != name}, fresh) == [name]
