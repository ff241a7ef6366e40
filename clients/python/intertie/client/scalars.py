"""One value of a document: what a YAML node says, in the type of its field."""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from typing import Any

import yaml
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from intertie.client.spans import parse_span

_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_NUMBER = re.compile(r"[-+]?[0-9]{1,20}(\.[0-9]{0,20})?([eE][-+]?[0-9]{1,3})?")
_WORDS = {"str": "text", "int": "a whole number", "float": "a fraction", "bool": "a truth value"}
_UNIT_ENDINGS = ("_mib", "_mbit_s", "_mib_s", "_iops", "vcpus")
_RANGES = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
}


class Wrong(Exception):
    """What is wrong with a node, and what to do about it."""

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.text = text
        self.remedy = remedy


def expected(node: yaml.Node, what: str, remedy: str = "") -> Wrong:
    """There is something else than `what`."""
    if _kind(node) == "null":
        remedy = "Give it a value or leave the field out."
    return Wrong(f"expected {what}, found {found(node)}", remedy or f"Write {what}.")


def found(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "fields"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if _kind(node) == "null":
        return "nothing"
    word = _WORDS.get(_kind(node))
    shown = node.value if len(node.value) <= 40 else node.value[:37] + "..."
    return f"{word} ({shown!r})" if word else repr(shown)


def value_of(node: yaml.Node, schema: Any) -> str | int | float | bool | bytes:
    """`schema` is the descriptor of a field that holds no message. Raises Wrong, as all here do."""
    match schema.type:
        case FieldDescriptor.TYPE_STRING:
            return text_of(node)
        case FieldDescriptor.TYPE_BYTES:
            return _bytes(node)
        case FieldDescriptor.TYPE_BOOL:
            return _truth(node)
        case FieldDescriptor.TYPE_ENUM:
            return _enum(node, schema)
        case FieldDescriptor.TYPE_INT32 | FieldDescriptor.TYPE_INT64:
            return _whole(node, schema)
        case FieldDescriptor.TYPE_DOUBLE:
            return _number(node)
    raise NotImplementedError(f"{schema.full_name}: no YAML form for fields of type {schema.type}")


def text_of(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode) and _kind(node) == "str":
        return str(node.value)
    quotable = isinstance(node, yaml.ScalarNode)
    raise expected(node, "text", f'Put it in quotes: "{node.value}".' if quotable else "")


def span_of(node: yaml.Node) -> int:
    """In nanoseconds."""
    text = node.value if isinstance(node, yaml.ScalarNode) else ""
    span = parse_span(text)
    if span is None:
        remedy = f"{text} of what? Write {text}s or {text}m." if text.isdecimal() else ""
        raise expected(node, "a span of time such as 1h, 30m, 90s or 250ms", remedy)
    return span


def moment_of(node: yaml.Node) -> Timestamp:
    moment = Timestamp()
    try:
        if not isinstance(node, yaml.ScalarNode):
            raise ValueError
        moment.FromJsonString(node.value)
    except ValueError:
        what = "a moment with its time zone, such as 2026-11-30T12:00:00Z"
        raise expected(node, what) from None
    return moment


def _kind(node: yaml.Node) -> str:
    """The last word of a node's tag: `str`, `int`, `map` ..."""
    return str(node.tag).rpartition(":")[2]


def _bytes(node: yaml.Node) -> bytes:
    if isinstance(node, yaml.ScalarNode) and _kind(node) == "str":
        return str(node.value).encode()
    encoded = _base64_in(node)
    if encoded is None:
        raise expected(node, "text or {base64: ...}")
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Wrong("is not base64", "Encode it with `base64 FILE`.") from None


def _base64_in(node: yaml.Node) -> str | None:
    if isinstance(node, yaml.MappingNode) and len(node.value) == 1:
        key, value = node.value[0]
        if key.value == "base64" and isinstance(value, yaml.ScalarNode):
            return str(value.value)
    return None


def _truth(node: yaml.Node) -> bool:
    if isinstance(node, yaml.ScalarNode) and node.value in ("true", "false"):
        return bool(node.value == "true")
    raise expected(node, "true or false")


def _enum(node: yaml.Node, schema: Any) -> int:
    values = schema.enum_type.values_by_name
    names = [name for name, value in values.items() if value.number]
    near: list[str] = []
    if isinstance(node, yaml.ScalarNode):
        if node.value in values:
            return int(values[node.value].number)
        near = difflib.get_close_matches(node.value.upper(), names, n=1)
    remedy = f"Did you mean {near[0]}?" if near else ""
    raise expected(node, f"one of {', '.join(names)}", remedy)


def _number(node: yaml.Node) -> float:
    """As it is written, whatever YAML takes it for: 1e3 is text to it."""
    plain = isinstance(node, yaml.ScalarNode) and not node.style
    text = node.value if plain else ""
    if not _NUMBER.fullmatch(text):
        raise expected(node, "a number such as 12 or 0.5", "Write digits, with a point or without.")
    return float(text)


def _whole(node: yaml.Node, schema: Any) -> int:
    if (
        not isinstance(node, yaml.ScalarNode)
        or _kind(node) != "int"
        or not _DECIMAL.fullmatch(node.value)
    ):
        unit = schema.name.endswith(_UNIT_ENDINGS)
        remedy = "The unit is in the field's name, not in the value." if unit else ""
        raise expected(
            node, "a whole number", remedy or "Write digits only, without a zero before them."
        )
    low, high = _RANGES[schema.type]
    digits = node.value.replace("_", "")
    if len(digits) > 20 or not low <= (value := int(digits)) <= high:
        raise Wrong(f"{digits[:40]} is out of range", f"From {low} to {high}.")
    return value
