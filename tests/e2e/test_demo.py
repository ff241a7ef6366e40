"""The newcomer's command: what it shows to its end, twice in a row, left up, and interrupted
wherever it is."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.__main__ import command_line
from testbed.bed import Testbed
from testbed.demo import DEFAULT_INSTANCE
from testbed.topology import default_topology
from tests.e2e.driver import type_on_console

pytestmark = [pytest.mark.root, pytest.mark.e2e]

INSTANCE = "demotest"
ROOT = Path(__file__).resolve().parents[2]
GUESTS = ("head-0", "worker-0", "worker-1", "worker-2")
HOSTS = ("north/n1", "north/n2", "south/s1", "south/s2")
MOMENTS = {
    "coming up": "come up on this machine",
    "images put": "is put into the store of each site",
    "cluster created": "planned, held and committed",
    "guests pinging": "Every guest pings every other",
    "being deleted": "The cluster is deleted",
}
FIRST = "cluster created"
"""The one that `make test` has."""


@pytest.fixture(autouse=True)
def nothing_before_and_after() -> Iterator[None]:
    bed = Testbed.create(default_topology(), INSTANCE)
    bed.down()
    yield
    left = bed.leftovers()
    bed.down()
    assert left == []


def start(log: Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "testbed.demo", "--instance", INSTANCE, *more],
        cwd=ROOT,
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def wait_for(log: Path, words: str, demo: subprocess.Popen[bytes], *, within_s: float) -> None:
    until = time.monotonic() + within_s
    while words not in log.read_text():
        assert demo.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)


def run(log: Path, *more: str) -> str:
    """All that the demo says, to its end."""
    demo = start(log, *more)
    code = demo.wait(timeout=400)
    assert code == 0, log.read_text()
    return log.read_text()


def under(said: str, title: str) -> list[str]:
    """The lines below a title, one blank between words. The next title follows an empty line and
    ends with the seconds."""
    _, found, rest = said.partition(title)
    assert found, f"no {title!r} in:\n{said}"
    own = re.split(r"\n\n[^\n]+  \(\d+ s\)\n", rest, maxsplit=1)[0]
    return [" ".join(line.split()) for line in own.splitlines()[1:]]


def found(pattern: str, lines: list[str]) -> list[re.Match[str]]:
    """Lines that are as the pattern, from their beginnings on."""
    return [match for line in lines if (match := re.match(pattern, line))]


def assert_it_shows_all(said: str) -> None:
    """What a newcomer is to see, up to the cluster's end."""
    seen = under(said, "Sites and hosts, as the meta-scheduler sees them")
    assert [match[1] for match in found(r"(\S+) 2/2 ", seen)] == ["north", "south"]
    assert [match[1] for match in found(r"(\S+/\S+) yes ", seen)] == list(HOSTS)

    plan = under(said, "What would go where, and why")
    assert found(r"north 1 head, \d worker 0\.\d+$", plan), plan
    assert found(r"south \d worker 0\.\d+$", plan), plan
    assert found(r"Starts .* no better plan exists\.$", plan), plan
    for why in ("north takes 1 head", "south takes ", "north and south exchange up to 20 Mbit/s"):
        assert found(f"- {why}", plan), plan

    made = under(said, "The cluster: planned, held and committed")
    place = r"(north|south) (\S+) (10\.1\.0\.\d+)/24 RUNNING yes$"
    guests = found(rf"(\S+) {place}", made)
    assert [match[1] for match in guests] == list(GUESTS)
    assert {match[2] for match in guests} == {"north", "south"}
    assert {f"{match[2]}/{match[3]}" for match in guests} <= set(HOSTS)
    assert len({match[4] for match in guests}) == len(GUESTS)
    for match in guests:
        assert f"{match[1]} {match[2]}/{match[3]} ready" in made

    pings = [line.split() for line in under(said, "Every guest pings every other") if line]
    assert pings[0] == ["PING", "ms", *GUESTS]
    assert [row[0] for row in pings[1:]] == list(GUESTS)
    for at, (_, *trips) in enumerate(pings[1:]):
        assert trips.pop(at) == "-"
        assert len([float(trip) for trip in trips]) == len(GUESTS) - 1

    assert_every_guarantee_is_kept(under(said, "What was promised, and what guests measure"))


def assert_every_guarantee_is_kept(lines: list[str]) -> None:
    """Of examples/two-sites.yaml: the head and each worker both ways, and every disk."""
    promises = {f"bandwidth head-0 to {worker}": "20 Mbit/s" for worker in GUESTS[1:]}
    promises |= {f"bandwidth {worker} to head-0": "20 Mbit/s" for worker in GUESTS[1:]}
    promises |= {f"disk reads {guest}": "150 IOPS" for guest in GUESTS}
    kept = found(r"(.+?) ((\d+) \S+) \d+ \S+ ([0-9.]+) \S+ kept", lines)
    assert {match[1]: match[2] for match in kept} == promises
    assert len(kept) == len(promises)
    assert all(float(match[4]) >= int(match[3]) for match in kept)


@pytest.mark.parametrize("number", ["first", pytest.param("second", marks=pytest.mark.more_guests)])
def test_the_demo_runs_to_its_end_and_again(
    tmp_path: Path, number: str, record_property: Callable[[str, object], None]
) -> None:
    said = run(tmp_path / f"{number}.log")
    assert_it_shows_all(said)
    ended = under(said, "The cluster is deleted, and nothing of it is left")
    assert found(r"Domains, .* of all 4 hosts .* are as they were before; all is free again", ended)
    assert "No process, namespace, mount or file of it is left on this machine." in said
    assert "BROKEN" not in said
    record_property("demo", said.rsplit("The demo took", 1)[1].strip())


@pytest.mark.more_guests
def test_the_demo_may_be_left_up(tmp_path: Path) -> None:
    """And is brought to the same end by what it says how to."""
    said = run(tmp_path / "demo.log", "--keep")
    assert_it_shows_all(said)
    talk_as_it_says(said)
    assert Testbed.create(default_topology(), INSTANCE).leftovers() == []


def talk_as_it_says(said: str) -> None:
    """Each of the lines that it prints does what it is there for."""
    export, listed, logged_in, console, deleted, down = under(said, "To talk to them:")

    def shell(command: str, *, typed: str = "") -> str:
        done = subprocess.run(
            ["sh", "-c", f"{export}\n{command}"],
            cwd=ROOT, input=typed, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    [cluster] = json.loads(shell(f"{listed} -o json"))
    assert (cluster["name"].rpartition("/")[2], cluster["state"]) == ("two-sites", "ACTIVE")
    assert shell(logged_in, typed="hostname\n") == "head-0\n"
    joined = subprocess.Popen(
        ["sh", "-c", f"{export}\nexec {console}"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert type_on_console(joined, "hostname", within_s=60) == "head-0\n"
    assert shell(deleted).endswith("/clusters/two-sites\n")
    assert json.loads(shell(f"{listed} -o json")) == []
    shell(down)


def test_make_leaves_the_demo_up_and_ends_it() -> None:
    """Both mean the same instance, and KEEP=1 is what leaves it up."""
    # What a make that runs the tests was told is not for this one.
    outer = ("MAKE", "MFLAGS", "KEEP")
    settings = {key: value for key, value in os.environ.items() if not key.startswith(outer)}

    def recipe(*words: str) -> list[str]:
        made = subprocess.run(
            ["make", "--no-print-directory", "-n", *words],
            cwd=ROOT, env=settings, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return shlex.split(made.stdout.splitlines()[-1])

    assert recipe("demo", "KEEP=1")[-3:] == ["-m", "testbed.demo", "--keep"]
    assert recipe("demo")[-2:] == ["-m", "testbed.demo"]
    assert recipe("down")[-3:] == ["-m", "testbed", "down"]
    assert command_line().parse_args(["down"]).instance == DEFAULT_INSTANCE


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=moment, marks=() if moment == FIRST else pytest.mark.more_guests)
        for moment, words in MOMENTS.items()
    ],
)
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, words: str) -> None:
    log = tmp_path / "demo.log"
    demo = start(log)
    try:
        wait_for(log, words, demo, within_s=240)
        # As a terminal does it: to everyone in the foreground.
        os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait(timeout=60) == 130, log.read_text()
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)
            demo.wait()
