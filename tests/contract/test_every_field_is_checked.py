"""No text, no number and no span of an environment or an allocation is taken unlooked at.

Fields are found by reflection: one that is added to a proto without a rule fails here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from intertie.api.types.v1 import resources_pb2 as pb
from intertie.common.errors import FieldInvalid
from intertie.common.rpc.spec_proto import allocation_from_proto, environment_from_proto
from intertie.common.term_rules import check_allocation, check_environment
from tests.contract.filled import WHOLE_NUMBERS, leaves

NONSENSE = "no\nne "


def an_environment() -> pb.Environment:
    return pb.Environment(image="b3:" + "ab" * 32)


def an_allocation() -> pb.Allocation:
    pair = pb.PairTerm(group="w", bandwidth=pb.BandwidthTerm(guarantee_mbit_s=1))
    return pb.Allocation(vcpus=1, memory_mib=128, disk_mib=64, pairs=[pair])


def check(message: Message) -> None:
    if isinstance(message, pb.Environment):
        check_environment(environment_from_proto(message, "f"), "f")
    elif isinstance(message, pb.Allocation):
        check_allocation(allocation_from_proto(message, "f"), "f")


def is_span(field: Any) -> bool:
    return field.message_type is not None and field.message_type is Duration.DESCRIPTOR


PLAIN: tuple[Callable[[], Message], ...] = (an_environment, an_allocation)

CASES = [
    pytest.param(make, path, id=".".join(field.name for field in path))
    for make in PLAIN
    for path in leaves(make().DESCRIPTOR)
    if path[-1].type in (*WHOLE_NUMBERS, FieldDescriptor.TYPE_STRING) or is_span(path[-1])
]


@pytest.mark.parametrize("make", PLAIN)
def test_what_the_cases_begin_from_is_taken(make: Callable[[], Message]) -> None:
    check(make())


@pytest.mark.parametrize(("make", "path"), CASES)
def test_nonsense_is_refused_with_its_path(
    make: Callable[[], Message], path: tuple[Any, ...]
) -> None:
    message = make()
    target: Any = message
    for field in path[:-1]:
        target = getattr(target, field.name)
        target = target[0] if field.is_repeated else target
    last = path[-1]
    value = NONSENSE if last.type == FieldDescriptor.TYPE_STRING else -1
    if is_span(last):
        getattr(target, last.name).FromSeconds(-1)
    elif last.is_repeated:
        getattr(target, last.name).append(value)
    else:
        setattr(target, last.name, value)
    with pytest.raises(FieldInvalid) as caught:
        check(message)
    assert caught.value.field.partition("[")[0].startswith(f"f.{path[0].name}")
    assert last.name in caught.value.field
