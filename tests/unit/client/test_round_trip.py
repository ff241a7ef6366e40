"""Whatever can be specified can be written as YAML and read back the same."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import example, given
from hypothesis import strategies as st

from intertie.api.cluster.v1.cluster_pb2 import ClusterSpec, Network
from intertie.client.document import read_document
from intertie.client.plain import write_document
from intertie.client.spans import format_span, parse_span

MOST_NS = 315_576_000_000 * 1_000_000_000
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12
) | st.sampled_from(["no", "1", "1.5", "~", "null", "2026-11-30", "#a", "a: b", "- x", "1:30", ""])


def numbers(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def value_of(schema: Any) -> st.SearchStrategy[Any]:
    match schema.type:
        case FieldDescriptor.TYPE_STRING:
            return TEXTS
        case FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=12) | TEXTS.map(str.encode)
        case FieldDescriptor.TYPE_INT32:
            return numbers(32)
        case FieldDescriptor.TYPE_INT64:
            return numbers(64)
        case FieldDescriptor.TYPE_DOUBLE:
            # Not -0.0, which is not written.
            return st.floats(allow_nan=False, allow_infinity=False).map(lambda each: each + 0.0)
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.TYPE_ENUM:
            return st.sampled_from([value.number for value in schema.enum_type.values])
        case FieldDescriptor.TYPE_MESSAGE:
            return message_of(schema.message_type)
    raise AssertionError(f"{schema.full_name}: give fields of type {schema.type} a YAML form")


@st.composite
def message_of(draw: st.DrawFn, schema: Any) -> Any:
    message = schema._concrete_class()
    if schema.full_name == "google.protobuf.Duration":
        message.FromNanoseconds(draw(st.integers(0, MOST_NS)))
    elif schema.full_name == "google.protobuf.Timestamp":
        message.FromNanoseconds(draw(st.integers(-(10**18), 10**19)))
    else:
        for field in schema.fields:
            if draw(st.booleans()):
                set_field(message, field, draw)
    return message


def set_field(message: Any, field: Any, draw: st.DrawFn) -> None:
    if field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(value_of(field), max_size=2)))
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(draw(value_of(field)))
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, draw(value_of(field)))


@given(message_of(ClusterSpec.DESCRIPTOR), TEXTS)
@example(ClusterSpec(), "\x85")
@example(ClusterSpec(networks=[Network(name="\n")]), " \n a")
def test_a_specification_written_as_yaml_is_read_back_the_same(
    spec: ClusterSpec, name: str
) -> None:
    document = read_document(write_document(name, spec))
    assert document.spec == spec
    assert document.name == name


@given(st.integers(0, MOST_NS))
def test_a_span_is_read_back_the_same(nanoseconds: int) -> None:
    assert parse_span(format_span(nanoseconds)) == nanoseconds


@given(st.text(alphabet="0123456789dhmsun .-+", max_size=8))
def test_what_is_read_as_a_span_means_what_it_says(text: str) -> None:
    span = parse_span(text)
    if span is not None:
        assert parse_span(format_span(span)) == span
        assert text[0].isdigit()
        assert text[-1].isalpha()
