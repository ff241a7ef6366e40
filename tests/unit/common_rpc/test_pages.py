"""Pages: complete, in order, stable under change, and no one else's."""

import pytest

from intertie.common.errors import FieldInvalid
from intertie.common.rpc.pages import decode, encode, page_of, size_of


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
