"""When a host is lost, and when it may come back: decisions alone."""

from datetime import timedelta
from itertools import pairwise

import pytest

from intertie.broker.domain.fleet import HostFacts
from intertie.broker.domain.lost_hosts import (
    NEXT,
    HostRecord,
    HostState,
    Vigil,
    Watched,
    are_many,
    next_of,
)
from intertie.common.errors import IllegalMove
from tests.unit.broker.samples import NOW, facts

LOST_AFTER = timedelta(seconds=60)


def reports(host: str = "n1", revision: int = 1, **changes: object) -> HostFacts:
    return facts(host, revision=revision, **changes)


def watched(
    state: HostState, *, silent_s: float = 0, back: bool = False, **more: object
) -> Watched:
    values = {"epoch": 3, "fenced_epoch": 3, "has_parts": False, **more}
    return Watched(
        record=HostRecord(name="n1", state=state, epoch=int(str(values["epoch"])), since=NOW),
        facts=reports(fenced_epoch=values["fenced_epoch"]),
        silent_for=timedelta(seconds=silent_s),
        is_back=back,
        has_parts=bool(values["has_parts"]),
    )


def step(of: Watched, *, fences: bool = True, many: bool = False) -> HostState | None:
    after = next_of(of, lost_after=LOST_AFTER, fences=fences, many=many, now=NOW)
    return after.state if after is not None and after.state is not of.record.state else None


def test_silence_is_counted_from_what_was_seen_to_change() -> None:
    vigil = Vigil()
    for at in range(0, 100, 5):
        vigil = vigil.look([reports(revision=min(at, 30) + 1)], at=float(at))
    assert vigil.heard["n1"].silent_for(at=95.0) == timedelta(seconds=65)
    assert not vigil.heard["n1"].is_back(at=95.0)
    vigil = vigil.look([reports(revision=50)], at=97.0)
    assert vigil.heard["n1"].is_back(at=98.0)


def test_who_begins_to_watch_has_heard_of_nobody_that_they_are_silent_or_back() -> None:
    heard = Vigil().look([reports()], at=1000.0).heard["n1"]
    assert heard.silent_for(at=1000.0) == timedelta()
    assert not heard.is_back(at=1000.0)


def test_while_nobody_looked_nobody_was_silent() -> None:
    """As when etcd was away, or the broker stood still."""
    vigil = Vigil()
    for at in (0.0, 5.0, 10.0, 50.0):
        vigil = vigil.look([reports()], at=at)
    assert vigil.heard["n1"].silent_for(at=50.0) == timedelta()


@pytest.mark.parametrize(
    ("of", "becomes"),
    [
        (watched(HostState.UP, silent_s=59), None),
        (watched(HostState.UP, silent_s=60), HostState.SILENT),
        (watched(HostState.SILENT, silent_s=62), HostState.FENCING),
        (watched(HostState.SILENT, back=True), HostState.UP),
        (watched(HostState.FENCING, silent_s=500), None),
        (watched(HostState.FENCING, back=True), HostState.UP),
        (watched(HostState.FENCED, silent_s=500), None),
        (watched(HostState.FENCED, back=True), HostState.UP),
        (watched(HostState.FENCED, back=False), None),
        (watched(HostState.FENCED, back=True, has_parts=True), None),
        (watched(HostState.FENCED, back=True, fenced_epoch=2), None),
    ],
)
def test_steps(of: Watched, becomes: HostState | None) -> None:
    assert step(of) is becomes


def test_without_a_way_to_fence_a_host_stays_silent() -> None:
    assert step(watched(HostState.SILENT, silent_s=10_000), fences=False) is None


def test_while_many_are_silent_none_is_fenced() -> None:
    assert step(watched(HostState.SILENT, silent_s=10_000), many=True) is None
    assert step(watched(HostState.SILENT, back=True), many=True) is HostState.UP


def test_many_are_more_than_half_of_those_that_are_not_fenced() -> None:
    up, silent = watched(HostState.UP), watched(HostState.UP, silent_s=20)
    fenced = watched(HostState.FENCED, silent_s=20)
    assert not are_many([up, silent])
    assert are_many([up, silent, silent])
    assert not are_many([up, silent, fenced, fenced])
    assert are_many([silent])


def test_each_fencing_has_its_own_epoch() -> None:
    record = HostRecord(name="n1", since=NOW)
    path = [HostState.UP, HostState.SILENT, HostState.FENCING, HostState.FENCED] * 2
    epochs = []
    for _, to in pairwise(path):
        record = record.move(to, now=NOW)
        epochs.append(record.epoch)
    assert epochs == [0, 1, 1, 1, 1, 2, 2]


def test_no_host_is_fenced_that_was_not_being_fenced() -> None:
    for state in HostState:
        if HostState.FENCED not in NEXT[state]:
            with pytest.raises(IllegalMove):
                HostRecord(name="n1", state=state, since=NOW).move(HostState.FENCED, now=NOW)
    assert [each for each in HostState if HostState.FENCED in NEXT[each]] == [HostState.FENCING]
