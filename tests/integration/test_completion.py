"""Completion in a real shell, installed as README says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Of somebody who has just installed it."""
    bash(tmp_path, "intertie --install-completion")
    return tmp_path


def bash(home: Path, script: str) -> list[str]:
    """The lines that it writes. What follows the script keeps bash from becoming its last command:
    the command looks for the shell that it was started from."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "--norc", "-e", "-c", f"{script}\ntrue"],
        env={"HOME": str(home), "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("pl", ["plan"]),
        ("cluster cr", ["create"]),
        ("cluster up", ["update"]),
        ("cluster update --du", ["--duration"]),
        ("cluster create --val", ["--validate-only"]),
        ("image ", ["delete", "list", "put", "show"]),
        ("image list -o y", ["yaml"]),
    ],
)
def test_what_is_typed_is_completed(home: Path, typed: str, offered: list[str]) -> None:
    words = " ".join(f"'{word}'" for word in ["intertie", *typed.split(" ")])
    lines = bash(
        home,
        f"""
        source ~/.bashrc
        completer=$(complete -p intertie | sed 's/.* -F \\([^ ]*\\) intertie$/\\1/')
        COMP_WORDS=({words})
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        $completer intertie
        printf '%s\\n' "${{COMPREPLY[@]}}"
        """,
    )
    assert sorted(lines) == offered
