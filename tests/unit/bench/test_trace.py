"""A small trace from its files to its figures."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import trace
from bench.plots import hourly
from bench.replay import replay
from bench.swf import Injected, Job
from intertie.common.leasing.policies import DEFAULT, POLICIES

JOBS = [
    Job(name="1", submit_s=0, run_s=100, nodes=2, requested_s=200),
    Job(name="2", submit_s=10, run_s=5, nodes=2, requested_s=50),
]
RESERVED = Injected(name="r", submit_s=0, start_s=150, duration_s=60, real_s=60, nodes=2)
SVG = "{http://www.w3.org/2000/svg}"
SWF = """\
1 0 -1 100 -1 -1 -1 2 200 -1 1
2 10 -1 5 -1 -1 -1 2 50 -1 1
"""


def test_jobs_end_after_their_run_time_and_not_after_their_request() -> None:
    """The second waits for the first, which ends at 100, and takes 5 s; so it took 95 s against
    the 10 s that bound a slowdown."""
    done = replay(JOBS, [], nodes=2, policy=POLICIES["aggressive-no-suspend"])
    assert [(one.first_start_s, one.end_s, one.wait_s) for one in done.outcomes] == [
        (0, 100, 0),
        (100, 105, 90),
    ]
    assert [one.slowdown() for one in done.outcomes] == [1.0, 9.5]


def test_what_is_suspended_has_waited_for_as_long_as_it_did_not_run() -> None:
    """Suspended from 29 to 50, for the reservation, and resumed from 110 to 131: of its 100 s it
    has 71 left then. It began at once, but has waited 102 s."""
    reserved = Injected(name="r", submit_s=5, start_s=50, duration_s=60, real_s=60, nodes=2)
    (one,) = replay(JOBS[:1], [reserved], nodes=2, policy=POLICIES["aggressive"]).outcomes
    assert (one.end_s, one.wait_s) == (202, 102)
    assert one.first_wait_s == 0
    assert one.suspends == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_every_job_ends_and_every_reservation_that_fits_is_accepted(policy: str) -> None:
    done = replay(JOBS, [RESERVED], nodes=2, policy=POLICIES[policy])
    assert all(one.end_s > 0 for one in done.outcomes)
    assert done.accepted == [RESERVED]
    assert done.busy[-1][1] == 0


def test_the_command_prints_every_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.swf").write_text(SWF)
    (tmp_path / "r.lwf").write_text("0 400 60 60 2 1 1024 0 'NONE.img' 600\n")
    folder = tmp_path / "plots"
    files = ["--swf", str(tmp_path / "small.swf"), "--inject", str(tmp_path / "r.lwf")]
    how = ["--nodes", "2", "--policy", "aggressive-no-suspend", "--plots", str(folder), "--json"]
    trace.main([*files, *how])
    printed = json.loads(capsys.readouterr().out)
    assert printed["mean_wait_s"] == 45.0
    assert printed["mean_slowdown"] == 5.25
    assert (printed["p95_wait_s"], printed["max_wait_s"]) == (90, 90)
    assert printed["completion_s"] == 105
    assert printed["utilization"] == 1.0
    assert (printed["ar_accepted"], printed["ar_total"]) == (1, 1)
    assert printed["mean_wait_s_paper"] == printed["mean_wait_s"]
    assert printed["wall_s"] >= 0
    assert {path.name for path in folder.iterdir()} == {"utilization.svg", "wait.svg"}
    dots = ElementTree.parse(folder / "wait.svg").getroot().iter(f"{SVG}circle")
    assert len(list(dots)) == len(JOBS)
    (line,) = ElementTree.parse(folder / "utilization.svg").getroot().iter(f"{SVG}polyline")
    assert line.get("points")


@pytest.mark.parametrize(
    ("text", "problem"), [("1 2 three\n", "line 1"), ("; Version: 2\n", "has no job that ran")]
)
def test_a_file_that_is_no_trace_is_said_to_be_none(
    text: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.swf").write_text(text)
    with pytest.raises(SystemExit):
        trace.main(["--swf", str(tmp_path / "bad.swf")])
    assert problem in capsys.readouterr().err


def test_without_the_traces_the_table_is_skipped_aloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace.run(quick=True, data=tmp_path)
    printed = capsys.readouterr()
    assert "SKIPPED" in printed.err
    assert json.loads(printed.out)["skipped"]


def test_hours_have_the_mean_of_what_was_held_in_them() -> None:
    assert hourly([(0, 2), (1800, 4), (5400, 0)], 7200) == [3.0, 2.0]


def test_the_default_is_a_policy() -> None:
    assert DEFAULT in POLICIES
