"""What etcd's watch tells, made into whole revisions: nothing may be missing between them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from intertie.common.errors import EtcdUnavailable
from intertie.common.etcd.client import Compacted, Etcd, Revision

PUT, DELETE = 0, 1


class Watches:
    """Answers as the library gives them; `begun` is where a watch was to begin."""

    def __init__(self, *answers: Any) -> None:
        self._answers = answers
        self.begun = 0

    async def watch(self, start: bytes, end: bytes, first: int) -> AsyncGenerator[Any, None]:
        self.begun = first
        for each in self._answers:
            yield each


def answer(*events: tuple[int, int, str], **more: Any) -> Any:
    """Each event with its revision, its kind and its key."""
    told = {"created": False, "canceled": False, "compact_revision": 0, "cancel_reason": ""}
    return SimpleNamespace(
        **(told | more),
        events=[
            SimpleNamespace(
                type=kind,
                kv=SimpleNamespace(
                    key=f"/site/{key}".encode(),
                    value=b"x",
                    mod_revision=revision,
                    create_revision=revision,
                ),
            )
            for revision, kind, key in events
        ],
    )


async def told(*answers: Any) -> tuple[list[Revision], Exception]:
    """All that comes, and how it ends."""
    etcd = Etcd.__new__(Etcd)
    etcd._prefix = "/site/"
    etcd._watches = Watches(*answers)  # type: ignore[assignment]
    found: list[Revision] = []
    try:
        async for some in etcd.revisions(5):
            found += some
    except (EtcdUnavailable, Compacted) as error:
        return found, error
    raise AssertionError("a watch ends with an error")


async def test_events_of_one_transaction_come_together() -> None:
    batch = answer((5, PUT, "a"), (5, DELETE, "b"), (7, PUT, "a"))
    found, _ = await told(answer(created=True), batch, answer((8, PUT, "c")))
    assert [
        (each.number, [entry.key for entry in each.puts], list(each.deleted)) for each in found
    ] == [(5, ["a"], ["b"]), (7, ["a"], []), (8, ["c"], [])]


async def test_a_second_connection_of_the_library_is_not_gone_on_with() -> None:
    """It begins where etcd was, which is not where what it told was: of many revisions at once,
    those that had not come yet would be passed over."""
    first, second = answer((5, PUT, "a")), answer((9, PUT, "a"))
    found, error = await told(answer(created=True), first, answer(created=True), second)
    assert [each.number for each in found] == [5]
    assert isinstance(error, EtcdUnavailable)


async def test_what_etcd_has_compacted_is_said() -> None:
    found, error = await told(answer(created=True), answer(compact_revision=9, canceled=True))
    assert (found, type(error)) == ([], Compacted)


@pytest.mark.parametrize("last", [(), (answer(canceled=True, cancel_reason="no leader"),)])
async def test_a_watch_that_etcd_ends_is_broken(last: tuple[Any, ...]) -> None:
    found, error = await told(answer(created=True), answer((5, PUT, "a")), *last)
    assert [each.number for each in found] == [5]
    assert isinstance(error, EtcdUnavailable)
