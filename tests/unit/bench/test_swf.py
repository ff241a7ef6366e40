"""Traces as they are written: a line a job, or a reservation."""

import pytest

from bench.swf import read_injected, read_swf
from intertie.common.errors import FieldInvalid

SWF = """\
; Version: 2
22 3179 6 45 32 0.03 -1 4 64800 -1 1 96 -1 -1 3 -1 -1 -1

21 2597 31 7914 512 3903 -1 64 64500 -1 1 14 -1 -1 3 -1 -1 -1
23 3200 5 0 8 -1 -1 1 600 -1 5 29 -1 -1 3 -1 -1 -1
24 3201 5 -1 8 -1 -1 1 600 -1 5 29 -1 -1 3 -1 -1 -1
25 3300 5 650 8 -1 -1 1 600 -1 1 29 -1 -1 3 -1 -1 -1
"""

LWF = """\
0 0 10728 10728 27 1 1024 0 'NONE.img' 600
3147 89547 11574 9000 26 1 1024 0 'NONE.img' 600
"""


def test_jobs_that_ran_are_read_by_submit_time() -> None:
    jobs = read_swf(SWF.splitlines())
    assert [(job.name, job.submit_s, job.run_s, job.nodes) for job in jobs] == [
        ("21", 2597, 7914, 64),
        ("22", 3179, 45, 4),
        ("25", 3300, 650, 1),
    ]


def test_the_estimate_is_the_larger_of_run_time_and_request() -> None:
    assert [job.estimate_s for job in read_swf(SWF.splitlines())] == [64500, 64800, 650]


def test_reservations_have_a_window_and_a_real_duration() -> None:
    first, second = read_injected(LWF.splitlines())
    assert (first.submit_s, first.start_s, first.duration_s, first.nodes) == (0, 0, 10728, 27)
    assert (second.submit_s, second.start_s, second.real_s) == (3147, 89547, 9000)
    assert first.name != second.name


@pytest.mark.parametrize(
    ("text", "problem"),
    [("1 2 3", "line 1: has 3 fields"), ("1 x 3 4 5 6 7 8 9", "line 1, field 2: is 'x'")],
)
def test_a_line_that_is_none_is_named(text: str, problem: str) -> None:
    with pytest.raises(FieldInvalid, match=problem):
        read_swf([text])


def test_a_reservation_of_too_few_fields_is_named() -> None:
    with pytest.raises(FieldInvalid, match="line 1: has 4 fields"):
        read_injected(["1 2 3 4"])
