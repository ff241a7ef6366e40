"""Messages as plain values, in the same conventions as the YAML document, and back to YAML."""

from __future__ import annotations

import base64
from typing import Any

import yaml
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from intertie.api.cluster.v1.cluster_pb2 import ClusterSpec
from intertie.client.spans import format_span

Plain = dict[str, Any] | list[Any] | str | int | float | bool


def to_plain(message: Message, *, defaults: bool = False) -> dict[str, Any]:
    """Field names to values. With `defaults`, fields that hold 0 or nothing are there as well."""
    plain: dict[str, Any] = {}
    for schema in message.DESCRIPTOR.fields:
        value = getattr(message, schema.name)
        if schema.is_repeated:
            if value or defaults:
                plain[schema.name] = _many(value, schema, defaults)
        elif schema.message_type is not None:
            if message.HasField(schema.name):
                plain[schema.name] = _one(value, schema, defaults)
        elif value or defaults:
            plain[schema.name] = _one(value, schema, defaults)
    return plain


def _many(values: Any, schema: Any, defaults: bool) -> Plain:
    entry = schema.message_type
    if entry is not None and entry.GetOptions().map_entry:
        inner = entry.fields_by_name["value"]
        return {str(key): _one(values[key], inner, defaults) for key in sorted(values)}
    return [_one(value, schema, defaults) for value in values]


def _one(value: Any, schema: Any, defaults: bool) -> Plain:
    if schema.message_type is not None:
        match schema.message_type.full_name:
            case "google.protobuf.Duration":
                return format_span(value.seconds * 1_000_000_000 + value.nanos)
            case "google.protobuf.Timestamp":
                return str(value.ToJsonString())
        return to_plain(value, defaults=defaults)
    if schema.type == FieldDescriptor.TYPE_ENUM:
        known = schema.enum_type.values_by_number.get(value)
        return known.name if known else int(value)
    if schema.type == FieldDescriptor.TYPE_BYTES:
        return _bytes(value)
    plain: Plain = value
    return plain


def _bytes(value: bytes) -> Plain:
    """As text where YAML gives the same bytes back, else in base64."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = ""
    if text and all(char.isprintable() or char == "\n" for char in text):
        return text
    return {"base64": base64.b64encode(value).decode()}


class _Dumper(yaml.SafeDumper):
    """Lists are indented below their field, texts of several lines written as they are."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Lines as they are where they are plain ones; whatever YAML might fold or drop, quoted."""
    style = None
    if not all(char.isprintable() or char == "\n" for char in text) or not text.isascii():
        style = '"'
    elif "\n" in text:
        style = "|" if text[0] not in " \n" and text.strip() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(plain: Plain) -> str:
    text = yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return str(text)


def write_document(name: str, spec: ClusterSpec) -> str:
    """What `read_document` reads back to the same name and specification."""
    head: dict[str, Any] = {"name": name} if name else {}
    return to_yaml({**head, **to_plain(spec)})
