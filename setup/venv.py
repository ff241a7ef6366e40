"""The virtual environment in `.venv`, from requirements pinned by hash."""

import hashlib
import sys
from pathlib import Path

from setup.debian import logged

_INPUTS = ("requirements.txt", "pyproject.toml")


def is_current(tree: Path) -> bool:
    """Whether `.venv` was made whole, from the requirements that the tree has now."""
    stamp = _stamp(tree)
    return (
        stamp.exists()
        and stamp.read_text() == _digest(tree)
        and (tree / ".venv/bin/python").exists()
    )


def make(tree: Path) -> None:
    """Makes or completes it. Where packages come from is the machine's own pip configuration."""
    python = tree / ".venv/bin/python"
    if not python.exists():
        logged([sys.executable, "-m", "venv", "--clear", str(tree / ".venv")])
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    logged([*pip, "--require-hashes", "-r", "requirements.txt"], cwd=tree)
    logged([*pip, "--no-deps", "--no-build-isolation", "--editable", "."], cwd=tree)
    _stamp(tree).write_text(_digest(tree))


def _stamp(tree: Path) -> Path:
    return tree / ".venv/intertie-setup"


def _digest(tree: Path) -> str:
    """Of the inputs and of the place: an environment does not survive being moved."""
    digest = hashlib.sha256(f"{tree} {sys.version_info[:2]}\n".encode())
    for name in _INPUTS:
        digest.update(hashlib.sha256((tree / name).read_bytes()).digest())
    return digest.hexdigest() + "\n"
