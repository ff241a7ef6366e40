"""The clients in other languages: built once for what they are made of, and run."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
BUILDS = TREE / "build" / "clients"
BUILD_WITHIN_S = 600
PROGRAMS = {"node": "tour.js", "cpp": "tour", "ruby": "tour.rb", "go": "tour"}
"""What each folder of `clients/` builds."""
LANGUAGES = [
    "node",
    "cpp",
    pytest.param("ruby", marks=pytest.mark.more_clients),
    pytest.param("go", marks=pytest.mark.more_clients),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """Who the caller is, and by which roots it trusts the service."""

    certificate: Path
    key: Path
    roots: Path
    server_name: str


def arguments(address: str, credential: Credential, *, name: str, image: str) -> list[str]:
    """The same for every program."""
    return [
        *("--address", address, "--server-name", credential.server_name),
        *("--ca", str(credential.roots), "--cert", str(credential.certificate)),
        *("--key", str(credential.key), "--name", name, "--image", image),
    ]


@cache
def build(language: str) -> Path:
    """The program, made in a folder that is named by what goes into it."""
    folder = BUILDS / f"{language}-{_digest(language)}"
    BUILDS.mkdir(parents=True, exist_ok=True)
    with (BUILDS / f"{language}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _make(language, folder)
        for older in BUILDS.glob(f"{language}-*"):
            if older != folder:
                shutil.rmtree(older)
    return folder / PROGRAMS[language]


def _make(language: str, folder: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    environment |= {"GOCACHE": str(BUILDS / "cache-of-go"), "CXXFLAGS": "-O0"}
    made = subprocess.run(
        [
            "make",
            f"--jobs={os.cpu_count() or 1}",
            f"--directory={TREE / 'clients' / language}",
            f"BUILD={folder}",
        ],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_WITHIN_S,
        check=False,
    )
    assert made.returncode == 0, f"clients/{language} cannot be built:\n{made.stdout[-4000:]}"


def _digest(language: str) -> str:
    digest = hashlib.sha256()
    for path in _sources(language):
        digest.update(f"{path.relative_to(TREE)}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _sources(language: str) -> Iterator[Path]:
    yield TREE / "clients" / "protos.mk"
    for folder in (TREE / "clients" / language, TREE / "protos"):
        yield from sorted(path for path in folder.rglob("*") if path.is_file())
