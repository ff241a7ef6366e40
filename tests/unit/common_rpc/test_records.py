"""Records in etcd: what was written is read, what is not known is refused."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

import pytest

from intertie.common.etcd.records import RecordUnreadable, decode, encode


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    octets: bytes
    span: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    name: str
    moment: datetime
    colour: Colour
    inner: tuple[Inner, ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class Empty:
    pass


RECORD = Outer(
    name='"é',
    moment=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    colour=Colour.RED,
    inner=(Inner(octets=b"\0\xff", span=timedelta(seconds=1.5)),),
)


def test_a_record_is_read_as_it_was_written() -> None:
    assert decode(Outer, encode(RECORD)) == RECORD
    assert decode(Empty, encode(Empty())) == Empty()


def test_the_schema_is_on_every_record() -> None:
    assert json.loads(encode(RECORD))["schema"] == 1
    assert json.loads(encode(Empty())) == {"schema": 1}


def test_fields_may_be_added() -> None:
    older = json.loads(encode(RECORD))
    del older["note"]
    newer = older | {"added": [1, 2]}
    assert decode(Outer, json.dumps(newer).encode()) == RECORD


@pytest.mark.parametrize(
    "change", [{"schema": 2}, {"schema": 0}, {"name": 5}, {"moment": "soon"}, {"colour": "blue"}]
)
def test_what_this_release_cannot_read_is_refused(change: dict[str, object]) -> None:
    values = json.loads(encode(RECORD)) | change
    with pytest.raises(RecordUnreadable):
        decode(Outer, json.dumps(values).encode())


@pytest.mark.parametrize("octets", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_damage_is_refused(octets: bytes) -> None:
    with pytest.raises(RecordUnreadable):
        decode(Outer, octets)
