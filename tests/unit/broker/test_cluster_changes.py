"""What becomes of clusters by the keys that they are made of."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta

import pytest

from intertie.api.nodeagent.v1 import records_pb2
from intertie.broker.adapters.archive import packed
from intertie.broker.adapters.cluster_changes import PREFIXES, ClusterChanges
from intertie.broker.convert import cluster_octets
from intertie.broker.domain.cluster import ClusterRecord, ClusterState
from intertie.broker.domain.part import PartState
from intertie.common.changes.history import Event
from intertie.common.etcd.client import Entry, Revision
from intertie.common.etcd.records import encode
from intertie.common.names import PartName
from intertie.common.rpc.spec_proto import timestamp_to_proto
from intertie.common.spec import ClusterSpec
from intertie.common.values import replace
from tests.unit.broker.samples import NOW, POLICY, part

READY = 4


def record(
    part_id: str = "t1", state: ClusterState = ClusterState.SCHEDULED, name: str = "one"
) -> ClusterRecord:
    return ClusterRecord(
        name=f"sites/north/tenants/demo/clusters/{name}",
        uid=f"u-{part_id}",
        spec=ClusterSpec(groups=()),
        owner="alice",
        state=state,
        part=f"sites/north/tenants/demo/parts/{part_id}",
        window=part().window,
        counts=(("w", 1),),
        cost=1.5,
        reasons=(),
        shortfalls=(),
        create_time=NOW,
    )


def uid(part_id: str) -> str:
    return PartName("north", "demo", part_id).uid


def seen(part_id: str, host: str = "n1", message: str = "") -> bytes:
    told = records_pb2.SeenPart(schema=1, part_uid=uid(part_id))
    told.workspaces.add(name="w-0", state=READY, ready=True, message=message)
    return told.SerializeToString()


def measured(value: float, *part_ids: str, broken: bool = False) -> bytes:
    told = records_pb2.HostMeasured(schema=1, measured_time=timestamp_to_proto(NOW))
    for each in part_ids:
        one = told.parts.add(part_uid=uid(each)).directions.add(kind=3, target="w-0", value=value)
        if broken:
            one.below_since.CopyFrom(timestamp_to_proto(NOW))
    return told.SerializeToString()


class Keys:
    """Revisions as etcd tells them, and the state at each."""

    def __init__(self) -> None:
        self.states: list[Mapping[str, Entry]] = [{}]
        self.revisions: list[Revision] = []

    def write(self, changes: Mapping[str, bytes | None]) -> Revision:
        number = len(self.states) + 1
        puts = tuple(
            Entry(key=key, value=value, mod_revision=number, create_revision=number)
            for key, value in changes.items()
            if value is not None
        )
        deleted = tuple(key for key, value in changes.items() if value is None)
        after = {key: each for key, each in self.states[-1].items() if key not in deleted}
        self.states.append(after | {each.key: each for each in puts})
        self.revisions.append(Revision(number=number, puts=puts, deleted=deleted))
        return self.revisions[-1]


def told(events: object) -> list[tuple[int, str, bool, bytes]]:
    assert isinstance(events, list)
    found: list[Event] = events
    return [(each.revision, each.shown.name, each.gone, each.shown.octets()) for each in found]


@pytest.fixture
def store() -> Keys:
    return Keys()


def fold() -> ClusterChanges:
    return ClusterChanges(POLICY, cluster_octets)


def test_whatever_a_cluster_is_made_of_changes_it(store: Keys) -> None:
    changes = fold()

    def changed(**keys_of: bytes | None) -> int:
        keys_by_path = {key.replace("__", "/"): value for key, value in keys_of.items()}
        return len(changes.take(store.write(keys_by_path)))

    where = f"seen__n1__parts__{uid('t1')}"
    assert changed(clusters__demo__one=encode(record()), parts__demo__t1=encode(part())) == 1
    assert changed(parts__demo__t2=encode(part("t2"))) == 0, "a part that is coordinated elsewhere"
    assert changed(**{where: seen("t1")}) == 1
    assert changed(**{where: seen("t1")}) == 0, "as it was"
    assert changed(**{where: seen("t1", message="well")}) == 1
    assert changed(**{f"seen__n2__parts__{uid('t1')}": seen("t1", "n2")}) == 0, "not its host"
    assert changed(seen__n1__facts=b"whatever", requests__x__y=b"{}", wanted__n1=b"x") == 0
    active = encode(record(state=ClusterState.ACTIVE))
    assert changed(clusters__demo__one=active) == 1
    assert changed(clusters__demo__one=active) == 0, "written as it was"
    ended = encode(part(state=PartState.ENDED, end_reason="CANCELLED"))
    assert changed(parts__demo__t1=ended) == 1
    assert changed(**{where: None}) == 0, "of a part that is over nothing counts that agents say"
    assert changed(parts__demo__t1=None) == 1
    (gone,) = changes.take(store.write({"clusters/demo/one": None}))
    assert (gone.gone, gone.shown.uid) == (True, "u-t1")
    assert list(changes.standing()) == []


def test_a_name_that_is_used_again_is_another_cluster(store: Keys) -> None:
    changes = fold()
    over = record(state=ClusterState.CANCELLED)
    changes.take(store.write({"clusters/demo/one": encode(over), "parts/demo/t1": encode(part())}))
    again = {"clusters/demo/one": encode(record("t2")), "parts/demo/t2": encode(part("t2"))}
    (event,) = changes.take(store.write(again))
    assert (event.gone, event.shown.uid) == (False, "u-t2")
    old = {"parts/demo/t1": None, f"seen/n1/parts/{uid('t1')}": seen("t1")}
    assert changes.take(store.write(old)) == []
    (event,) = changes.take(store.write({f"seen/n1/parts/{uid('t2')}": seen("t2")}))
    assert event.shown.uid == "u-t2"


def written_at_random(store: Keys, draw: random.Random) -> None:
    """As brokers and agents write: a cluster and its part come together, each under a new part's
    name; all else is changed, deleted and said in any order, of what is gone too."""
    admitted: dict[str, str] = {}
    ever: list[str] = []
    for number in range(300):
        name = draw.choice(["c0", "c1", "c2", "c3"])
        each, changes = admitted.get(name, ""), dict[str, bytes | None]()
        match draw.choice(["admit", "record", "part", "gone", "seen", "seen", "measured"]):
            case "admit":
                each = admitted[name] = f"t{number}"
                ever.append(each)
                changes[f"clusters/demo/{name}"] = encode(record(each, name=name))
                changes[f"parts/demo/{each}"] = encode(part(each))
            case "record" if each:
                state = draw.choice([ClusterState.SCHEDULED, ClusterState.ACTIVE])
                changes[f"clusters/demo/{name}"] = encode(record(each, state, name))
            case "part" if each and f"parts/demo/{each}" in store.states[-1]:
                end = draw.choice([None, NOW + timedelta(minutes=draw.randint(1, 3))])
                state_of = draw.choice([PartState.CONFIRMED, PartState.ENDED])
                after = part(each, state_of, end_requested_time=end)
                changes[f"parts/demo/{each}"] = draw.choice([encode(after), None])
            case "gone" if each:
                del admitted[name]
                changes[f"clusters/demo/{name}"] = None
        for said in draw.sample(ever, min(len(ever), draw.randint(0, 2))):
            where = f"seen/n1/parts/{uid(said)}"
            gone = draw.random() < 0.3 and where in store.states[-1]
            changes[where] = None if gone else seen(said, message=draw.choice("ab"))
        if draw.random() < 0.3:
            some = draw.sample(ever, min(len(ever), 3))
            values = measured(draw.random(), *some, broken=draw.random() < 0.4)
            changes["seen/n1/measured"] = values
        if changes:
            store.write(changes)


@pytest.mark.parametrize("seed", range(4))
def test_from_wherever_it_begins_it_tells_the_same(store: Keys, seed: int) -> None:
    """So one replica goes on where another was."""
    written_at_random(store, random.Random(seed))
    whole = fold()
    told_by_whole = [told(list(whole.take(each))) for each in store.revisions]
    assert sum(map(len, told_by_whole)) > 100
    for begin in range(0, len(store.revisions), 7):
        late = fold()
        there = store.states[begin]
        late.begin([there[key] for key in sorted(there) if key.startswith(PREFIXES)])
        for revision, expected in zip(store.revisions[begin:], told_by_whole[begin:], strict=True):
            assert told(list(late.take(revision))) == expected
        assert [each.octets() for each in late.standing()] == [
            each.octets() for each in whole.standing()
        ]


def test_what_is_put_aside_is_no_change_and_goes_when_it_is_forgotten(store: Keys) -> None:
    changes = fold()
    over = record(state=ClusterState.CANCELLED)
    ended = part(state=PartState.ENDED, end_reason="CANCELLED")
    keys = {"clusters/demo/one": encode(over), "parts/demo/t1": encode(ended)}
    assert len(changes.take(store.write(keys))) == 1
    aside: dict[str, bytes | None] = {
        "clusters/demo/one": None,
        "parts/demo/t1": None,
        "archive/clusters/demo/one/u-t1": packed(over),
        "archive/parts/demo/t1": packed(ended),
        "tombs/parts/demo/t1": b"{}",
    }
    assert changes.take(store.write(aside)) == []
    # Who begins now sees the same.
    late = fold()
    late.begin([each for each in store.states[-1].values() if each.key.startswith(PREFIXES)])
    [shown] = late.standing()
    assert shown.octets() == next(iter(changes.standing())).octets()

    # The name is used again, and the first is forgotten while the second lives.
    again = replace(record("t2"), create_time=NOW + timedelta(minutes=1))
    for each in (changes, late):
        events = each.take(store.write({"clusters/demo/one": encode(again)}))
        assert [event.shown.uid for event in events] == ["u-t2"]
    forgotten: dict[str, bytes | None] = {"archive/clusters/demo/one/u-t1": None}
    assert changes.take(store.write(forgotten)) == []
    assert [each.uid for each in changes.standing()] == ["u-t2"]


def test_the_end_of_what_was_put_aside_is_told(store: Keys) -> None:
    changes = fold()
    changes.take(store.write({"archive/clusters/demo/one/u-t1": packed(record())}))
    changes.take(store.write({"archive/parts/demo/t1": packed(part())}))
    gone: dict[str, bytes | None] = {
        "archive/clusters/demo/one/u-t1": None,
        "archive/parts/demo/t1": None,
    }
    (event,) = changes.take(store.write(gone))
    assert (event.gone, event.shown.uid) == (True, "u-t1")
    assert list(changes.standing()) == []
