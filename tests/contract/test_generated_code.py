"""What is checked in below services/api is what protos/ generate, no more and no less."""

from pathlib import Path

import setup.protos as protos


def _texts(tree: Path) -> dict[str, str]:
    return {
        str(path.relative_to(tree)): path.read_text()
        for path in sorted(tree.rglob("*_pb2*.py*"))
        if path.suffix in (".py", ".pyi")
    }


def test_generated_code_is_current(tmp_path: Path) -> None:
    protos.generate(tmp_path)
    fresh, checked_in = _texts(tmp_path), _texts(protos.GENERATED)
    assert fresh, "nothing was generated"
    assert set(checked_in) == set(fresh), "run `make protos`"
    stale = [name for name, text in fresh.items() if checked_in[name] != text]
    assert not stale, f"run `make protos`: {stale}"
