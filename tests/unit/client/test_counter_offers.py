"""What a refusal offers instead is made of the document that was refused."""

from datetime import UTC, datetime

import pytest

from intertie.client import read_document, with_changes
from intertie.common.explanation import Change, CounterOffer

DOCUMENT = """
name: demo
groups:
  - name: a
    count: 2
    environment: {image: guest}
    allocation:
      vcpus: 1
      memory_mib: 128
      disk_mib: 128
      pairs: [{group: a, bandwidth: {guarantee_mbit_s: 20}}]
    placement: {allow_sites: [north]}
networks:
  - name: lan
    subnet: 10.1.0.0/24
    latency: [{groups: [a, a], max_latency: 5ms}]
lease: {duration: 1h}
"""


def offered(*changes: tuple[str, str]) -> CounterOffer:
    return CounterOffer(
        changes=tuple(Change(field=field, value=value) for field, value in changes),
        message="",
        start_time=datetime(2026, 3, 1, tzinfo=UTC),
        cost=0,
    )


@pytest.mark.parametrize(
    ("field", "value", "old", "new"),
    [
        ("spec.groups[0].count", "1", "count: 2", "count: 1"),
        ("spec.groups[0].allocation.memory_mib", "64", "memory_mib: 128", "memory_mib: 64"),
        (
            "spec.groups[0].allocation.pairs[0].bandwidth.guarantee_mbit_s",
            "15",
            "guarantee_mbit_s: 20",
            "guarantee_mbit_s: 15",
        ),
        (
            "spec.groups[0].placement.allow_sites",
            '["north", "south"]',
            "[north]",
            "[north, south]",
        ),
        ("spec.groups[0].placement.allow_sites", "[]", "[north]", "[]"),
        ("spec.networks[0].latency[0].max_latency", '"0.0255s"', "5ms", "25500us"),
        ("spec.lease.duration", '"1800s"', "duration: 1h", "duration: 30m"),
        (
            "spec.lease.start_time",
            '"2026-03-01T13:00:00Z"',
            "duration: 1h",
            'duration: 1h, start_time: "2026-03-01T13:00:00Z"',
        ),
        (
            "spec.groups[0].environment.hypervisor",
            '"any"',
            "image: guest",
            "image: guest, hypervisor: any",
        ),
    ],
)
def test_a_change_reads_as_if_it_had_been_written(
    field: str, value: str, old: str, new: str
) -> None:
    before = read_document(DOCUMENT).spec
    assert old in DOCUMENT
    after = with_changes(before, offered((field, value)))
    assert after == read_document(DOCUMENT.replace(old, new)).spec
    assert before == read_document(DOCUMENT).spec, "the one that was refused stays as it was"


def test_all_changes_of_an_offer_are_made() -> None:
    both = offered(("spec.groups[0].count", "1"), ("spec.placement.max_sites", "2"))
    after = with_changes(read_document(DOCUMENT).spec, both)
    assert (after.groups[0].count, after.placement.max_sites) == (1, 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("spec.groups[1].count", "1"),
        ("spec.groups[0].colour", "1"),
        ("spec.groups[0].count", '"many"'),
        ("spec.groups[0]", "{}"),
        ("groups", "1"),
        ("spec.__class__", "1"),
    ],
)
def test_an_offer_of_something_else_is_refused(field: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"spec|groups"):
        with_changes(read_document(DOCUMENT).spec, offered((field, value)))
