"""Request ids: kept when they are well-formed, drawn when they are not."""

import pytest

from intertie.common.rpc.request_id import METADATA_KEY, received


def test_a_callers_id_is_kept() -> None:
    assert received([("x", "y"), (METADATA_KEY, "a.B-1_2")]) == "a.B-1_2"


@pytest.mark.parametrize("bad", ["", "a b", "x" * 65, 'a"b', "a\nb", b"bytes"])
def test_what_is_not_fit_for_a_log_is_replaced(bad: object) -> None:
    drawn = received([(METADATA_KEY, bad)])
    assert drawn != bad
    assert len(drawn) == 16


def test_each_request_without_one_gets_its_own() -> None:
    assert received(None) != received(None)
