"""A cluster written down as YAML: one document whose schema is the proto `ClusterSpec`.

Fields have the names that the proto gives them; enums are written by name, spans of time as `1h`
or `250ms`, moments in ISO 8601 with a time zone, bytes as text or as `{base64: ...}`. Beside the
fields of `ClusterSpec` there is `name`, the id of the cluster.

The document may come from anybody: it is read without building any object but the message, and is
bounded in size, depth and in what its aliases unfold to.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from google.protobuf.message import Message

from intertie.api.cluster.v1.cluster_pb2 import ClusterSpec
from intertie.client.problems import DocumentInvalid, Problem
from intertie.client.scalars import Wrong, expected, found, moment_of, span_of, text_of, value_of

MAX_BYTES = 1024 * 1024
MAX_ALIASES = 100
MAX_DEPTH = 32
MAX_NODES = 100_000
"""Values in the document once its aliases are unfolded."""
MAX_PROBLEMS = 20

_EXAMPLE = "Begin from examples/two-sites.yaml."
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


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
            f"expected fields, as in `groups: [...]`, found {found(root)}",
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
                try:
                    name = text_of(value)
                except Wrong as wrong:
                    self._complain(value, "name", wrong)
            else:
                rest.append((key, value))
        self._fields(rest, spec, "", extra=("name",), depth=0)
        return name

    def _complain(self, node: yaml.Node, path: str, wrong: Wrong) -> None:
        self.problems.append(
            Problem(path=path, line=_line(node), text=wrong.text, remedy=wrong.remedy)
        )
        if len(self.problems) >= MAX_PROBLEMS:
            raise DocumentInvalid(tuple(self.problems))

    def _duplicate(self, key: yaml.Node, path: str) -> None:
        text = f"is there twice, first in line {self.lines[path]}"
        self._complain(key, path, Wrong(text, "Leave one of the two out."))

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
                text = f"expected a field's name, found {found(key)}"
                self._complain(key, path, Wrong(text, _EXAMPLE))
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
            remedy = "Use an alias as a field's value."
            self._complain(key, path, Wrong("merge keys are not read", remedy))
            return
        near = nearest_field(key.value, schema, extra)
        if near:
            remedy = f"Did you mean {near}?"
        else:
            remedy = f"The fields here are {', '.join([*extra, *schema.fields_by_name])}."
        self._complain(key, path, Wrong("no such field", remedy))

    def _field(self, node: yaml.Node, message: Message, schema: Any, path: str, depth: int) -> None:
        if not schema.is_repeated:
            self._single(node, message, schema, path, depth)
            return
        if not isinstance(node, yaml.SequenceNode):
            remedy = "Begin each of its items with `- `."
            self._complain(node, path, expected(node, "a list", remedy))
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
        try:
            if schema.full_name == "google.protobuf.Duration":
                into.seconds, into.nanos = divmod(span_of(node), 1_000_000_000)
            elif schema.full_name == "google.protobuf.Timestamp":
                into.CopyFrom(moment_of(node))
            elif isinstance(node, yaml.MappingNode):
                self._fields(node.value, into, path, depth=depth)
            else:
                raise expected(node, f"fields ({', '.join(schema.fields_by_name)})")
        except Wrong as wrong:
            self._complain(node, path, wrong)

    def _count(self, node: yaml.Node, path: str, depth: int) -> None:
        """An alias may name what holds it, or unfold to more than was written."""
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            remedy = "Write out what they stand for, or join groups that are alike (count)."
            raise _refused(path, _line(node), "aliases unfold to too much", remedy)

    def _scalar(
        self, node: yaml.Node, schema: Any, path: str
    ) -> str | int | float | bool | bytes | None:
        self._count(node, path, 0)
        try:
            return value_of(node, schema)
        except Wrong as wrong:
            self._complain(node, path, wrong)
            return None


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
