"""Messages with something in every field, by reflection: what is added to a proto is in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

WHOLE_NUMBERS = (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64)


def filled(kind: type[M], *, turn: int = 0, given: Mapping[str, Any] | None = None) -> M:
    """No field holds its default and no two numbers or texts are the same, so that one in another's
    place is noticed too. Lists have two entries.

    `given` are values by a field's full name, for fields that have rules. An enumeration has its
    first value but UNSPECIFIED at turn 0, the next at turn 1, and so on around.
    """
    message = kind()
    _fill(message, turn, given or {}, count(1000))
    return message


def _fill(message: Message, turn: int, given: Mapping[str, Any], numbers: Iterator[int]) -> None:
    if message.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        message.FromSeconds(1_800_000_000 + next(numbers))  # type: ignore[attr-defined]
        return
    if message.DESCRIPTOR.full_name == "google.protobuf.Duration":
        message.FromMilliseconds(next(numbers))  # type: ignore[attr-defined]
        return
    for field in message.DESCRIPTOR.fields:
        for _entry in range(2 if field.is_repeated else 1):
            if field.message_type is None:
                value = given.get(field.full_name) or _scalar(field, turn, next(numbers))
                if field.is_repeated:
                    getattr(message, field.name).append(value)
                else:
                    setattr(message, field.name, value)
            elif field.is_repeated:
                _fill(getattr(message, field.name).add(), turn, given, numbers)
            else:
                getattr(message, field.name).SetInParent()
                _fill(getattr(message, field.name), turn, given, numbers)


def _scalar(field: Any, turn: int, number: int) -> Any:
    if field.type in WHOLE_NUMBERS:
        return number
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return f"{field.name}-{number}"
        case FieldDescriptor.TYPE_BYTES:
            return f"{field.name}-{number}".encode()
        case FieldDescriptor.TYPE_DOUBLE:
            return number + 0.5
        case FieldDescriptor.TYPE_BOOL:
            return True
        case FieldDescriptor.TYPE_ENUM:
            known = [value.number for value in field.enum_type.values if value.number]
            return known[turn % len(known)]
    raise AssertionError(f"{field.full_name}: say here what fills a field of type {field.type}")


def left_out(message: Message, path: str = "") -> list[str]:
    """Paths of the fields that hold their default, at any depth."""
    found = []
    for field in message.DESCRIPTOR.fields:
        at = f"{path}.{field.name}".lstrip(".")
        value = getattr(message, field.name)
        if field.message_type is None:
            found += [] if value else [at]
        elif field.is_repeated:
            found += [] if value else [at]
            found += [
                each for i, entry in enumerate(value) for each in left_out(entry, f"{at}[{i}]")
            ]
        elif not message.HasField(field.name):
            found.append(at)
        elif field.message_type.full_name.startswith("intertie."):
            found += left_out(value, at)
    return found


def leaves(descriptor: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Each field that holds a value of its own, with the fields on the way to it."""
    for field in descriptor.fields:
        inner = field.message_type
        if inner is not None and inner.full_name.startswith("intertie."):
            yield from leaves(inner, (*path, field))
        else:
            yield (*path, field)


def most_values(descriptor: Any) -> int:
    """As many as its largest enumeration has beside UNSPECIFIED: after so many turns, `filled` has
    given every value."""
    kinds = (path[-1].enum_type for path in leaves(descriptor))
    return max(len(kind.values) - 1 for kind in kinds if kind is not None)
