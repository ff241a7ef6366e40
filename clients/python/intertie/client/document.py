"""A cluster written down as YAML: one document whose schema is the proto `ClusterSpec`.

Fields have the names that the proto gives them; enums are written by name, spans of time as `1h`
or `250ms`, moments in ISO 8601 with a time zone, bytes as text or as `{base64: ...}`. Beside the
fields of `ClusterSpec` there is `name`, the id of the cluster.

The document may come from anybody: it is read without building any object but the message, and is
bounded in size, depth and in what its aliases unfold to.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from intertie.api.cluster.v1.cluster_pb2 import ClusterSpec
from intertie.client.problems import DocumentInvalid, Problem
from intertie.client.spans import parse_span

MAX_BYTES = 1024 * 1024
MAX_ALIASES = 100
MAX_DEPTH = 32
MAX_NODES = 100_000
"""Values in the document once its aliases are unfolded."""
MAX_PROBLEMS = 20

_EXAMPLE = "Begin from examples/two-sites.yaml."
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = {"str": "text", "int": "a whole number", "float": "a fraction", "bool": "a truth value"}
_UNIT_ENDINGS = ("_mib", "_mbit_s", "_mib_s", "_iops", "vcpus")
_RANGES = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    name: str
    """The cluster's id; empty where the document has none."""
    spec: ClusterSpec
    lines: dict[str, int] = field(default_factory=dict)
    """Where in the text each path begins, for whoever finds fault with it later."""

    def line_of(self, path: str) -> int:
        """Of `spec.groups[1].allocation.vcpus` or, where that is not written, of what holds it."""
        path = path.removeprefix("spec.")
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path.rpartition("[")[0] if path.endswith("]") else path.rpartition(".")[0]
        return 0


def read_document(text: bytes | str) -> Document:
    """The cluster in `text`; raises DocumentInvalid with everything that is wrong with it."""
    size = len(text if isinstance(text, bytes) else text.encode())
    if size > MAX_BYTES:
        raise _refused(
            "",
            0,
            f"has more than {MAX_BYTES} bytes, which is the most that is read",
            "Join groups that are alike (count), and have user data fetch what is large.",
        )
    root = _compose(text)
    reader = _Reader()
    spec = ClusterSpec()
    name = reader.read_root(root, spec)
    if reader.problems:
        raise DocumentInvalid(tuple(reader.problems))
    return Document(name=name, spec=spec, lines=reader.lines)


def _refused(path: str, line: int, text: str, remedy: str = "") -> DocumentInvalid:
    return DocumentInvalid((Problem(path=path, line=line, text=text, remedy=remedy),))


def _compose(text: bytes | str) -> yaml.MappingNode:
    """The tree of the one document in `text`, which its events have shown to be bounded."""
    try:
        _check_events(yaml.parse(text, Loader=_LOADER))
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        raise _refused(
            "",
            line,
            f"not YAML: {error.problem or error.context}",
            "Check indentation, quotes and brackets, in this line and before it.",
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _refused(
            "",
            0,
            f"not YAML: {str(error).splitlines()[0]}",
            "Save it as text in UTF-8; bytes go in as {base64: ...}.",
        ) from None
    if root is None:
        raise _refused("", 0, "is empty", _EXAMPLE)
    if not isinstance(root, yaml.MappingNode):
        raise _refused(
            "",
            _line(root),
            f"expected fields, as in `groups: [...]`, found {_found(root)}",
            _EXAMPLE,
        )
    return root


def _check_events(events: Iterator[yaml.Event]) -> None:
    depth = aliases = 0
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
        line = event.start_mark.line + 1 if event.start_mark else 0
        if depth > MAX_DEPTH:
            raise _refused("", line, f"nested more than {MAX_DEPTH} deep", _EXAMPLE)
        if aliases > MAX_ALIASES:
            remedy = "Write out what they stand for, or join groups that are alike (count)."
            raise _refused("", line, f"more than {MAX_ALIASES} aliases", remedy)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _kind(node: yaml.Node) -> str:
    """The last word of a node's tag: `str`, `int`, `map` ..."""
    return str(node.tag).rpartition(":")[2]


def _found(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "fields"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if _kind(node) == "null":
        return "nothing"
    word = _WORDS.get(_kind(node))
    shown = node.value if len(node.value) <= 40 else node.value[:37] + "..."
    return f"{word} ({shown!r})" if word else repr(shown)


class _Reader:
    """Walks the tree once, filling the message and gathering problems on its way.

    `schema` is the descriptor of a message or a field, which protobuf has of several types.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.lines: dict[str, int] = {}
        self._nodes = 0

    def read_root(self, root: yaml.MappingNode, spec: ClusterSpec) -> str:
        name = ""
        rest = []
        for key, value in root.value:
            if isinstance(key, yaml.ScalarNode) and key.value == "name":
                if "name" in self.lines:
                    self._duplicate(key, "name")
                self.lines["name"] = _line(key)
                name = self._text(value, "name") or name
            else:
                rest.append((key, value))
        self._fields(rest, spec, "", extra=("name",), depth=0)
        return name

    def _complain(self, node: yaml.Node, path: str, text: str, remedy: str = "") -> None:
        self.problems.append(Problem(path=path, line=_line(node), text=text, remedy=remedy))
        if len(self.problems) >= MAX_PROBLEMS:
            raise DocumentInvalid(tuple(self.problems))

    def _expected(self, node: yaml.Node, path: str, what: str, remedy: str = "") -> None:
        if _kind(node) == "null":
            remedy = "Give it a value or leave the field out."
        remedy = remedy or f"Write {what}."
        self._complain(node, path, f"expected {what}, found {_found(node)}", remedy)

    def _duplicate(self, key: yaml.Node, path: str) -> None:
        text = f"is there twice, first in line {self.lines[path]}"
        self._complain(key, path, text, "Leave one of the two out.")

    def _fields(
        self,
        pairs: list[tuple[yaml.Node, yaml.Node]],
        message: Message,
        path: str,
        *,
        extra: tuple[str, ...] = (),
        depth: int,
    ) -> None:
        seen: set[str] = set()
        for key, value in pairs:
            if not isinstance(key, yaml.ScalarNode):
                text = f"expected a field's name, found {_found(key)}"
                self._complain(key, path, text, _EXAMPLE)
                continue
            here = f"{path}.{key.value}" if path else key.value
            if key.value in seen:
                self._duplicate(key, here)
                continue
            descriptor = message.DESCRIPTOR.fields_by_name.get(key.value)
            if descriptor is None:
                self._unknown(key, here, message.DESCRIPTOR, extra)
                continue
            seen.add(key.value)
            self.lines[here] = _line(key)
            self._field(value, message, descriptor, here, depth)

    def _unknown(
        self, key: yaml.ScalarNode, path: str, schema: Any, extra: tuple[str, ...]
    ) -> None:
        if key.value == "<<":
            self._complain(key, path, "merge keys are not read", "Use an alias as a field's value.")
            return
        near = nearest_field(key.value, schema, extra)
        if near:
            remedy = f"Did you mean {near}?"
        else:
            remedy = f"The fields here are {', '.join([*extra, *schema.fields_by_name])}."
        self._complain(key, path, "no such field", remedy)

    def _field(self, node: yaml.Node, message: Message, schema: Any, path: str, depth: int) -> None:
        if not schema.is_repeated:
            self._single(node, message, schema, path, depth)
            return
        if not isinstance(node, yaml.SequenceNode):
            self._expected(node, path, "a list", "Begin each of its items with `- `.")
            return
        into = getattr(message, schema.name)
        for index, item in enumerate(node.value):
            here = f"{path}[{index}]"
            self.lines[here] = _line(item)
            if schema.message_type is not None:
                self._message(item, into.add(), schema.message_type, here, depth + 1)
            elif (value := self._scalar(item, schema, here)) is not None:
                into.append(value)

    def _single(
        self, node: yaml.Node, message: Message, schema: Any, path: str, depth: int
    ) -> None:
        if schema.message_type is not None:
            child = getattr(message, schema.name)
            child.SetInParent()
            self._message(node, child, schema.message_type, path, depth + 1)
        elif (value := self._scalar(node, schema, path)) is not None:
            setattr(message, schema.name, value)

    def _message(self, node: yaml.Node, into: Any, schema: Any, path: str, depth: int) -> None:
        self._count(node, path, depth)
        if schema.full_name == "google.protobuf.Duration":
            self._span(node, into, path)
        elif schema.full_name == "google.protobuf.Timestamp":
            self._moment(node, into, path)
        elif isinstance(node, yaml.MappingNode):
            self._fields(node.value, into, path, depth=depth)
        else:
            names = ", ".join(schema.fields_by_name)
            self._expected(node, path, f"fields ({names})")

    def _count(self, node: yaml.Node, path: str, depth: int) -> None:
        """An alias may name what holds it, or unfold to more than was written."""
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            remedy = "Write out what they stand for, or join groups that are alike (count)."
            raise _refused(path, _line(node), "aliases unfold to too much", remedy)

    def _scalar(self, node: yaml.Node, schema: Any, path: str) -> str | int | bool | bytes | None:
        self._count(node, path, 0)
        match schema.type:
            case FieldDescriptor.TYPE_STRING:
                return self._text(node, path)
            case FieldDescriptor.TYPE_BYTES:
                return self._bytes(node, path)
            case FieldDescriptor.TYPE_BOOL:
                return self._truth(node, path)
            case FieldDescriptor.TYPE_ENUM:
                return self._enum(node, schema, path)
            case FieldDescriptor.TYPE_INT32 | FieldDescriptor.TYPE_INT64:
                return self._whole(node, schema, path)
        raise NotImplementedError(f"{path}: no YAML form for fields of type {schema.type}")

    def _text(self, node: yaml.Node, path: str) -> str | None:
        if isinstance(node, yaml.ScalarNode) and _kind(node) == "str":
            return str(node.value)
        quotable = isinstance(node, yaml.ScalarNode) and _kind(node) != "null"
        remedy = f'Put it in quotes: "{node.value}".' if quotable else ""
        self._expected(node, path, "text", remedy)
        return None

    def _bytes(self, node: yaml.Node, path: str) -> bytes | None:
        if isinstance(node, yaml.ScalarNode) and _kind(node) == "str":
            return str(node.value).encode()
        encoded = self._base64_in(node)
        if encoded is None:
            self._expected(node, path, "text or {base64: ...}")
            return None
        try:
            return base64.b64decode("".join(encoded.split()), validate=True)
        except (binascii.Error, ValueError):
            self._complain(node, path, "is not base64", "Encode it with `base64 FILE`.")
            return None

    @staticmethod
    def _base64_in(node: yaml.Node) -> str | None:
        if isinstance(node, yaml.MappingNode) and len(node.value) == 1:
            key, value = node.value[0]
            if key.value == "base64" and isinstance(value, yaml.ScalarNode):
                return str(value.value)
        return None

    def _truth(self, node: yaml.Node, path: str) -> bool | None:
        if isinstance(node, yaml.ScalarNode) and node.value in ("true", "false"):
            return bool(node.value == "true")
        self._expected(node, path, "true or false")
        return None

    def _enum(self, node: yaml.Node, schema: Any, path: str) -> int | None:
        values = schema.enum_type.values_by_name
        if isinstance(node, yaml.ScalarNode) and node.value in values:
            return int(values[node.value].number)
        names = [name for name, value in values.items() if value.number]
        remedy = ""
        if isinstance(node, yaml.ScalarNode):
            near = difflib.get_close_matches(node.value.upper(), names, n=1)
            remedy = f"Did you mean {near[0]}?" if near else ""
        self._expected(node, path, f"one of {', '.join(names)}", remedy)
        return None

    def _whole(self, node: yaml.Node, schema: Any, path: str) -> int | None:
        if (
            not isinstance(node, yaml.ScalarNode)
            or _kind(node) != "int"
            or not _DECIMAL.fullmatch(node.value)
        ):
            unit = schema.name.endswith(_UNIT_ENDINGS)
            remedy = "The unit is in the field's name, not in the value." if unit else ""
            remedy = remedy or "Write digits only, without a zero before them."
            self._expected(node, path, "a whole number", remedy)
            return None
        low, high = _RANGES[schema.type]
        digits = node.value.replace("_", "")
        if len(digits) > 20 or not low <= (value := int(digits)) <= high:
            self._complain(node, path, f"{digits[:40]} is out of range", f"From {low} to {high}.")
            return None
        return value

    def _span(self, node: yaml.Node, into: Duration, path: str) -> None:
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        span = parse_span(text)
        if span is None or _kind(node) == "null":
            remedy = f"{text} of what? Write {text}s or {text}m." if text.isdecimal() else ""
            self._expected(node, path, "a span of time such as 1h, 30m, 90s or 250ms", remedy)
            return
        into.seconds, into.nanos = divmod(span, 1_000_000_000)

    def _moment(self, node: yaml.Node, into: Timestamp, path: str) -> None:
        try:
            if not isinstance(node, yaml.ScalarNode):
                raise ValueError
            into.FromJsonString(node.value)
        except ValueError:
            self._expected(node, path, "a moment with its time zone, such as 2026-11-30T12:00:00Z")


def nearest_field(name: str, schema: Any, extra: tuple[str, ...] = ()) -> str | None:
    """What `name` was most likely meant to be: a field here, or the same one further down."""
    for field_name, child in schema.fields_by_name.items():
        inner = child.message_type
        if inner is not None and not child.is_repeated and name in inner.fields_by_name:
            return f"{field_name}.{name}"
    known: list[str] = [*extra, *schema.fields_by_name]
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.55)
    if close:
        return str(close[0])
    prefixed = [each for each in known if _PLAIN.fullmatch(name) and each.startswith(name.lower())]
    return str(prefixed[0]) if prefixed else None
