"""What a record may not say."""

from __future__ import annotations

import pytest

from intertie.common.errors import FieldInvalid
from intertie.common.part_spec import HostEntry
from intertie.common.values import replace
from intertie.nodeagent.domain.record_rules import check_part
from tests.unit.nodeagent.parts import PART


def test_a_record_as_brokers_write_it_is_taken() -> None:
    check_part(PART)


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        (HostEntry(address="10.1.0.10", names=("a\n6.6.6.6 bank",)), "host_entries[0].names[0]"),
        (HostEntry(address="10.1.0.10", names=("a b",)), "host_entries[0].names[0]"),
        (HostEntry(address="10.1.0.10", names=()), "host_entries[0].names"),
        (HostEntry(address="10.1.0.10\n", names=("a",)), "host_entries[0].address"),
    ],
)
def test_no_host_entry_is_a_line_more_in_the_guest_s_hosts(entry: HostEntry, field: str) -> None:
    """The bug: an agent wrote what it was given."""
    with pytest.raises(FieldInvalid) as refused:
        check_part(replace(PART, host_entries=(entry,)))
    assert refused.value.field == field
