"""Pages: complete, in order, stable under change, and no one else's."""

import pytest
from google.protobuf.wrappers_pb2 import BytesValue

from intertie.common.errors import FieldInvalid
from intertie.common.rpc.pages import MAX_PAGE_BYTES, decode, encode, fitting, page_of, size_of


def pages(items: list[str], size: int) -> list[list[str]]:
    found, token = [], ""
    while True:
        page, token = page_of(items, str, size=size, token=token, scope="x")
        found.append(page)
        if not token:
            return found


def test_all_items_come_once_in_the_order_of_their_keys() -> None:
    assert pages(["c", "a", "b"], 2) == [["a", "b"], ["c"]]
    assert pages(["a", "b"], 2) == [["a", "b"]]
    assert pages([], 2) == [[]]


def test_what_stays_is_seen_once_whatever_comes_and_goes() -> None:
    first, token = page_of(["a", "c", "e"], str, size=2, token="", scope="x")
    second, _ = page_of(["b", "c", "d", "e"], str, size=2, token=token, scope="x")
    assert (first, second) == (["a", "c"], ["d", "e"])


def test_sizes() -> None:
    assert [size_of(0), size_of(1), size_of(1000), size_of(9999)] == [100, 1, 1000, 1000]
    with pytest.raises(FieldInvalid):
        size_of(-1)


def test_a_token_is_good_for_its_own_list_only() -> None:
    token = encode("é/key", "clusters of demo")
    assert decode(token, "clusters of demo") == "é/key"
    assert decode("", "anything") == ""
    for bad in (token[:-2], token + "AA", "x", "!!!", "é", token.swapcase()):
        with pytest.raises(FieldInvalid, match="page one"):
            decode(bad, "clusters of demo")
    with pytest.raises(FieldInvalid):
        decode(token, "clusters of other")


def test_a_page_ends_before_it_is_larger_than_an_answer_may_be() -> None:
    """A bug: a page was bounded by count alone, and a list of large clusters could not be had."""
    large = BytesValue(value=bytes(MAX_PAGE_BYTES // 2 - 100))
    page, token = fitting([(key, large) for key in "abcd"], "", scope="x")
    assert len(page) == 2
    assert decode(token, "x") == "b"
    assert fitting([("c", large), ("d", large)], "", scope="x") == ([large, large], "")
    huge = BytesValue(value=bytes(2 * MAX_PAGE_BYTES))
    page, token = fitting([("a", huge), ("b", large)], "last", scope="x")
    assert (page, decode(token, "x")) == ([huge], "a")
