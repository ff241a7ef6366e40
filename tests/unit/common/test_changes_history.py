"""Tokens, and the history that readers are positions in."""

from __future__ import annotations

import pytest

from intertie.common.changes.history import Event, History, Shown
from intertie.common.changes.positions import Mark, Position, decode, encode
from intertie.common.errors import FieldInvalid

SCOPE = "sites/north/tenants/demo"


def shown(name: str, tenant: str = "demo", weight: int = 1) -> Shown:
    return Shown(name=name, uid=f"u-{name}", tenant=tenant, weight=weight, make=name.encode)


def test_a_token_says_where_its_reader_was() -> None:
    for mark in (
        Mark(0, Position(1)),
        Mark((1 << 64) - 1, Position((1 << 63) - 1, "sites/north/tenants/demo/clusters/ä")),
    ):
        assert decode(encode(mark, SCOPE), SCOPE) == mark


@pytest.mark.parametrize("other", ["sites/south/tenants/demo", "sites/north/tenants/other", ""])
def test_a_token_of_another_watch_is_refused(other: str) -> None:
    token = encode(Mark(7, Position(9)), SCOPE)
    with pytest.raises(FieldInvalid) as caught:
        decode(token, other)
    assert caught.value.field == "resume_token"
    assert "leave it out" in caught.value.problem


def test_what_is_no_token_is_refused() -> None:
    token = encode(Mark(7, Position(9, "a")), SCOPE)
    spoilt = [token[:-1], token[1:], token + "A", token.swapcase(), "x", "%", "ä", "A" * 5000]
    spoilt += [token[:5] + ("A" if token[5] != "A" else "B") + token[6:]]
    for each in spoilt:
        with pytest.raises(FieldInvalid):
            decode(each, SCOPE)


def test_a_history_tells_what_is_behind_a_position() -> None:
    history = History(4)
    history.take(5, [Event(5, shown("a")), Event(5, shown("b", "other"))])
    history.take(6, [])
    history.take(7, [Event(7, shown("b"))])
    assert history.end == Position(8)

    def names(position: Position, tenant: str = "", most: int = 9) -> list[tuple[int, str]]:
        found = history.after(position, tenant, most=most)
        return [(each.revision, each.shown.name) for each in found]

    assert names(Position(5)) == [(5, "a"), (5, "b"), (7, "b")]
    assert names(Position(5, "a")) == [(5, "b"), (7, "b")]
    assert names(Position(5), "demo") == [(5, "a"), (7, "b")]
    assert names(Position(5), most=2) == [(5, "a"), (5, "b")]
    assert names(Position(6)) == names(Position(7)) == [(7, "b")]
    assert names(Position(8)) == names(Position(20)) == []
    assert not history.covers(Position(4, "z"))
    assert history.covers(Position(5))


def test_the_last_of_a_revision_leaves_nothing_of_it() -> None:
    history = History(1)
    events = [Event(2, shown("a")), Event(2, shown("b"))]
    history.take(2, events)
    assert [each.behind for each in events] == [Position(2, "a"), Position(3)]


@pytest.mark.parametrize(("most", "most_weight"), [(2, 1000), (1000, 20)])
def test_a_history_forgets_the_oldest(most: int, most_weight: int) -> None:
    history = History(1, most=most, most_weight=most_weight)
    for number in range(2, 6):
        history.take(number, [Event(number, shown("a", weight=10))])
    assert history.full
    assert history.begin == Position(4)
    assert [each.revision for each in history.after(Position(4), "", most=9)] == [4, 5]


def test_a_revision_comes_once_and_in_order() -> None:
    history = History(3)
    with pytest.raises(ValueError, match="revision 3 after 3"):
        history.take(3, [])


def test_a_message_is_made_once_and_then_what_it_is_made_of_goes() -> None:
    made: list[int] = []

    def make() -> bytes:
        made.append(1)
        return b"x"

    it = Shown(name="a", uid="", tenant="", weight=1, make=make)
    assert it.octets() == it.octets() == b"x"
    assert made == [1]
    assert it._make is None
